// ReservedMemory: address space for a table that must never move, because threads read it without a lock. A page takes
// memory when it is first touched, and reads as zeros before.
//
// Thread rule: the owner's.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

namespace sutra {

class ReservedMemory {
 public:
  // Throws std::bad_alloc if there is no address space for it (as under a limit of it, RLIMIT_AS).
  explicit ReservedMemory(uint64_t bytes) : bytes_(bytes > 0 ? bytes : 1) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    // Only a hint: a hit costs one address translation then instead of several. A small store keeps small pages.
    if (bytes_ >= kHugeWorthBytes) madvise(data_, bytes_, MADV_HUGEPAGE);
  }
  ~ReservedMemory() { munmap(data_, bytes_); }
  ReservedMemory(const ReservedMemory&) = delete;
  ReservedMemory& operator=(const ReservedMemory&) = delete;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  static constexpr uint64_t kHugeWorthBytes = 8ull << 20;

  uint64_t bytes_;
  void* data_;
};

}  // namespace sutra
