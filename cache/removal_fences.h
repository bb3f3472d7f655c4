// RemovalFences: stops what computations that began before a removal would store after it. Whoever computes remembers
// how many removals there were when he began; what he stores then does not pass a fence that was raised later.
//
// Thread rule: the owner's lock, but for removals(), which any thread may call. Invariants (asserted in tests):
//  - removals() never decreases, and every fence is at most removals().
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "cache/key_digest.h"

namespace sutra {

class RemovalFences {
 public:
  uint64_t removals() const { return removals_.load(std::memory_order_acquire); }
  // For one key. Returns removals() from then on.
  uint64_t Raise(const KeyDigest& key) { return fences_[key.high % kFences] = Next(); }
  // For all keys.
  uint64_t RaiseAll() { return all_ = Next(); }
  bool Stops(const KeyDigest& key, uint64_t removals_seen) const {
    return std::max(all_, fences_[key.high % kFences]) > removals_seen;
  }

 private:
  uint64_t Next() { return removals_.fetch_add(1, std::memory_order_release) + 1; }

  // When a key of this remainder was removed last: a removal of one of its 4,095 neighbours costs a computation that is
  // under way its entry, and nothing else.
  static constexpr size_t kFences = 4096;
  std::array<uint64_t, kFences> fences_ = {};
  uint64_t all_ = 0;
  std::atomic<uint64_t> removals_{0};
};

}  // namespace sutra
