// Memory for weights and activations: zeroed, 64-byte aligned, on huge pages where the kernel grants them.
// Thread rule: owned by one object; plain memory.
#pragma once

#include <cstddef>
#include <memory>

namespace sutra {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Out of memory it throws std::bad_alloc.
  explicit AlignedBuffer(size_t bytes);

  void* data() const { return memory_.get(); }
  template <typename T>
  T* As() const {
    return static_cast<T*>(memory_.get());
  }

 private:
  std::shared_ptr<void> memory_;
};

// While one lives, the buffers that its thread makes lie side by side in one mapping. A model's buffers are smaller
// than a huge page of 2 MiB each, and streaming 20 MiB of weights through pages of 4 KiB costs TLB misses. The mapping
// lives as long as any of its buffers: make those of one object in an arena, not what is thrown away meanwhile.
// Thread rule: it belongs to the thread that made it; the innermost one counts.
class BufferArena {
 public:
  BufferArena();
  ~BufferArena();  // gives back what no buffer took
  BufferArena(const BufferArena&) = delete;
  BufferArena& operator=(const BufferArena&) = delete;

 private:
  friend class AlignedBuffer;
  class Mapping;

  std::shared_ptr<void> Take(size_t bytes);

  BufferArena* const outer_;
  std::shared_ptr<Mapping> mapping_;
};

}  // namespace sutra
