// A safetensors file, memory-mapped and fully checked before anything is read from it.
//
// Thread rule: immutable after Open; any thread may read.
// Invariants after a successful Open: every tensor lies within the mapping, its span equals dtype x shape, and the
// tensors cover the data part without hole or overlap. The file is untrusted input: each length is checked by
// subtraction.
// A file that is truncated while it is mapped kills the process with SIGBUS at the next access: replace model files by
// renaming, never in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/base/status.h"

namespace sutra {

enum class TensorType : uint8_t { kF32, kF16, kBf16, kOther };

struct TensorView {
  std::string name;
  TensorType type = TensorType::kOther;
  std::string type_name;  // as the file spells it
  std::vector<uint64_t> shape;
  uint64_t count = 0;
  std::span<const std::byte> bytes;

  // The tensor's data in place, or nullptr unless it is F32 and aligned for floats.
  const float* AlignedFloats() const;
  // Converts F32, F16 or BF16 to `out[count]`. REQUIRES type != kOther.
  void CopyTo(float* out) const;
};

class SafetensorsFile {
 public:
  static Result<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> contents() const { return contents_; }  // the whole file
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const TensorView* Find(std::string_view name) const;
  // Whether path() still leads to the file that was opened, so that a replaced model is not taken for this one.
  bool IsStillAtPath() const;

 private:
  SafetensorsFile() = default;
  Status Map(const std::string& path);
  Status Parse();
  Status CheckCover(uint64_t data_bytes) const;
  Status Damaged(const std::string& what) const;

  std::string path_;
  uint64_t device_ = 0;
  uint64_t inode_ = 0;
  std::span<const std::byte> contents_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

}  // namespace sutra
