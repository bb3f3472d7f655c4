// A safetensors file: the header is read and checked at Open, each tensor is read when it is asked for. Tensors own
// their memory, so that a file that is overwritten, truncated or removed later changes nothing.
//
// Thread rule: one thread loads; tensors are immutable once they are loaded, and any thread may read them then.
// Invariants after a successful Open: every tensor lies within the file as it was at Open, its span equals dtype x
// shape, and the tensors cover the data part without hole or overlap. The file is untrusted input: each length is
// checked by subtraction, and a file that is shorter when a tensor is read than it was at Open is an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

enum class TensorType : uint8_t { kF32, kF16, kBf16, kOther };

struct TensorView {
  std::string name;
  TensorType type = TensorType::kOther;
  std::string type_name;  // as the file spells it
  std::vector<uint64_t> shape;
  uint64_t count = 0;
  uint64_t file_offset = 0;
  uint64_t byte_count = 0;
  std::shared_ptr<const std::byte> memory;  // aligned for floats; empty until the tensor is loaded

  std::span<const std::byte> bytes() const { return {memory.get(), memory == nullptr ? 0 : byte_count}; }
  // The tensor's data in place, or nullptr unless it is F32. Valid as long as somebody holds `memory`.
  const float* Floats() const;
  // Converts F32, F16 or BF16 to `out[count]`. REQUIRES type != kOther, loaded.
  void CopyTo(float* out) const;
};

class SafetensorsFile {
 public:
  static Result<std::shared_ptr<SafetensorsFile>> Open(const std::string& path);
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const TensorView* Find(std::string_view name) const;
  // Reads the tensor's bytes if that has not been done. REQUIRES: there is such a tensor. The pointer is valid as long
  // as the file object.
  Result<const TensorView*> Load(std::string_view name);
  using Progress = std::function<void(uint64_t bytes)>;
  // Reads tensors of this file one after another, side by side into one piece of memory that goes when nobody holds any
  // of them: on huge pages, 200 small tensors cost 22 page faults instead of 10,000. After each part of a tensor
  // `progress`, if there is one, is called with its bytes: they may be read by any thread from then on. After a failure
  // this file fails for good.
  Status LoadTogether(std::span<const TensorView* const> tensors, const Progress& progress = {});

 private:
  SafetensorsFile() = default;
  Status OpenFile(const std::string& path);
  Status CheckNoPointer() const;
  Status Parse();
  Status CheckCover(uint64_t data_bytes) const;
  Status Read(void* out, uint64_t bytes, uint64_t offset) const;
  Status Damaged(const std::string& what) const;

  std::string path_;
  UniqueFd fd_;
  uint64_t size_ = 0;  // at Open
  Status failed_;      // the first read of tensors that did
  std::map<std::string, TensorView, std::less<>> tensors_;
};

}  // namespace sutra
