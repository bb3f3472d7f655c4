#include "producer/tail_arena.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>

#include "producer/no_cancel.h"

namespace sutra::client {
namespace {

constexpr int kPunchHole = 0x02 | 0x01;  // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

// Calls step(word, mask) for each word of the set that [first, first + count) touches.
template <typename Step>
void ForWords(uint32_t first, uint32_t count, const Step& step) {
  for (const uint32_t end = first + count; first < end;) {
    const uint32_t from = first % 64, room = 64 - from, bits = end - first < room ? end - first : room;
    step(first / 64, (bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1) << from);
    first += bits;
  }
}

// Without an instruction for it, __builtin_popcountll is a call into the compiler's library, which we do not link.
uint32_t BitCount(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555;
  bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
  bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return static_cast<uint32_t>(bits * 0x0101010101010101 >> 56);
}

// fallocate restarted when a signal interrupts it. RETURNS whether it succeeded.
bool Allocate(int fd, int mode, uint32_t first, uint32_t pages) {
  const NoCancel no_cancel;
  int failed;
  do {
    failed = fallocate(fd, mode, static_cast<off_t>(first * kPageBytes), static_cast<off_t>(pages * kPageBytes));
  } while (failed != 0 && errno == EINTR);
  return failed == 0;
}

}  // namespace

void PageSet::Add(uint32_t first, uint32_t count) {
  ForWords(first, count, [this](uint32_t word, uint64_t mask) { words_[word] |= mask; });
}

void PageSet::Remove(uint32_t first, uint32_t count) {
  ForWords(first, count, [this](uint32_t word, uint64_t mask) { words_[word] &= ~mask; });
}

uint32_t PageSet::Count(uint32_t first, uint32_t count) const {
  uint32_t sum = 0;
  ForWords(first, count, [&](uint32_t word, uint64_t mask) { sum += BitCount(words_[word] & mask); });
  return sum;
}

uint32_t PageSet::Next(uint32_t at, uint32_t end) const {
  while (at < end) {
    const uint64_t rest = words_[at / 64] >> (at % 64);
    if (rest != 0) {
      at += static_cast<uint32_t>(__builtin_ctzll(rest));
      return at < end ? at : end;
    }
    at = (at / 64 + 1) * 64;
  }
  return end;
}

uint32_t PageSet::NextGap(uint32_t at, uint32_t end) const {
  while (at < end) {
    const uint64_t rest = ~words_[at / 64] >> (at % 64);
    if (rest != 0) {
      at += static_cast<uint32_t>(__builtin_ctzll(rest));
      return at < end ? at : end;
    }
    at = (at / 64 + 1) * 64;
  }
  return end;
}

void TailArena::Open(int fd, uint64_t bytes) {
  assert(bytes <= kTailBytesMax);
  fd_ = fd;
  pages_ = PagesOf(bytes);
  used_.Clear();
  backed_.Clear();
  used_count_ = backed_count_ = 0;
  claimant_.store(0, std::memory_order_relaxed);  // relaxed: under the mutex
}

// RETURNS the first page of the run, or pages_ if there is none.
uint32_t TailArena::FindRun(uint32_t pages, uintptr_t claimant) const {
  PageSet claimed;
  const PageSet* taken = &used_;
  // relaxed: a claim that ends now is told to whoever was kept off by it
  if (const uintptr_t owner = claimant_.load(std::memory_order_relaxed); owner != 0 && owner != claimant) {
    claimed = used_;
    claimed.Add(claim_first_, claim_pages_);
    taken = &claimed;
  }
  for (uint32_t at = taken->NextGap(0, pages_); at < pages_;) {
    const uint32_t end = taken->Next(at, pages_);
    if (end - at >= pages) return at;
    at = taken->NextGap(end, pages_);
  }
  return pages_;
}

bool TailArena::HasRoom(uint32_t pages, uintptr_t claimant) const {
  return pages == 0 || FindRun(pages, claimant) < pages_;
}

// Memory for those pages of the run that have none.
bool TailArena::Back(uint32_t first, uint32_t pages) {
  const uint32_t end = first + pages;
  for (uint32_t at = backed_.NextGap(first, end); at < end; at = backed_.NextGap(at, end)) {
    const uint32_t fresh = backed_.Next(at, end) - at;
    if (!Allocate(fd_, 0, at, fresh)) return false;  // which leaves none of these behind
    backed_.Add(at, fresh);
    backed_count_ += fresh;
  }
  return true;
}

TailArena::Took TailArena::Take(uint32_t pages, uint32_t* first) {
  assert(pages > 0 && pages <= pages_);
  *first = FindRun(pages, 0);
  return *first < pages_ ? TakeAt(*first, pages) : Took::kNoRoom;
}

TailArena::Took TailArena::TakeAt(uint32_t first, uint32_t pages) {
  assert(pages > 0 && pages <= pages_ && first <= pages_ - pages && used_.Count(first, pages) == 0);
  if (!Back(first, pages)) return Took::kNoMemory;
  used_.Add(first, pages);
  used_count_ += pages;
  return Took::kRun;
}

void TailArena::Give(uint32_t first, uint32_t pages) {
  assert(pages <= pages_ && first <= pages_ - pages && used_.Count(first, pages) == pages);
  used_.Remove(first, pages);
  used_count_ -= pages;
  assert(backed_count_ >= used_count_);
  const uint32_t idle = backed_count_ - used_count_;
  if (idle <= kPagesKept) return;
  const uint32_t excess = idle - kPagesKept < pages ? idle - kPagesKept : pages;
  // Its end: the next run begins as low as it can.
  const uint32_t at = first + pages - excess;
  if (!Allocate(fd_, kPunchHole, at, excess)) return;  // the pages stay and remain counted
  backed_.Remove(at, excess);
  backed_count_ -= excess;
}

bool TailArena::Claim(uintptr_t claimant, uint32_t pages) {
  assert(claimant != 0 && pages > 0 && pages <= pages_);
  if (claimant_.load(std::memory_order_relaxed) != 0) return false;  // relaxed: made under the mutex
  uint32_t used = used_.Count(0, pages), used_least = used, best = 0;
  for (uint32_t first = 1; first + pages <= pages_; ++first) {
    used += used_.Has(first + pages - 1) ? 1 : 0;
    used -= used_.Has(first - 1) ? 1 : 0;
    if (used <= used_least) best = first;  // the highest: short texts gather at the low end
    if (used < used_least) used_least = used;
  }
  claim_first_ = best;
  claim_pages_ = pages;
  claimant_.store(claimant, std::memory_order_relaxed);  // relaxed: read under the mutex
  return true;
}

bool TailArena::EndClaim(uintptr_t claimant) {
  // relaxed: the pages behind it are read under the mutex, and a claim that is seen too long is told of
  return claimant_.compare_exchange_strong(claimant, 0, std::memory_order_relaxed);
}

}  // namespace sutra::client
