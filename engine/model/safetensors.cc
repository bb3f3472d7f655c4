#include "engine/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "shm/base/numbers.h"

namespace sutra {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian numbers");

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = 16U << 20;  // a BERT's header is about 12 KiB; the format itself allows 100 MB
constexpr int kHeaderDepthMax = 4;

// Bytes of one value, 0 for a type the format does not know.
uint64_t TypeBytes(std::string_view type) {
  if (type == "F32" || type == "I32" || type == "U32") return 4;
  if (type == "F16" || type == "BF16" || type == "I16" || type == "U16") return 2;
  if (type == "F64" || type == "I64" || type == "U64") return 8;
  if (type == "BOOL" || type == "U8" || type == "I8" || type == "F8_E4M3" || type == "F8_E5M2") return 1;
  return 0;
}

TensorType TypeOf(std::string_view type) {
  if (type == "F32") return TensorType::kF32;
  if (type == "F16") return TensorType::kF16;
  if (type == "BF16") return TensorType::kBf16;
  return TensorType::kOther;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fU;
  const uint32_t fraction = half & 0x3ffU;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

// Parses the header; `problem` says why the result is discarded. Duplicate keys are invalid in this format but accepted
// by the JSON library, so the parse looks for them.
json ParseHeader(const char* begin, const char* end, std::string* problem) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kHeaderDepthMax) {
      *problem = "the header nests too deeply";
      return false;
    }
    const auto level = static_cast<size_t>(depth);
    if (event == json::parse_event_t::object_start) {
      if (keys.size() <= level + 1) keys.resize(level + 2);
      keys[level + 1].clear();
    } else if (event == json::parse_event_t::key) {
      if (keys.size() <= level) keys.resize(level + 1);
      if (!keys[level].insert(parsed.get<std::string>()).second) {
        *problem = "the name " + parsed.dump(-1, ' ', false, json::error_handler_t::replace) + " appears twice";
      }
    }
    return true;
  };
  json header = json::parse(begin, end, watch, /*allow_exceptions=*/false);
  if (problem->empty() && (header.is_discarded() || !header.is_object())) *problem = "the header is not a JSON object";
  return header;
}

// Reads {"dtype", "shape", "data_offsets"} into `tensor`; returns the problem, or an empty string.
std::string ReadEntry(const json& entry, uint64_t data_begin, uint64_t data_bytes, TensorView* tensor) {
  if (!entry.is_object() || entry.size() != 3) return "needs exactly dtype, shape and data_offsets";
  const auto type = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (type == entry.end() || shape == entry.end() || offsets == entry.end() || !type->is_string() ||
      !shape->is_array() || !offsets->is_array() || offsets->size() != 2) {
    return "needs exactly dtype, shape and data_offsets";
  }
  tensor->type_name = type->get<std::string>();
  tensor->type = TypeOf(tensor->type_name);
  uint64_t bytes = TypeBytes(tensor->type_name);
  if (bytes == 0) return "has a dtype that this format does not define";
  tensor->count = 1;
  for (const json& extent : *shape) {
    if (!extent.is_number_unsigned()) return "has a shape that is not made of whole numbers";
    const auto value = extent.get<uint64_t>();
    if (__builtin_mul_overflow(tensor->count, value, &tensor->count)) return "has a shape beyond 64 bits";
    tensor->shape.push_back(value);
  }
  if (__builtin_mul_overflow(bytes, tensor->count, &bytes)) return "has a shape beyond 64 bits";
  if (!(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned())
    return "has offsets that are not numbers";
  const auto begin = (*offsets)[0].get<uint64_t>();
  const auto end = (*offsets)[1].get<uint64_t>();
  if (begin > end || end > data_bytes) return "reaches beyond the end of the file";
  if (end - begin != bytes) return "has a span that does not fit its dtype and shape";
  tensor->file_offset = data_begin + begin;
  tensor->byte_count = bytes;
  return "";
}

constexpr uint64_t kPart = 1U << 20;  // read at once
constexpr uint64_t kOwnMapping = 64U << 10;
constexpr uint64_t kHugePage = 2U << 20;

// Memory for tensors, not yet written. From kOwnMapping on it is a mapping of its own, which goes back to the system at
// once when it is released; the heap would keep it.
std::shared_ptr<std::byte> Allocate(uint64_t bytes) {
  if (bytes < kOwnMapping) return {new std::byte[bytes == 0 ? 1 : bytes], std::default_delete<std::byte[]>()};
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  if (bytes >= kHugePage) (void)madvise(address, bytes, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(address), [bytes](std::byte* memory) { munmap(memory, bytes); }};
}

// Tensors that lie side by side begin at cache lines.
uint64_t Spaced(uint64_t bytes) { return RoundUp(bytes, uint64_t{64}); }

}  // namespace

const float* TensorView::Floats() const {
  if (type != TensorType::kF32) return nullptr;
  assert(memory != nullptr && std::bit_cast<uintptr_t>(memory.get()) % alignof(float) == 0);
  return static_cast<const float*>(static_cast<const void*>(memory.get()));
}

void TensorView::CopyTo(float* out) const {
  assert(type != TensorType::kOther && memory != nullptr);
  if (type == TensorType::kF32) {
    std::memcpy(out, memory.get(), byte_count);
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, memory.get() + i * sizeof(half), sizeof(half));
    out[i] = type == TensorType::kF16 ? HalfToFloat(half) : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
}

Result<std::shared_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  if (Status status = file->OpenFile(path); !status.ok()) return status;
  if (Status status = file->Parse(); !status.ok()) return status;
  return file;
}

Status SafetensorsFile::OpenFile(const std::string& path) {
  path_ = path;
  fd_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd_) {
    const int error = errno;
    return Status(StatusCode::kModelError,
                  "opening the weights " + path + ": " + std::strerror(error) +
                      (error == ENOENT ? "; the model directory is not complete: fetch the model again"
                                       : "; check the permissions of the model directory"),
                  error);
  }
  struct stat info = {};
  if (fstat(fd_.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < static_cast<off_t>(kLengthBytes)) {
    return Damaged("it is empty or not a regular file");
  }
  size_ = static_cast<uint64_t>(info.st_size);
  (void)posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_WILLNEED);  // tensors are read by role, not in the order of the file
  return Status();
}

// Plain reads: a mapping of a file that is truncated meanwhile would end the process with SIGBUS.
Status SafetensorsFile::Read(void* out, uint64_t bytes, uint64_t offset) const {
  auto* cursor = static_cast<std::byte*>(out);
  while (bytes > 0) {
    const ssize_t got = pread(fd_.get(), cursor, std::min<uint64_t>(bytes, 1U << 30), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::FromErrno(StatusCode::kModelError, "reading the weights " + path_, errno);
    if (got == 0) return Damaged("it became shorter while it was read");
    cursor += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
  return Status();
}

Status SafetensorsFile::Damaged(const std::string& what) const {
  return Status(StatusCode::kModelError, "the weights " + path_ + " are damaged or not a safetensors file: " + what +
                                             "; fetch the model again and compare its SHA-256");
}

// What `git clone` leaves without git-lfs: three lines that name the file, in its place.
Status SafetensorsFile::CheckNoPointer() const {
  constexpr std::string_view kBegin = "version https://git-lfs";
  std::string begin(std::min<uint64_t>(size_, kBegin.size()), '\0');
  if (Status status = Read(begin.data(), begin.size(), 0); !status.ok() || begin != kBegin) return status;
  return Status(StatusCode::kModelError, "the weights " + path_ +
                                             " are a git-lfs pointer, not the file itself: install git-lfs and run "
                                             "'git lfs pull' in the model's folder, or download the file");
}

Status SafetensorsFile::Parse() {
  if (Status status = CheckNoPointer(); !status.ok()) return status;
  uint64_t header_bytes = 0;
  if (Status status = Read(&header_bytes, kLengthBytes, 0); !status.ok()) return status;
  if (header_bytes > kHeaderBytesMax) return Damaged("its header claims " + std::to_string(header_bytes) + " bytes");
  if (header_bytes > size_ - kLengthBytes) return Damaged("it ends within its header");
  std::string text(header_bytes, '\0');
  if (Status status = Read(text.data(), text.size(), kLengthBytes); !status.ok()) return status;
  if (text.empty() || text.front() != '{') return Damaged("its header does not start with '{'");
  const uint64_t data_begin = kLengthBytes + header_bytes;
  const uint64_t data_bytes = size_ - data_begin;

  std::string problem;
  const json header = ParseHeader(text.data(), text.data() + text.size(), &problem);
  if (!problem.empty()) return Damaged(problem);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object() || !std::all_of(entry.begin(), entry.end(), [](const json& v) { return v.is_string(); })) {
        return Damaged("its __metadata__ is not a table of strings");
      }
      continue;
    }
    TensorView tensor;
    tensor.name = name;
    problem = ReadEntry(entry, data_begin, data_bytes, &tensor);
    if (!problem.empty()) return Damaged("tensor " + name + " " + problem);
    tensors_.emplace(name, std::move(tensor));
  }
  return CheckCover(data_bytes);
}

// Sorted by position, each tensor must begin where the previous one ends, and the last must end with the file.
Status SafetensorsFile::CheckCover(uint64_t data_bytes) const {
  std::vector<const TensorView*> order;
  for (const auto& [name, tensor] : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::pair(a->file_offset, a->byte_count) < std::pair(b->file_offset, b->byte_count);
  });
  uint64_t expected = size_ - data_bytes;
  for (const TensorView* tensor : order) {
    if (tensor->file_offset != expected)
      return Damaged("tensor " + tensor->name + " overlaps another or leaves a hole");
    expected += tensor->byte_count;
  }
  if (expected != size_) return Damaged("it has bytes that do not belong to any tensor");
  return Status();
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Result<const TensorView*> SafetensorsFile::Load(std::string_view name) {
  const TensorView* tensor = Find(name);
  assert(tensor != nullptr);
  if (tensor->memory != nullptr && failed_.ok()) return tensor;
  if (Status status = LoadTogether({&tensor, 1}); !status.ok()) return status;
  return tensor;
}

Status SafetensorsFile::LoadTogether(std::span<const TensorView* const> tensors, const Progress& progress) {
  if (!failed_.ok()) return failed_;
  uint64_t bytes = 0;
  for (const TensorView* tensor : tensors) bytes += Spaced(tensor->byte_count);
  const std::shared_ptr<std::byte> all = Allocate(bytes);
  std::byte* place = all.get();
  for (const TensorView* each : tensors) {
    TensorView& tensor = tensors_.find(each->name)->second;
    tensor.memory = {all, place};
    for (uint64_t done = 0; done < tensor.byte_count;) {
      const uint64_t part = std::min(tensor.byte_count - done, kPart);
      failed_ = Read(place + done, part, tensor.file_offset + done);
      if (!failed_.ok()) return failed_;  // its memory stays: another thread may be at the parts that were read
      done += part;
      if (progress) progress(part);
    }
    place += Spaced(tensor.byte_count);
  }
  return Status();
}

}  // namespace sutra
