// Bytes pass through SHA-256 on their way in and out.
#include "engine/cpu/int8/packed_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "shm/base/file_identity.h"
#include "shm/base/sha256.h"
#include "shm/base/unique_fd.h"

namespace sutra::cpu {
namespace {

constexpr uint32_t kFormatVersion = 1;
constexpr std::array<char, 8> kMagic = {'S', 'U', 'T', 'R', 'A', 'I', '8', '\n'};

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kFormatVersion;
  uint32_t layers = 0;
  std::array<char, 64> identity = {};
  double cosine_min = 0;
  double cosine_mean = 0;
  uint32_t texts = 0;
  uint32_t reserved = 0;
  std::array<char, 32> kernels = {};  // these two padded with zeros
  std::array<char, 128> text = {};
};
static_assert(std::is_trivially_copyable_v<Header> && sizeof(Header) == 264);

template <size_t kSize>
void Put(const std::string& text, std::array<char, kSize>* out) {
  std::copy_n(text.begin(), std::min(text.size(), kSize), out->begin());
}

template <size_t kSize>
std::string Get(const std::array<char, kSize>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

// f(buffer, bytes) for each array of a product whose shape is known.
template <typename Linear, typename F>
void ForEachArray(Linear& linear, const F& f) {
  const size_t width = linear.panels() * kPanelColumns;
  f(linear.weights, linear.depth * width);
  f(linear.scale, width * sizeof(float));
  f(linear.offsets, linear.depth / linear.block * width * sizeof(int32_t));
  for (auto& bias : linear.bias) f(bias, width * sizeof(float));
  f(linear.inverse_smooth, linear.depth * sizeof(float));
  for (auto& shift : linear.shift) f(shift, linear.depth * sizeof(float));
}

// A product of the model's shape, without arrays.
QuantisedLinear ShapeOf(const PackedLayer& layer, LinearRole role) {
  size_t depth = 0;
  QuantisedLinear shape;
  if (role == LinearRole::kFfnOut) {
    shape.columns = layer.ffn_out.front().columns;
    for (const PackedLinear& slice : layer.ffn_out) depth += slice.depth;
  } else {
    const PackedLinear& linear = role == LinearRole::kQkv            ? layer.qkv
                                 : role == LinearRole::kAttentionOut ? layer.attention_out
                                                                     : layer.ffn_in;
    shape.columns = linear.columns;
    depth = linear.depth;
  }
  shape.depth = QuantisedDepth(depth);
  shape.block = MixBlockWidth(shape.depth);
  return shape;
}

std::vector<QuantisedLayer> ShapesOf(const PackedModel& model) {
  std::vector<QuantisedLayer> layers(model.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    for (size_t role = 0; role < kLinearRoles; ++role) {
      layers[i][role] = ShapeOf(model.layers[i], static_cast<LinearRole>(role));
    }
  }
  return layers;
}

uint64_t FileBytes(const std::vector<QuantisedLayer>& layers) {
  uint64_t bytes = sizeof(Header) + sizeof(Sha256Digest);
  for (const QuantisedLayer& layer : layers) {
    for (const QuantisedLinear& linear : layer) {
      ForEachArray(linear, [&bytes](const AlignedBuffer&, size_t more) { bytes += more; });
    }
  }
  return bytes;
}

Status OsError(const std::string& what, const std::string& path) {
  return Status::FromErrno(StatusCode::kStorageError, what + " " + path, errno);
}

// Reads or writes all bytes, and hashes them.
class HashedFile {
 public:
  HashedFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  void Write(const void* data, size_t bytes) {
    hash_.Add({static_cast<const std::byte*>(data), bytes});
    WriteAll(static_cast<const char*>(data), bytes);
  }
  void Read(void* data, size_t bytes) {
    ReadAll(static_cast<char*>(data), bytes);
    if (status_.ok()) hash_.Add({static_cast<const std::byte*>(data), bytes});
  }
  void WriteDigest() {
    const Result<Sha256Digest> digest = hash_.Finish();
    if (!digest.ok() && status_.ok()) status_ = digest.status();
    if (digest.ok()) WriteAll(digest.value().data(), sizeof(Sha256Digest));
  }
  void CheckDigest() {
    Sha256Digest stored = {};
    ReadAll(stored.data(), sizeof(stored));
    const Result<Sha256Digest> digest = hash_.Finish();
    if (!status_.ok()) return;
    if (!digest.ok()) {
      status_ = digest.status();
    } else if (digest.value() != stored) {
      status_ = Status(StatusCode::kStorageError, path_ + " is damaged: its checksum is another one");
    }
  }
  const Status& status() const { return status_; }

 private:
  template <typename Byte>
  void WriteAll(const Byte* data, size_t bytes) {
    while (bytes > 0 && status_.ok()) {
      const ssize_t done = write(fd_, data, bytes);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) {
        status_ = OsError("writing", path_);
        return;
      }
      data += done;
      bytes -= static_cast<size_t>(done);
    }
  }
  template <typename Byte>
  void ReadAll(Byte* data, size_t bytes) {
    while (bytes > 0 && status_.ok()) {
      const ssize_t done = read(fd_, data, bytes);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) status_ = OsError("reading", path_);
      if (done == 0) status_ = Status(StatusCode::kStorageError, path_ + " became shorter while it was read");
      if (done <= 0) return;
      data += done;
      bytes -= static_cast<size_t>(done);
    }
  }

  const int fd_;
  const std::string path_;
  Sha256 hash_;
  Status status_;
};

// Refuses what another user could have put there, and what has another length.
Status CheckFile(int fd, const std::string& path, uint64_t bytes) {
  struct stat found = {};
  if (fstat(fd, &found) != 0) return OsError("looking at", path);
  const auto wrong = [&path](const std::string& why) { return Status(StatusCode::kStorageError, path + " " + why); };
  if (!S_ISREG(found.st_mode)) return wrong("is not a file");
  if (found.st_uid != geteuid()) return wrong("belongs to another user");
  if ((found.st_mode & 022) != 0) return wrong("may be written by others (chmod 600 it, or remove it)");
  if (static_cast<uint64_t>(found.st_size) != bytes) {
    return wrong("has " + std::to_string(found.st_size) + " bytes instead of " + std::to_string(bytes));
  }
  return {};
}

Status CheckHeader(const Header& header, const std::string& path, const std::string& identity, size_t layers) {
  const auto wrong = [&path](const std::string& why) { return Status(StatusCode::kStorageError, path + " " + why); };
  if (header.magic != kMagic) return wrong("is no file of int8 weights");
  if (header.version != kFormatVersion) return wrong("has format " + std::to_string(header.version));
  if (Get(header.identity) != identity) return wrong("belongs to another model or recipe");
  if (header.layers != layers) return wrong("has " + std::to_string(header.layers) + " layers");
  return {};
}

bool IsNamed(int fd, const std::string& path) {
  const std::optional<FileIdentity> own = FileIdentity::Of(fd);
  return own.has_value() && own == FileIdentity::At(path);
}

// A writer holds a lock on its file until that has its name: what is not locked was left behind by one that died.
// Under the lock the name cannot pass to the file of another writer, which would begin with removing this one.
void RemoveLeftOver(const std::string& temporary) {
  const UniqueFd fd(open(temporary.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));  // a pipe would wait
  if (fd.get() >= 0 && flock(fd.get(), LOCK_EX | LOCK_NB) == 0 && IsNamed(fd.get(), temporary)) {
    unlink(temporary.c_str());
  }
}

// A new file under the temporary name, and its lock. kStorageError: another engine is writing the same, too.
Result<UniqueFd> CreateLocked(const std::string& temporary) {
  RemoveLeftOver(temporary);
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (fd.get() < 0) return OsError("creating", temporary);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return OsError("locking", temporary);
  // Before it was locked, another writer may have taken it for a left-over; the name may be that one's file by now.
  if (!IsNamed(fd.get(), temporary)) {
    return Status(StatusCode::kStorageError, "creating " + temporary + ": another engine is writing the same");
  }
  return fd;
}

Status WriteAll(int fd, const std::string& path, const std::string& identity, const QuantisedModel& model) {
  Header header;
  header.layers = static_cast<uint32_t>(model.layers.size());
  Put(identity, &header.identity);
  header.cosine_min = model.quality.cosine_min;
  header.cosine_mean = model.quality.cosine_mean;
  header.texts = model.quality.texts;
  Put(model.quality.kernels, &header.kernels);
  Put(model.quality.text, &header.text);
  HashedFile file(fd, path);
  file.Write(&header, sizeof(header));
  for (const QuantisedLayer& layer : model.layers) {
    for (const QuantisedLinear& linear : layer) {
      ForEachArray(linear, [&file](const AlignedBuffer& buffer, size_t bytes) { file.Write(buffer.data(), bytes); });
    }
  }
  file.WriteDigest();
  if (file.status().ok() && fsync(fd) != 0) return OsError("syncing", path);
  return file.status();
}

}  // namespace

std::string PackedFilePath(const std::string& directory, const std::string& identity) {
  return directory + "/" + identity + ".int8";
}

Status WritePackedFile(const std::string& path, const std::string& identity, const QuantisedModel& model) {
  assert(identity.size() == sizeof(Header::identity));
  const std::string directory = path.substr(0, path.rfind('/'));
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return OsError("creating", directory);
  const std::string temporary = path + ".tmp";
  const Result<UniqueFd> fd = CreateLocked(temporary);
  if (!fd.ok()) return fd.status();
  Status status = WriteAll(fd->get(), temporary, identity, model);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) status = OsError("renaming", temporary);
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  const UniqueFd parent(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (parent.get() < 0 || fsync(parent.get()) != 0) return OsError("syncing", directory);
  return {};
}

Status ReadPackedFile(const std::string& path, const std::string& identity, QuantisedModel* model) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0 && errno == ENOENT) return Status(StatusCode::kNotReady, path + " does not exist", ENOENT);
  if (fd.get() < 0) return OsError("opening", path);
  std::vector<QuantisedLayer> layers = ShapesOf(*model->rest);
  if (Status status = CheckFile(fd.get(), path, FileBytes(layers)); !status.ok()) return status;
  Header header;
  HashedFile file(fd.get(), path);
  file.Read(&header, sizeof(header));
  if (!file.status().ok()) return file.status();
  if (Status status = CheckHeader(header, path, identity, layers.size()); !status.ok()) return status;
  const BufferArena arena;
  for (QuantisedLayer& layer : layers) {
    for (QuantisedLinear& linear : layer) {
      ForEachArray(linear, [&file](AlignedBuffer& buffer, size_t bytes) {
        if (!file.status().ok()) return;
        buffer = AlignedBuffer(bytes);
        file.Read(buffer.data(), bytes);
      });
    }
  }
  file.CheckDigest();
  if (!file.status().ok()) return file.status();
  model->layers = std::move(layers);
  model->quality = {.kernels = Get(header.kernels),
                    .cosine_min = header.cosine_min,
                    .cosine_mean = header.cosine_mean,
                    .texts = header.texts,
                    .text = Get(header.text)};
  return {};
}

}  // namespace sutra::cpu
