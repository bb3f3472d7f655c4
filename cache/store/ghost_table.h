// GhostTable: which keys left the store lately, as fingerprints of 16 bits, two bytes a key. A key that is asked for
// again soon after it was evicted deserves a better place than one that nobody has seen.
//
// Sets of 32 fingerprints, one cache line each; the key's hash chooses the set, and a set forgets its oldest. So a
// table of n keys remembers about the last n, and neither call searches or moves more than one line. A key that was
// never added is taken for one that was in at most 32 of 65,536 cases, which costs a wrong guess about one entry.
//
// Thread rule: the owner's lock. Invariants: never more than the number of keys asked for, rounded up to whole sets; a
// fingerprint is not 0, which means empty; only the constructor needs memory, and pages are touched as sets are used.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>

#include "cache/store/reserved_memory.h"

namespace sutra {

class GhostTable {
 public:
  static constexpr uint64_t kSetKeys = 32;

  // Room for `keys` keys. Throws std::bad_alloc.
  explicit GhostTable(uint64_t keys)
      : set_count_((keys + kSetKeys - 1) / kSetKeys), memory_(set_count_ * sizeof(Set)), sets_(memory_.as<Set>()) {}

  // Remembers the key of this hash, and of the others about as many as `keys`.
  void Add(uint64_t hash, uint64_t keys) {
    if (set_count_ == 0) return;
    const uint64_t ways = std::clamp((keys + set_count_ - 1) / set_count_, uint64_t{1}, kSetKeys);
    auto& set = SetOf(hash).keys;
    std::copy_backward(set.begin(), set.begin() + (ways - 1), set.begin() + ways);
    std::fill(set.begin() + ways, set.end(), uint16_t{0});
    set[0] = FingerprintOf(hash);
    assert(set[0] != 0);
  }

  // Whether the key is remembered; it is forgotten then.
  bool Take(uint64_t hash) {
    if (set_count_ == 0) return false;
    auto& set = SetOf(hash).keys;
    const auto found = std::find(set.begin(), set.end(), FingerprintOf(hash));
    if (found == set.end()) return false;
    std::copy(found + 1, set.end(), found);  // the others keep their order
    set.back() = 0;
    return true;
  }

  uint64_t keys_max() const { return set_count_ * kSetKeys; }

 private:
  struct alignas(64) Set {
    std::array<uint16_t, kSetKeys> keys{};  // the newest first
  };
  static_assert(sizeof(Set) == 64);

  // The set comes from the upper half of the hash and the fingerprint from the lower, so that one says nothing about
  // the other.
  Set& SetOf(uint64_t hash) { return sets_[((hash >> 32) * set_count_) >> 32]; }
  static uint16_t FingerprintOf(uint64_t hash) { return std::max<uint16_t>(static_cast<uint16_t>(hash), 1); }

  const uint64_t set_count_;
  const ReservedMemory memory_;
  Set* const sets_;  // zeros at first: empty
};

}  // namespace sutra
