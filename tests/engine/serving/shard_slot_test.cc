// The slot before, while and after its shard appears.
#include "engine/serving/shard_slot.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/kit/memory_cache.h"
#include "tests/sim/manual_clock.h"

namespace sutra {
namespace {

using testing::MemoryCache;

class ShardSlotTest : public ::testing::Test {
 protected:
  void Insert(const std::string& text, uint64_t ttl_s = 100) {
    slot_.Insert(text, 0, std::vector<float>{1, static_cast<float>(text.size())}, {2.5f, 7, true}, ttl_s);
  }

  MemoryCache cache_;
  sim::ManualClock clock_;
  ShardSlot slot_{nullptr};
};

TEST_F(ShardSlotTest, WithAShardFromTheBeginningNothingWaits) {
  ShardSlot slot(&cache_);
  EXPECT_EQ(slot.Get(), &cache_);
  EXPECT_EQ(slot.state(), kShardOpen);
  slot.Insert("a", 0, std::vector<float>{1}, {}, 5);
  EXPECT_EQ(cache_.inserts(), 1);
}

TEST_F(ShardSlotTest, WithoutAShardNothingIsKept) {
  Insert("a");
  EXPECT_EQ(slot_.Get(), nullptr);
  EXPECT_EQ(slot_.state(), kShardNone);
  EXPECT_EQ(slot_.GetCounts().waiting + slot_.GetCounts().dropped, 0u);
}

TEST_F(ShardSlotTest, InsertsWaitAndAreInTheShardWhenItAppears) {
  slot_.Expect(&clock_);
  EXPECT_EQ(slot_.state(), kShardOpening);
  Insert("a", 100);
  Insert("bc", 100);
  EXPECT_EQ(slot_.Get(), nullptr);
  EXPECT_EQ(slot_.GetCounts().waiting, 2u);
  slot_.Appear(&cache_);
  EXPECT_EQ(slot_.Get(), &cache_);
  EXPECT_EQ(slot_.state(), kShardOpen);
  EXPECT_EQ(slot_.GetCounts().waiting + slot_.GetCounts().dropped, 0u);
  const MemoryCache::Entry entry = cache_.Get("bc");
  EXPECT_EQ(entry.vector, (std::vector<float>{1, 2}));
  EXPECT_EQ(entry.value.norm, 2.5f);
  EXPECT_EQ(entry.value.token_count, 7u);
  EXPECT_TRUE(entry.value.truncated);
  Insert("later");
  EXPECT_EQ(cache_.inserts(), 3);
}

// A removal can only come once the shard is shown, so it fences what began before: also what has waited.
TEST_F(ShardSlotTest, WhatWaitedIsPouredAsBegunBeforeAnyRemoval) {
  slot_.Expect(&clock_);
  const uint64_t seen = slot_.Removals();
  slot_.Insert("a", 0, std::vector<float>{1, 2}, {}, 100, seen);
  slot_.Appear(&cache_);
  EXPECT_EQ(cache_.Get("a").removals_seen, seen);
}

TEST_F(ShardSlotTest, WhatWaitedLivesNoLongerForIt) {
  slot_.Expect(&clock_);
  Insert("short", 3);
  Insert("long", 100);
  clock_.Advance(3'500'000'000);
  slot_.Appear(&cache_);
  EXPECT_EQ(cache_.inserts(), 1);
  EXPECT_EQ(cache_.Get("long").ttl_s, 96u);
}

TEST_F(ShardSlotTest, WhatWaitsIsBoundedAndTheRestIsCounted) {
  slot_.Expect(&clock_);
  const std::string text(1 << 20, 'x');
  for (int i = 0; i < 80; ++i) Insert(text + std::to_string(i));
  const ShardSlot::Counts counts = slot_.GetCounts();
  EXPECT_EQ(counts.waiting + counts.dropped, 80u);
  EXPECT_EQ(counts.waiting, 63u);  // with their overhead 64 do not fit
  slot_.Appear(&cache_);
  EXPECT_EQ(cache_.inserts(), 63);
  EXPECT_EQ(slot_.GetCounts().dropped, 17u);
}

TEST_F(ShardSlotTest, AFailureThatIsTriedAgainKeepsWhatWaits) {
  slot_.Expect(&clock_);
  Insert("a");
  slot_.Fail(false);
  EXPECT_EQ(slot_.state(), kShardFailed);
  Insert("b");
  slot_.Appear(&cache_);
  EXPECT_EQ(slot_.state(), kShardOpen);
  EXPECT_EQ(cache_.inserts(), 2);
}

TEST_F(ShardSlotTest, AFailureForGoodDropsAndCounts) {
  slot_.Expect(&clock_);
  Insert("a");
  slot_.Fail(true);
  Insert("b");
  EXPECT_EQ(slot_.GetCounts().waiting, 0u);
  EXPECT_EQ(slot_.GetCounts().dropped, 2u);
  EXPECT_EQ(slot_.Get(), nullptr);
}

TEST_F(ShardSlotTest, WhatTheShardHasNoMemoryForIsCounted) {
  slot_.Expect(&clock_);
  Insert("a");
  Insert("b");
  cache_.on_insert = [first = true]() mutable {
    if (std::exchange(first, false)) throw std::bad_alloc();
  };
  slot_.Appear(&cache_);
  EXPECT_EQ(cache_.inserts(), 1);
  EXPECT_EQ(slot_.GetCounts().dropped, 1u);
}

// Whoever sees the shard sees everything that was inserted before.
TEST_F(ShardSlotTest, InsertsBesideTheAppearanceAreAllThere) {
  constexpr int kThreads = 3, kInserts = 2000;
  slot_.Expect(&clock_);
  std::atomic<int> begun{0};
  std::atomic<int> missing{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kInserts; ++i) {
        const std::string text = std::to_string(t) + " " + std::to_string(i);
        Insert(text);
        begun.fetch_add(1);
        std::vector<float> vector(2);
        CacheValue value;
        CacheShard* const shard = slot_.Get();
        if (shard != nullptr && !shard->Lookup(text, 0, vector.data(), &value)) missing.fetch_add(1);
      }
    });
  }
  while (begun.load() < kInserts / 2) std::this_thread::yield();
  slot_.Appear(&cache_);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(missing.load(), 0);
  EXPECT_EQ(cache_.inserts(), kThreads * kInserts);
}

}  // namespace
}  // namespace sutra
