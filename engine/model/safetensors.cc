#include "engine/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

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
std::string ReadEntry(const json& entry, std::span<const std::byte> data, TensorView* tensor) {
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
  if (begin > end || end > data.size()) return "reaches beyond the end of the file";
  if (end - begin != bytes) return "has a span that does not fit its dtype and shape";
  tensor->bytes = data.subspan(begin, bytes);
  return "";
}

}  // namespace

const float* TensorView::AlignedFloats() const {
  if (type != TensorType::kF32 || std::bit_cast<uintptr_t>(bytes.data()) % alignof(float) != 0) return nullptr;
  return static_cast<const float*>(static_cast<const void*>(bytes.data()));
}

void TensorView::CopyTo(float* out) const {
  assert(type != TensorType::kOther);
  if (type == TensorType::kF32) {
    std::memcpy(out, bytes.data(), bytes.size());
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + i * sizeof(half), sizeof(half));
    out[i] = type == TensorType::kF16 ? HalfToFloat(half) : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
  }
}

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  if (Status status = file->Map(path); !status.ok()) return status;
  if (Status status = file->Parse(); !status.ok()) return status;
  return std::shared_ptr<const SafetensorsFile>(std::move(file));
}

SafetensorsFile::~SafetensorsFile() {
  if (!contents_.empty()) munmap(const_cast<std::byte*>(contents_.data()), contents_.size());
}

Status SafetensorsFile::Map(const std::string& path) {
  path_ = path;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    return Status(StatusCode::kModelError,
                  "opening the weights " + path + ": " + std::strerror(error) +
                      (error == ENOENT ? "; the model directory is not complete: fetch the model again"
                                       : "; check the permissions of the model directory"),
                  error);
  }
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < static_cast<off_t>(kLengthBytes)) {
    close(fd);
    return Damaged("it is empty or not a regular file");
  }
  const auto bytes = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  if (address == MAP_FAILED) return Status::FromErrno(StatusCode::kModelError, "mapping the weights " + path, error);
  contents_ = std::span(static_cast<const std::byte*>(address), bytes);
  device_ = info.st_dev;
  inode_ = info.st_ino;
  return Status();
}

Status SafetensorsFile::Damaged(const std::string& what) const {
  return Status(StatusCode::kModelError, "the weights " + path_ + " are damaged or not a safetensors file: " + what +
                                             "; fetch the model again and compare its SHA-256");
}

Status SafetensorsFile::Parse() {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, contents_.data(), kLengthBytes);
  if (header_bytes > kHeaderBytesMax) return Damaged("its header claims " + std::to_string(header_bytes) + " bytes");
  if (header_bytes > contents_.size() - kLengthBytes) return Damaged("it ends within its header");
  const auto* begin = static_cast<const char*>(static_cast<const void*>(contents_.data())) + kLengthBytes;
  if (header_bytes == 0 || *begin != '{') return Damaged("its header does not start with '{'");
  const std::span<const std::byte> data = contents_.subspan(kLengthBytes + header_bytes);

  std::string problem;
  const json header = ParseHeader(begin, begin + header_bytes, &problem);
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
    problem = ReadEntry(entry, data, &tensor);
    if (!problem.empty()) return Damaged("tensor " + name + " " + problem);
    tensors_.emplace(name, std::move(tensor));
  }
  return CheckCover(data.size());
}

// Sorted by position, each tensor must begin where the previous one ends, and the last must end with the file.
Status SafetensorsFile::CheckCover(uint64_t data_bytes) const {
  std::vector<const TensorView*> order;
  for (const auto& [name, tensor] : tensors_) order.push_back(&tensor);
  const std::byte* data = contents_.data() + (contents_.size() - data_bytes);
  std::sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) < std::pair(b->bytes.data(), b->bytes.size());
  });
  const std::byte* expected = data;
  for (const TensorView* tensor : order) {
    if (tensor->bytes.data() != expected)
      return Damaged("tensor " + tensor->name + " overlaps another or leaves a hole");
    expected += tensor->bytes.size();
  }
  if (expected != data + data_bytes) return Damaged("it has bytes that do not belong to any tensor");
  return Status();
}

bool SafetensorsFile::IsStillAtPath() const {
  struct stat info = {};
  return stat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_;
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace sutra
