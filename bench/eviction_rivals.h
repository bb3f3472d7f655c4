// What the store is measured beside in the eviction benchmark: LRU, second chance, S3-FIFO as in the book, and FIFO for
// the self-test. Keys are dense numbers, so that a rival costs little time. Each has Ask: true if the key was there; it
// is there afterwards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

namespace sutra::bench {

class Lru {
 public:
  Lru(uint32_t entries_max, uint32_t keys) : entries_max_(entries_max), end_(keys), links_(keys + 1), there_(keys) {
    links_[end_] = {end_, end_};
  }
  bool Ask(uint32_t key, uint32_t) {
    const bool hit = there_[key];
    if (hit) {
      Unlink(key);
    } else if (entries_ == entries_max_) {
      const uint32_t oldest = links_[end_].newer;
      there_[oldest] = false;
      Unlink(oldest);
    } else {
      ++entries_;
    }
    there_[key] = true;
    links_[key] = {links_[end_].older, end_};
    links_[links_[key].older].newer = key;
    links_[end_].older = key;
    return hit;
  }

 private:
  struct Links {
    uint32_t older = 0, newer = 0;
  };
  void Unlink(uint32_t key) {
    links_[links_[key].older].newer = links_[key].newer;
    links_[links_[key].newer].older = links_[key].older;
  }

  const uint32_t entries_max_, end_;  // `end_` is older than the oldest and newer than the newest
  uint32_t entries_ = 0;
  std::vector<Links> links_;
  std::vector<bool> there_;
};

// Second chance: a ring, a bit that a hit sets, a hand that clears it. Without chances: FIFO.
class SecondChance {
 public:
  SecondChance(uint32_t entries_max, uint32_t keys, bool chances = true)
      : entries_max_(entries_max), chances_(chances), there_(keys), hit_(keys) {}
  bool Ask(uint32_t key, uint32_t) {
    if (there_[key]) return hit_[key] = chances_, true;
    there_[key] = true;
    hit_[key] = false;
    if (ring_.size() < entries_max_) return ring_.push_back(key), false;
    for (; hit_[ring_[hand_]]; hand_ = (hand_ + 1) % entries_max_) hit_[ring_[hand_]] = false;
    there_[ring_[hand_]] = false;
    ring_[hand_] = key;
    hand_ = (hand_ + 1) % entries_max_;
    return false;
  }

 private:
  const uint32_t entries_max_;
  const bool chances_;
  uint32_t hand_ = 0;
  std::vector<uint32_t> ring_;
  std::vector<bool> there_, hit_;
};

// A tenth for the small queue, a count of hits up to 3, to the main queue with 2 of them, ghosts for nine tenths.
class BookS3Fifo {
 public:
  BookS3Fifo(uint32_t entries_max, uint32_t keys) : entries_max_(entries_max), states_(keys) {}
  bool Ask(uint32_t key, uint32_t) {
    State& state = states_[key];
    if (state.there) return state.hits = std::min<uint8_t>(state.hits + 1, 3), true;
    while (small_.size() + main_.size() >= entries_max_) Evict();
    (state.ghosts > 0 ? main_ : small_).push_back(key);
    state.ghosts = 0;
    state.there = true;
    state.hits = 0;
    return false;
  }

 private:
  struct State {
    bool there = false;
    uint8_t hits = 0;
    uint16_t ghosts = 0;  // times in ghosts_
  };
  void Evict() {
    const bool small = main_.empty() || small_.size() > entries_max_ / 10;
    std::deque<uint32_t>& queue = small ? small_ : main_;
    const uint32_t key = queue.front();
    queue.pop_front();
    State& state = states_[key];
    if (small && state.hits >= 2) {
      state.hits = 0;
      main_.push_back(key);
    } else if (!small && state.hits > 0) {
      --state.hits;
      main_.push_back(key);
    } else {
      state.there = false;
      if (small) AddGhost(key);
    }
  }
  void AddGhost(uint32_t key) {
    ++states_[key].ghosts;
    ghosts_.push_back(key);
    if (ghosts_.size() <= entries_max_ * 9 / 10) return;
    State& oldest = states_[ghosts_.front()];
    ghosts_.pop_front();
    if (oldest.ghosts > 0) --oldest.ghosts;
  }

  const uint32_t entries_max_;
  std::deque<uint32_t> small_, main_, ghosts_;
  std::vector<State> states_;
};

}  // namespace sutra::bench
