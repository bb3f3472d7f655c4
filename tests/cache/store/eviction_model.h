// The eviction queues once more, as plainly as they can be written: lists of entries that know everything about
// themselves, ghosts as lists of hashes. Told to, it makes one mistake, for the canaries.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <list>
#include <map>

#include "cache/store/eviction.h"

namespace sutra::test {

enum class Mistake { kNone, kNoGhosts, kDearIsOrdinary, kShareStands, kSparesWithoutEnd, kLastInFirstOut, kHitsAddUp };

class EvictionModel {
 public:
  struct Entry {
    uint32_t slot = 0;
    uint64_t hash = 0;
    EvictionQueues::Cost cost;
    uint32_t rounds = 0;
  };

  EvictionModel(uint64_t slots, Mistake mistake) : sets_((slots + 31) / 32), mistake_(mistake) {}

  void Insert(uint32_t slot, uint64_t hash, const EvictionQueues::Cost& cost) {
    Entry entry{slot, hash, cost, 0};
    if (!TakeGhost(hash)) return small.push_back(entry);
    MoveShare(4);
    entry.rounds = Rounds(cost.tokens) == 3 ? 1 : 0;
    ToMain(cost.tokens);
    main.push_back(entry);
  }
  void Hit(uint32_t slot) {
    for (std::list<Entry>* queue : {&small, &main}) {
      for (Entry& entry : *queue) {
        if (entry.slot != slot) continue;
        if (queue == &main && entry.rounds == 0) MoveShare(-4);
        const uint32_t rounds = Rounds(entry.cost.tokens);
        entry.rounds = mistake_ == Mistake::kHitsAddUp ? std::min(3u, entry.rounds + rounds) : rounds;
      }
    }
  }
  void Remove(uint32_t slot) {
    for (std::list<Entry>* queue : {&small, &main}) queue->remove_if([&](const Entry& e) { return e.slot == slot; });
  }
  std::list<Entry>& Turn() {
    const double in_small = static_cast<double>(Bytes(small)), in_main = static_cast<double>(Bytes(main));
    return main.empty() || in_small > share * (in_small + in_main) ? small : main;
  }
  uint32_t Candidate() {
    if (mistake_ == Mistake::kLastInFirstOut && &Turn() == &small) return small.back().slot;
    return Turn().front().slot;
  }
  bool Spare() {
    std::list<Entry>& queue = Turn();
    const bool in_small = &queue == &small;
    Entry entry = queue.front();
    const bool tired = spared_ == 128 && mistake_ != Mistake::kSparesWithoutEnd;
    if (entry.rounds == 0 || tired) {
      spared_ = 0;
      if (in_small) AddGhost(entry.hash);
      return false;
    }
    ++spared_;
    queue.pop_front();
    if (in_small) ToMain(entry.cost.tokens);
    entry.rounds = in_small ? 0 : entry.rounds - 1;
    main.push_back(entry);
    return true;
  }

  static uint64_t Bytes(const std::list<Entry>& queue) {
    uint64_t sum = 0;
    for (const Entry& entry : queue) sum += entry.cost.bytes;
    return sum;
  }

  std::list<Entry> small, main;
  double share = 0.1;

 private:
  void MoveShare(double entries) {
    if (mistake_ == Mistake::kShareStands) return;
    const double all = static_cast<double>(std::max<size_t>(small.size() + main.size(), 1));
    share = std::min(0.5, std::max(0.1, share + entries / all));
  }
  void ToMain(uint64_t tokens) { mean_ = mean_ == 0 ? tokens * 256 : mean_ - mean_ / 256 + tokens; }
  uint32_t Rounds(uint64_t tokens) const {
    if (mean_ == 0 || mistake_ == Mistake::kDearIsOrdinary) return 2;
    return 512 * tokens < mean_ ? 1 : 512 * tokens <= 3 * mean_ ? 2 : 3;
  }
  std::deque<uint64_t>& SetOf(uint64_t hash) { return sets_[((hash >> 32) * sets_.size()) >> 32]; }
  static uint64_t Print(uint64_t hash) { return std::max<uint64_t>(hash & 0xffff, 1); }
  void AddGhost(uint64_t hash) {
    if (mistake_ == Mistake::kNoGhosts) return;
    std::deque<uint64_t>& set = SetOf(hash);
    set.push_front(Print(hash));
    const size_t share_of_set = (small.size() + main.size() + sets_.size() - 1) / sets_.size();
    set.resize(std::min(set.size(), std::clamp<size_t>(share_of_set, 1, 32)));
  }
  bool TakeGhost(uint64_t hash) {
    std::deque<uint64_t>& set = SetOf(hash);
    const auto found = std::find(set.begin(), set.end(), Print(hash));
    if (found == set.end()) return false;
    set.erase(found);
    return true;
  }

  std::vector<std::deque<uint64_t>> sets_;
  const Mistake mistake_;
  uint32_t spared_ = 0;
  uint64_t mean_ = 0;
};

}  // namespace sutra::test
