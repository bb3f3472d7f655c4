// What the entries of a shard were after each call of a child, as its journal tells it, and whether what the next start
// found is one of these sets. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/crash/kill_journal.h"

namespace sutra::test {

using KillSet = std::array<int64_t, kKillKeys>;  // version by key, -1: absent

struct KillVerdict {
  uint64_t wrong = 0, returned = 0, revived = 0, missing = 0, mixed = 0;
  bool late = false;
  std::string text;
};

class KillHistory {
 public:
  KillHistory() { begin_.fill(-1); }

  // The changes of the next child, which began with `begin`.
  void Read(const KillSet& begin, std::span<const KillRecord> records);
  // Judges what the start after that child found; the child died at `died_ns` or somewhat later.
  KillVerdict Judge(const KillSet& found, uint64_t died_ns) const;

  uint64_t changes() const { return calls_.size(); }
  uint64_t evictions() const { return evictions_; }
  uint64_t removals() const { return removals_; }

 private:
  struct Change {
    uint16_t key = 0;
    int64_t version = -1;
    bool evicted = false;
  };
  struct Call {
    std::vector<Change> changes;
    uint64_t ns = 0;
    bool done = false;
  };

  // Whether `found` is what a kill in the middle of `call` leaves, which followed `before`.
  static bool IsBetween(const KillSet& before, const Call& call, const KillSet& found);
  KillVerdict Explain(const KillSet& found) const;

  KillSet begin_;
  std::vector<Call> calls_;
  size_t written_ = 0;  // so many calls are in the log
  uint64_t evictions_ = 0, removals_ = 0;
  // Of all children.
  std::set<std::pair<uint16_t, int64_t>> ever_;  // what was put
  std::array<bool, kKillKeys> removed_ = {};     // rather than evicted, the last time that it went
};

}  // namespace sutra::test
