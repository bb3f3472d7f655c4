// Memory for weights and activations: zeroed, 64-byte aligned, on huge pages where the kernel grants them.
// Thread rule: owned by one object; plain memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "shm/base/numbers.h"

namespace sutra {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) {
    // Streaming 20 MiB of weights through 4 KiB pages costs more in TLB misses than rounding up wastes.
    constexpr size_t kHugePage = 2U << 20;
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    const size_t rounded = RoundUp(bytes, alignment);
    memory_.reset(std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded));
    if (memory_ == nullptr) throw std::bad_alloc();
    if (alignment == kHugePage) (void)madvise(memory_.get(), rounded, MADV_HUGEPAGE);
    std::memset(memory_.get(), 0, rounded == 0 ? alignment : rounded);
  }

  void* data() const { return memory_.get(); }
  template <typename T>
  T* As() const {
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
};

}  // namespace sutra
