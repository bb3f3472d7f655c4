// Which entry goes: scans pass, ghosts come back, cost counts, bounds hold; and the same decisions as a plain model.
#include "cache/store/eviction.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>

#include "tests/cache/store/eviction_model.h"
#include "tests/kit/by_build.h"
#include "tests/kit/seed.h"

namespace sutra {
namespace {

using test::EvictionModel;
using test::Mistake;

uint64_t HashOf(uint64_t key) {
  uint64_t hash = (key + 1) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return hash ^ (hash >> 31);
}

// Queues with the memory for their nodes.
class OwnedQueues : private std::unique_ptr<EvictionQueues::Node[]>, public EvictionQueues {
 public:
  explicit OwnedQueues(uint64_t slots)
      : std::unique_ptr<EvictionQueues::Node[]>(new EvictionQueues::Node[slots]),
        EvictionQueues(get(), sizeof(EvictionQueues::Node), slots) {}
};

// A cache of so many entries of one byte, without values.
class Cache {
 public:
  explicit Cache(uint32_t entries_max) : queues_(entries_max), keys_(entries_max) {
    for (uint32_t slot = entries_max; slot-- > 0;) free_.push_back(slot);
  }
  // True if the key is there; else it is put there.
  bool Ask(uint64_t key, uint32_t tokens = 10) {
    if (const auto found = slots_.find(key); found != slots_.end()) {
      queues_.Hit(found->second, tokens);
      return true;
    }
    while (free_.empty()) {
      const uint32_t slot = queues_.Candidate();
      if (!queues_.Spare(slot, HashOf(keys_[slot].key), {1, keys_[slot].tokens})) Erase(keys_[slot].key);
    }
    const uint32_t slot = free_.back();
    free_.pop_back();
    keys_[slot] = Key{key, tokens};
    slots_[key] = slot;
    queues_.Insert(slot, HashOf(key), {1, tokens});
    return false;
  }
  void Erase(uint64_t key) {
    const uint32_t slot = slots_.at(key);
    queues_.Remove(slot, 1);
    free_.push_back(slot);
    slots_.erase(key);
  }
  bool Has(uint64_t key) const { return slots_.count(key) != 0; }
  bool IsInMain(uint64_t key) const { return queues_.IsInMain(slots_.at(key)); }
  uint32_t RoundsOf(uint64_t key) const { return queues_.RoundsOf(slots_.at(key)); }
  EvictionQueues& queues() { return queues_; }
  size_t CountOf(uint64_t first, uint64_t count) const {
    size_t there = 0;
    for (uint64_t key = first; key < first + count; ++key) there += Has(key);
    return there;
  }

 private:
  struct Key {
    uint64_t key = 0;
    uint32_t tokens = 0;
  };
  OwnedQueues queues_;
  std::vector<Key> keys_;  // by slot
  std::vector<uint32_t> free_;
  std::unordered_map<uint64_t, uint32_t> slots_;
};

TEST(EvictionQueues, WithoutHitsTheOldestGoes) {
  Cache cache(100);
  for (uint64_t key = 0; key < 150; ++key) cache.Ask(key);
  EXPECT_EQ(cache.CountOf(0, 50), 0u);
  EXPECT_EQ(cache.CountOf(50, 100), 100u);
}

TEST(EvictionQueues, AHitInTheSmallQueueLeadsToTheMainQueue) {
  Cache cache(100);
  for (uint64_t key = 0; key < 100; ++key) cache.Ask(key);
  EXPECT_TRUE(cache.Ask(5));
  EXPECT_FALSE(cache.IsInMain(5)) << "only when its turn comes";
  for (uint64_t key = 100; key < 190; ++key) cache.Ask(key);
  EXPECT_TRUE(cache.IsInMain(5));
  EXPECT_EQ(cache.RoundsOf(5), 0u) << "the way there has its price";
  EXPECT_FALSE(cache.Has(6));
}

// Of the keys below `hot` one is asked at random, and every fourth time a new one beside it.
void Warm(Cache* cache, uint64_t hot, uint32_t tokens) {
  std::mt19937_64 random(1);
  for (uint64_t step = 0; step < 20 * hot; ++step) {
    cache->Ask(random() % hot, tokens);
    if (step % 4 == 0) cache->Ask(1'000'000 + step, tokens);
  }
}

// Ten times the size of the cache, asked for once.
TEST(EvictionQueues, AScanDoesNotFlushTheHotSet) {
  Cache cache(1000);
  Warm(&cache, 800, 10);
  ASSERT_EQ(cache.CountOf(0, 800), 800u);
  for (uint64_t key = 0; key < 10'000; ++key) cache.Ask(2'000'000 + key);
  EXPECT_GE(cache.CountOf(0, 800), 780u) << "a few of the new ones are taken for ghosts";
  EXPECT_EQ(cache.queues().entries(), 1000u);
}

TEST(EvictionQueues, AGhostThatComesBackGoesToTheMainQueue) {
  Cache cache(100);
  for (uint64_t key = 0; key < 110; ++key) cache.Ask(key);
  ASSERT_FALSE(cache.Has(3));
  EXPECT_FALSE(cache.Ask(3)) << "a ghost has no value";
  EXPECT_TRUE(cache.IsInMain(3));
  EXPECT_FALSE(cache.Ask(1000));
  EXPECT_FALSE(cache.IsInMain(1000)) << "never seen";
}

TEST(EvictionQueues, WhatTheOwnerErasesLeavesNoGhost) {
  Cache cache(100);
  for (uint64_t key = 0; key < 100; ++key) cache.Ask(key);
  cache.Erase(3);
  cache.Ask(3);
  EXPECT_FALSE(cache.IsInMain(3));
}

TEST(EvictionQueues, GhostsAreForgottenInTheOrderInWhichTheyCame) {
  Cache cache(1000);
  for (uint64_t key = 0; key < 4000; ++key) cache.Ask(key);
  // Keys 0..2999 were evicted, and about a thousand of them are remembered.
  size_t old_ones = 0, late_ones = 0;
  for (uint64_t key = 0; key < 300; ++key) {
    cache.Ask(key);
    old_ones += cache.IsInMain(key);
  }
  for (uint64_t key = 2600; key < 2900; ++key) {
    cache.Ask(key);
    late_ones += cache.IsInMain(key);
  }
  EXPECT_LT(old_ones, 10u);
  EXPECT_GT(late_ones, 200u);
}

TEST(EvictionQueues, RoundsAreCappedHoweverOftenAnEntryIsHit) {
  Cache cache(100);
  for (uint32_t key = 0; key < 200; ++key) {
    cache.Ask(key);
    for (int hit = 0; hit < 100; ++hit) cache.Ask(0, key);
    ASSERT_LE(cache.RoundsOf(0), 3u);
  }
}

// All hot, then none: each is passed over at most three times, and one insert passes over kSparedMax at most.
TEST(EvictionQueues, AnEvictionTakesABoundedTime) {
  constexpr uint32_t kEntries = 5000;
  OwnedQueues queues(kEntries);
  for (uint32_t slot = 0; slot < kEntries; ++slot) queues.Insert(slot, HashOf(slot), {1, 10});
  for (uint32_t slot = 0; slot < kEntries; ++slot) queues.Hit(slot, 10);
  for (uint32_t evicted = 0; evicted < kEntries; ++evicted) {
    uint32_t spared = 0, slot = queues.Candidate();
    for (; queues.Spare(slot, HashOf(slot), {1, 10}); slot = queues.Candidate()) ++spared;
    ASSERT_LE(spared, EvictionQueues::kSparedMax);
    queues.Remove(slot, 1);
  }
  EXPECT_EQ(queues.entries(), 0u);
  EXPECT_EQ(queues.small_bytes() + queues.main_bytes(), 0u);
}

// One of each kind in the main queue, hit, and then no more, while ordinary ones that are hit once press on.
TEST(EvictionQueues, ADearEntryStaysLongerThanACheapOne) {
  Cache cache(1000);
  Warm(&cache, 800, 10);
  constexpr uint64_t kDear = 5'000'000, kOrdinary = 5'000'001, kCheap = 5'000'002;
  const auto ask = [&] {
    cache.Ask(kDear, 100);
    cache.Ask(kOrdinary, 10);
    cache.Ask(kCheap, 2);
  };
  ask();
  ask();
  for (uint64_t key = 0; key < 1000; ++key) cache.Ask(6'000'000 + key);
  ask();
  ASSERT_TRUE(cache.IsInMain(kDear) && cache.IsInMain(kOrdinary) && cache.IsInMain(kCheap));
  EXPECT_EQ(cache.RoundsOf(kDear), 3u);
  EXPECT_EQ(cache.RoundsOf(kOrdinary), 2u);
  EXPECT_EQ(cache.RoundsOf(kCheap), 1u);
  uint64_t cheap = 0, ordinary = 0, dear = 0;  // how many others each outlived
  for (uint64_t other = 1; other < 100'000 && cache.Has(kDear); ++other) {
    cache.Ask(7'000'000 + other);
    cache.Ask(7'000'000 + other);
    if (cache.Has(kCheap)) cheap = other;
    if (cache.Has(kOrdinary)) ordinary = other;
    dear = other;
  }
  EXPECT_FALSE(cache.Has(kDear));
  EXPECT_GT(ordinary, cheap + 500) << "about one more time round";
  EXPECT_GT(dear, ordinary + 500);
}

TEST(EvictionQueues, ADearEntryWithoutAHitIsWorthNoMoreThanACheapOne) {
  Cache cache(1000);
  Warm(&cache, 800, 2);
  ASSERT_EQ(cache.CountOf(0, 800), 800u);
  for (uint64_t key = 0; key < 10'000; ++key) cache.Ask(2'000'000 + key, 512);
  EXPECT_GE(cache.CountOf(0, 800), 780u);
}

TEST(EvictionQueues, TheSmallQueueGrowsWhileGhostsComeBackAndShrinksAgain) {
  Cache cache(1000);
  Warm(&cache, 800, 10);
  EXPECT_EQ(cache.queues().small_share(), EvictionQueues::kSmallShareMin);
  for (int round = 0; round < 2; ++round) {  // longer than the small queue, shorter than cache and ghosts
    for (uint64_t key = 0; key < 500; ++key) cache.Ask(2'000'000 + key);
  }
  EXPECT_GT(cache.queues().small_share(), 0.3);
  for (int round = 0; round < 20; ++round) {
    for (uint64_t key = 0; key < 500; ++key) cache.Ask(2'000'000 + key);
    for (uint64_t key = 0; key < 100; ++key) cache.Ask(3'000'000 + 100 * round + key);
  }
  EXPECT_LT(cache.queues().small_share(), 0.2);
}

// Entries of very different sizes: the share is one of bytes, so a few long texts wait among themselves.
TEST(EvictionQueues, LongTextsPushOutEachOtherAndNotTheMainQueue) {
  constexpr uint32_t kShort = 100;
  constexpr uint64_t kBytesMax = 2000;
  OwnedQueues queues(2 * kShort);
  std::vector<uint64_t> bytes(2 * kShort);
  const auto put = [&](uint32_t slot, uint64_t size) {
    while (queues.small_bytes() + queues.main_bytes() + size > kBytesMax) {
      const uint32_t candidate = queues.Candidate();
      if (queues.Spare(candidate, HashOf(candidate), {bytes[candidate], 10})) continue;
      queues.Remove(candidate, bytes[candidate]);
      bytes[candidate] = 0;
    }
    bytes[slot] = size;
    queues.Insert(slot, HashOf(slot), {size, 10});
  };
  for (uint32_t slot = 0; slot < kShort; ++slot) put(slot, 10);
  for (uint32_t slot = 0; slot < kShort; ++slot) queues.Hit(slot, 10);
  for (uint32_t slot = kShort; slot < 2 * kShort; ++slot) put(slot, 300);
  const auto there = std::accumulate(bytes.begin(), bytes.begin() + kShort, uint64_t{0});
  EXPECT_EQ(there, 10 * kShort);
}

// Readers tell of hits at any time.
TEST(EvictionQueues, AHitOfASlotThatHasLeftIsWasted) {
  OwnedQueues queues(10);
  queues.Insert(3, HashOf(3), {1, 10});
  queues.Remove(3, 1);
  queues.Hit(3, 10);
  queues.Insert(3, HashOf(4), {1, 10});
  EXPECT_EQ(queues.RoundsOf(3), 0u);
}

// Says what differs between the queues and the model over a random history, or nothing.
std::string Difference(Mistake mistake, uint64_t seed, int steps) {
  constexpr uint32_t kSlots = 400;
  std::mt19937_64 random(seed);
  OwnedQueues queues(kSlots);
  EvictionModel model(kSlots, mistake);
  std::vector<std::optional<EvictionModel::Entry>> slots(kSlots);
  std::vector<uint32_t> free(kSlots);
  std::iota(free.begin(), free.end(), 0);
  const auto remove = [&](uint32_t slot) {
    queues.Remove(slot, slots[slot]->cost.bytes);
    model.Remove(slot);
    slots[slot].reset();
    free.push_back(slot);
  };
  // Evicts one entry; false if the two disagree on the way.
  const auto evict = [&] {
    for (;;) {
      const uint32_t slot = queues.Candidate();
      if (slot != model.Candidate()) return false;
      const bool spared = queues.Spare(slot, slots[slot]->hash, slots[slot]->cost);
      if (spared != model.Spare()) return false;
      if (spared) continue;
      remove(slot);
      return true;
    }
  };
  for (int step = 0; step < steps; ++step) {
    const uint64_t what = random() % 100;
    const uint32_t slot = static_cast<uint32_t>(random() % kSlots);
    if (what < 40) {
      if (free.size() <= random() % 3 && !evict()) return "step " + std::to_string(step) + ": another one is evicted";
      if (free.empty()) continue;
      const uint32_t into = free.back();
      free.pop_back();
      const uint64_t hash = HashOf(random() % (step % 5'000 < 2'500 ? 600 : 6'000));
      const EvictionQueues::Cost cost{1 + random() % 3 * 50, static_cast<uint32_t>(hash % 7 * (hash % 7) * 3)};
      slots[into] = EvictionModel::Entry{into, hash, cost, 0};
      queues.Insert(into, hash, cost);
      model.Insert(into, hash, cost);
    } else if (what < 99) {
      const bool all = random() % 1'000 == 0;
      for (uint32_t hit = all ? 0 : slot; hit < (all ? kSlots : slot + 1); ++hit) {
        if (!slots[hit] || (!all && hit % 4 != 0 && what % 4 != 0)) continue;  // mostly a few favourites
        queues.Hit(hit, slots[hit]->cost.tokens);
        model.Hit(hit);
      }
    } else if (slots[slot]) {
      remove(slot);  // from the middle
    }
    const std::string at = "step " + std::to_string(step) + ": ";
    if (queues.small_bytes() != EvictionModel::Bytes(model.small)) return at + "bytes of the small queue";
    if (queues.main_bytes() != EvictionModel::Bytes(model.main)) return at + "bytes of the main queue";
    if (queues.entries() != model.small.size() + model.main.size()) return at + "entries";
    if (queues.small_share() != model.share) return at + "share";
    for (const auto* queue : {&model.small, &model.main}) {
      for (const EvictionModel::Entry& entry : *queue) {
        if (queues.IsInMain(entry.slot) != (queue == &model.main)) return at + "the queue of an entry";
        if (queues.RoundsOf(entry.slot) != entry.rounds) return at + "the rounds of an entry";
      }
    }
  }
  while (queues.entries() > 0) {
    if (!evict()) return "at the end: the order";
  }
  return "";
}

TEST(EvictionQueues, DecidesAsThePlainModelDoes) {
  const uint64_t seed = test::TestSeed(11);
  for (uint64_t run = 0; run < test::ByBuild(8u, 8u, 1u); ++run)
    EXPECT_EQ(Difference(Mistake::kNone, seed + run, 20'000), "") << seed + run;
}

TEST(EvictionQueues, CanaryTheComparisonSeesEachMistakeOfAModel) {
  for (const Mistake mistake : {Mistake::kNoGhosts, Mistake::kDearIsOrdinary, Mistake::kShareStands,
                                Mistake::kSparesWithoutEnd, Mistake::kLastInFirstOut, Mistake::kHitsAddUp}) {
    EXPECT_NE(Difference(mistake, 11, 20'000), "") << static_cast<int>(mistake);
  }
}

}  // namespace
}  // namespace sutra
