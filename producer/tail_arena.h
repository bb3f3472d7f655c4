// Where the long texts of a lane lie in its tail file: each has a run of pages, first fit, lowest address first, so
// that few pages need memory. Memory is allocated when a run first covers a page and stays for the next text; what is
// beyond kPagesKept pages that no text uses is given back to the kernel with the run that is released.
//
// One waiting call may claim pages, so that shorter texts which come and go do not keep it waiting for ever: whoever
// else takes a run gets none of them until the claim ends.
//
// Thread rule: under the lane's mutex, but for EndClaim: any thread, without it.
// Invariants: a page has one text at most; every page that a text uses has memory; pages counted as having memory are
// those that may have it (a hole that could not be punched stays counted).
#pragma once

#include <stdint.h>

#include <atomic>

#include "shm/layout.h"

namespace sutra::client {

// Which of the pages of a tail file ...
class PageSet {
 public:
  static constexpr uint32_t kPages = kTailBytesMax / kPageBytes;

  void Add(uint32_t first, uint32_t count);
  void Remove(uint32_t first, uint32_t count);
  void Clear() { *this = PageSet(); }
  bool Has(uint32_t page) const { return (words_[page / 64] >> (page % 64) & 1) != 0; }
  uint32_t Count(uint32_t first, uint32_t count) const;
  // The first page from `at` on that is in the set, or is not; `end` if there is none below it.
  uint32_t Next(uint32_t at, uint32_t end) const;
  uint32_t NextGap(uint32_t at, uint32_t end) const;

 private:
  uint64_t words_[kPages / 64] = {};
};

class TailArena {
 public:
  static constexpr uint32_t kPagesKept = (4u << 20) / kPageBytes;

  enum class Took : uint8_t {
    kRun,
    kNoRoom,    // no run is free that is long enough
    kNoMemory,  // errno says why
  };
  static uint32_t PagesOf(uint64_t bytes) { return static_cast<uint32_t>(RoundUp(bytes, kPageBytes) / kPageBytes); }

  TailArena() = default;
  TailArena(const TailArena&) = delete;
  TailArena& operator=(const TailArena&) = delete;

  // Of a lane's fresh, empty tail file; what was in the arena before is forgotten.
  void Open(int fd, uint64_t bytes);

  // Whether a run of `pages` is free. `claimant`: the call that made the claim is not kept off by it; 0 = none.
  bool HasRoom(uint32_t pages, uintptr_t claimant) const;
  // REQUIRES 0 < pages <= those of the file. On kRun [*first, *first + pages) has memory and is the caller's.
  Took Take(uint32_t pages, uint32_t* first);
  // The same of a certain run, which REQUIRES to be free: for a text that moves to the same place of a fresh file.
  Took TakeAt(uint32_t first, uint32_t pages);
  void Give(uint32_t first, uint32_t pages);

  // Keeps the run that is nearest to being free for `claimant`, which is not 0. RETURNS false if there is a claim
  // already.
  bool Claim(uintptr_t claimant, uint32_t pages);
  // REQUIRES a claim.
  uint32_t ClaimedPagesUsed() const { return used_.Count(claim_first_, claim_pages_); }
  // RETURNS true if the claimant had a claim here: calls that wait for room should look again.
  bool EndClaim(uintptr_t claimant);

  uint64_t used_bytes() const { return uint64_t{used_count_} * kPageBytes; }
  uint64_t memory_bytes() const { return uint64_t{backed_count_} * kPageBytes; }

 private:
  uint32_t FindRun(uint32_t pages, uintptr_t claimant) const;
  bool Back(uint32_t first, uint32_t pages);

  int fd_ = -1;
  uint32_t pages_ = 0;
  PageSet used_, backed_;
  uint32_t used_count_ = 0, backed_count_ = 0;
  std::atomic<uintptr_t> claimant_ = 0;  // whose claim these are; 0 = there is none
  uint32_t claim_first_ = 0, claim_pages_ = 0;
};

}  // namespace sutra::client
