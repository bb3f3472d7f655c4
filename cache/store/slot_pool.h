// SlotPool: memory slots of one size from large chunks, on huge pages where the kernel grants them: a hit then costs
// one address translation instead of several, and filling the store at start takes a hundredth of the page faults.
//
// Thread rule: the owner's lock. Invariants: a slot is aligned to a cache line; a freed slot is reused before a new one
// is taken; only Clear releases chunks; only Take needs memory, and what it cannot get changes nothing.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "shm/base/numbers.h"

namespace sutra {

class SlotPool {
 public:
  static constexpr uint64_t kSlotAlign = 64;

  explicit SlotPool(uint64_t slot_bytes) : slot_bytes_(RoundUp(slot_bytes, kSlotAlign)) {}
  uint64_t slot_bytes() const { return slot_bytes_; }

  // Throws std::bad_alloc when out of memory.
  void* Take() {
    if (free_ != nullptr) {
      Free* slot = free_;
      free_ = slot->next;
      return slot;
    }
    if (slot_bytes_ > chunk_bytes_ - used_) {
      // Chunks double up to a huge page, so that a small store stays small.
      const uint64_t doubled = std::min(std::max(2 * chunk_bytes_, kFirstChunkBytes), kHugePageBytes);
      const uint64_t bytes = RoundUp(std::max(doubled, 4 * slot_bytes_), kSmallPageBytes);
      const bool huge = bytes >= kHugePageBytes;
      const uint64_t rounded = huge ? RoundUp(bytes, kHugePageBytes) : bytes;
      const std::align_val_t align{huge ? kHugePageBytes : kSmallPageBytes};
      std::unique_ptr<char[], FreeChunk> chunk(static_cast<char*>(::operator new(rounded, align)), FreeChunk{align});
      if (huge) madvise(chunk.get(), rounded, MADV_HUGEPAGE);  // only a hint: a refusal costs speed, nothing else
      chunks_.push_back(std::move(chunk));
      chunk_bytes_ = rounded;
      used_ = 0;
    }
    void* slot = chunks_.back().get() + used_;
    used_ += slot_bytes_;
    assert(used_ <= chunk_bytes_ && used_ % kSlotAlign == 0);  // chunks start at a page boundary
    return slot;
  }
  void Give(void* slot) { free_ = new (slot) Free{free_}; }
  void Clear() {
    free_ = nullptr;
    chunks_.clear();
    chunk_bytes_ = used_ = 0;
  }

 private:
  static constexpr uint64_t kFirstChunkBytes = 64u << 10;
  static constexpr uint64_t kHugePageBytes = 2u << 20;
  static constexpr uint64_t kSmallPageBytes = 4096;
  struct FreeChunk {
    std::align_val_t align;
    void operator()(char* chunk) const { ::operator delete(chunk, align); }
  };
  struct Free {  // in the memory of a free slot
    Free* next;
  };

  const uint64_t slot_bytes_;
  uint64_t chunk_bytes_ = 0;  // of the last chunk
  uint64_t used_ = 0;
  std::vector<std::unique_ptr<char[], FreeChunk>> chunks_;
  Free* free_ = nullptr;
};

}  // namespace sutra
