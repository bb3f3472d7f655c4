// The hot table from the engine's side, and what a client finds in it: a reader over the same memory.
#include "engine/serving/hot_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"
#include "shm/hot_reader.h"
#include "tests/kit/hot_client.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

using test::HotClient;
using testing::MemoryCache;

constexpr uint32_t kWidth = 6;

std::vector<float> VectorOf(float number) { return std::vector<float>(kWidth, number); }
std::string TextOf(uint32_t number) { return "text " + std::to_string(number); }
CacheValue ValueOf(float norm, uint64_t ttl_s = 3600) {
  return {.norm = norm,
          .token_count = static_cast<uint32_t>(norm),
          .truncated = false,
          .expires_ns = BootNs() + ttl_s * kNsPerSecond,
          .handle = {.slot = static_cast<uint32_t>(norm), .tag = 7}};
}

class HotCacheTest : public ::testing::Test {
 protected:
  explicit HotCacheTest(uint64_t bytes = kHotBytesMin)
      : hot_(std::move(HotCache::Create(kWidth, bytes, 77)).value()), client_(hot_->fd(), kWidth, hot_->slots()) {
    client_.Beat();
    hot_->Beat();
  }
  void Publish(uint32_t number, uint64_t removals = 0) {
    hot_->TryPublish(TextOf(number), 0, VectorOf(static_cast<float>(number)), ValueOf(static_cast<float>(number)),
                     removals);
  }
  bool Fill(uint32_t number, uint64_t removals = 0) {
    return hot_->Fill(TextOf(number), 0, VectorOf(static_cast<float>(number)), ValueOf(static_cast<float>(number)),
                      removals);
  }
  bool Found(uint32_t number) {
    const std::optional<HotClient::Hit> hit = client_.Find(TextOf(number));
    if (!hit.has_value()) return false;
    EXPECT_EQ(hit->unit, VectorOf(static_cast<float>(number)));
    return true;
  }
  uint32_t FoundOf(uint32_t begin, uint32_t end) {
    uint32_t found = 0;
    for (uint32_t i = begin; i < end; ++i) found += Found(i) ? 1 : 0;
    return found;
  }

  std::unique_ptr<HotCache> hot_;
  HotClient client_;
};

TEST_F(HotCacheTest, WhatIsPublishedIsFoundByAReader) {
  EXPECT_FALSE(client_.Find("text 3").has_value());
  CacheValue value = ValueOf(3);
  value.truncated = true;
  hot_->TryPublish("text 3", 0, VectorOf(3), value, 0);
  const std::optional<HotClient::Hit> hit = client_.Find("text 3");
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->unit, VectorOf(3));
  EXPECT_EQ(hit->value.norm, 3.f);
  EXPECT_EQ(hit->value.token_count, 3u);
  EXPECT_EQ(hit->value.flags, uint32_t{kResultTruncated});
  EXPECT_FALSE(client_.Find("text 4").has_value());
  EXPECT_EQ(hot_->figures().slots, hot_->slots());
  EXPECT_EQ(hot_->figures().used, 1u);
  EXPECT_EQ(hot_->figures().published, 1u);
}

TEST_F(HotCacheTest, ItsMemoryIsWithinTheBoundAndATableWithoutOneSlotIsRefusedByName) {
  EXPECT_LE(hot_->bytes(), kHotBytesMin);
  const auto none = HotCache::Create(kWidthMax, 8192, 77);
  EXPECT_EQ(none.code(), StatusCode::kRefused);
  EXPECT_NE(none.status().message().find("--hot-bytes-max 8192"), std::string::npos) << none.status().message();
}

TEST_F(HotCacheTest, ATextThatIsThereIsWrittenAgainOnlyIfItWasStoredAnewSince) {
  const CacheValue value = ValueOf(3);
  for (int i = 0; i < 3; ++i) hot_->TryPublish("text", 0, VectorOf(3), value, 0);
  EXPECT_EQ(hot_->figures().published, 1u);
  CacheValue later = ValueOf(4);
  later.expires_ns = value.expires_ns + 1;
  hot_->TryPublish("text", 0, VectorOf(4), later, 0);
  EXPECT_EQ(client_.Find("text")->unit, VectorOf(4));
  EXPECT_EQ(client_.Find("text")->value.expires_ns, later.expires_ns);
  EXPECT_EQ(hot_->figures().published, 2u);
  EXPECT_EQ(hot_->figures().used, 1u);
}

TEST_F(HotCacheTest, WhatHasExpiredIsNotFound) {
  hot_->TryPublish("gone", 0, VectorOf(1), {.norm = 1, .expires_ns = BootNs() - 1}, 0);
  EXPECT_EQ(hot_->figures().published, 1u);
  EXPECT_FALSE(client_.Find("gone").has_value());
}

TEST_F(HotCacheTest, LongTextsStayOutside) {
  hot_->TryPublish(std::string(kHotTextBytesMax, 'a'), 0, VectorOf(1), ValueOf(1), 0);
  EXPECT_EQ(hot_->figures().published, 1u);
  hot_->TryPublish(std::string(kHotTextBytesMax + 1, 'a'), 0, VectorOf(1), ValueOf(1), 0);
  EXPECT_TRUE(hot_->Fill(std::string(kHotTextBytesMax + 1, 'b'), 0, VectorOf(1), ValueOf(1), 0)) << "there is room";
  hot_->OnErased(std::string(kHotTextBytesMax + 1, 'a'), 0, 1);
  EXPECT_EQ(hot_->figures().published, 1u);
}

// The bits of reference: what was asked for since the hand last came by keeps its slot for a round. A bucket that
// overflows asks nobody, and takes one of those 32 once in a hundred runs; without the bits half of them would go.
TEST_F(HotCacheTest, AFullTableEvictsWhatNobodyAsksFor) {
  const uint32_t slots = hot_->slots();
  ASSERT_GT(slots, HotCache::kHandStepsMax);
  for (uint32_t i = 0; i < slots; ++i) Publish(i);
  const uint64_t used = hot_->figures().used;  // a bucket or two may have overflowed
  ASSERT_GT(used, slots - 10);
  std::set<uint32_t> asked;
  for (uint32_t i = 0; i < slots && asked.size() < 32; i += 7) {
    const std::optional<HotClient::Hit> hit = client_.Find(TextOf(i));
    if (!hit.has_value()) continue;
    asked.insert(i);
    if (i % 2 == 0) {
      Publish(i);  // by another client, say, whose table was busy
    } else {
      const uint32_t hint = hit->slot + 1;
      hot_->Mark({&hint, 1}, nullptr);
    }
  }
  for (uint32_t i = 0; i < slots / 2; ++i) Publish(slots + i);
  const auto left = std::count_if(asked.begin(), asked.end(), [this](uint32_t i) { return !Found(i); });
  EXPECT_LE(left, 2) << "of " << asked.size();
  EXPECT_GT(FoundOf(slots, slots + slots / 2), slots / 2 - 10);
  EXPECT_LE(hot_->figures().used, slots);
  EXPECT_GE(hot_->figures().evicted, slots / 2 - 10);
}

TEST_F(HotCacheTest, WhereEverythingIsAskedForTheHandStillFindsASlot) {
  const uint32_t slots = hot_->slots();
  for (int twice = 0; twice < 2; ++twice) {
    for (uint32_t i = 0; i < slots; ++i) Publish(i);
  }
  Publish(slots);
  EXPECT_TRUE(Found(slots));
}

// A working set that does not fit must not cost the loop a publication for every hit.
TEST(HotCacheExchangeTest, BetweenTwoBeatsAFullTableExchangesABoundedNumber) {
  auto hot = std::move(HotCache::Create(kWidth, kHotBytesMin * 8, 77)).value();
  const uint32_t slots = hot->slots();
  ASSERT_GT(slots, HotCache::kExchangesPerBeat);
  for (uint32_t i = 0; i < slots; ++i) hot->TryPublish(TextOf(i), 0, VectorOf(1), ValueOf(1), 0);
  const uint64_t free = slots - hot->figures().used;
  const uint64_t before = hot->figures().published;
  const auto publish = [&](uint32_t from) {
    for (uint32_t i = from; i < from + slots; ++i) hot->TryPublish(TextOf(i), 0, VectorOf(1), ValueOf(1), 0);
  };
  publish(slots);
  const uint64_t first = hot->figures().published - before;
  EXPECT_GE(first, HotCache::kExchangesPerBeat);
  EXPECT_LT(first, HotCache::kExchangesPerBeat + free + 50) << "but for buckets that overflow";
  hot->Beat();
  publish(2 * slots);
  EXPECT_GE(hot->figures().published - before - first, HotCache::kExchangesPerBeat);
}

TEST_F(HotCacheTest, FillingEvictsNothing) {
  uint32_t filled = 0;
  while (Fill(filled)) ASSERT_LT(++filled, 2 * hot_->slots());
  EXPECT_EQ(hot_->figures().used, hot_->slots());
  EXPECT_TRUE(Fill(filled - 1)) << "what is there needs no room";
  EXPECT_EQ(hot_->figures().used, hot_->slots());
}

TEST_F(HotCacheTest, ATextThatIsRemovedIsGoneAndComesBackOnlyByALookupAfterThat) {
  Publish(1);
  Publish(2);
  hot_->OnErased(TextOf(1), 0, 5);
  EXPECT_FALSE(Found(1));
  EXPECT_TRUE(Found(2));
  EXPECT_EQ(hot_->figures().removed, 1u);
  Publish(1, 4);  // looked up before
  EXPECT_FALSE(Found(1));
  EXPECT_TRUE(Fill(1, 4));
  EXPECT_FALSE(Found(1));
  hot_->OnErased(TextOf(1), 0, 3);  // two removals may tell in any order
  Publish(1, 4);
  EXPECT_FALSE(Found(1));
  Publish(1, 5);
  EXPECT_TRUE(Found(1));
}

TEST_F(HotCacheTest, AFilterEmptiesTheTableAndFencesEverything) {
  const uint32_t slots = hot_->slots();
  for (uint32_t i = 0; i < slots; ++i) Publish(i);
  const uint64_t used = hot_->figures().used;
  hot_->OnManyErased(9);
  EXPECT_EQ(FoundOf(0, slots), 0u);
  EXPECT_EQ(hot_->figures().used, 0u);
  EXPECT_EQ(hot_->figures().removed, used);
  Publish(1, 8);
  Publish(slots + 1, 8);
  EXPECT_EQ(hot_->figures().used, 0u);
  for (uint32_t i = 0; i < slots; ++i) Publish(i, 9);
  EXPECT_GT(FoundOf(0, slots), slots - 10);
}

TEST_F(HotCacheTest, AClosedTableIsUsedByNobodyAndTakesNothing) {
  Publish(1);
  EXPECT_TRUE(Found(1));
  hot_->Close();
  EXPECT_FALSE(Found(1));
  Publish(2);
  EXPECT_FALSE(Fill(3));
  EXPECT_EQ(hot_->figures().published, 1u);
}

// An engine that leaves in any way takes its table along: its clients may map the memory for long after.
TEST_F(HotCacheTest, TheEndOfTheCacheClosesTheTable) {
  Publish(1);
  EXPECT_TRUE(Found(1));
  hot_.reset();
  EXPECT_FALSE(Found(1));
}

// Words that clients write: bounded, and without effect where they name nothing.
TEST_F(HotCacheTest, HintsTouchTheShardsEntryAndLiesTouchNothing) {
  MemoryCache shard;
  Publish(1);
  const uint32_t slot = client_.Find(TextOf(1))->slot;
  std::vector<uint32_t> hints = {0, slot + 1};
  hot_->Mark(hints, &shard);
  EXPECT_EQ(shard.touches, 1u);
  hints = {0, slot + 2, hot_->slots(), hot_->slots() + 1, UINT32_MAX, 1u << 31};
  hot_->Mark(hints, &shard);
  EXPECT_EQ(shard.touches, 1u) << "free, or no slot at all";
  hints.assign(1000, slot + 1);
  hot_->Mark(hints, &shard);
  EXPECT_LE(shard.touches, 20u) << "of one look";
  hot_->OnErased(TextOf(1), 0, 1);
  hot_->Mark(hints, &shard);
  EXPECT_LE(shard.touches, 20u);
}

// The loop publishes what a real shard answers, a refill adds to it, and removals are confirmed beside them: a reader
// never finds a text after its removal with the vector of before. Each text's vector is the number of its computation.
TEST(HotCacheThreadsTest, NothingThatIsRemovedIsFoundAfterTheConfirmation) {
  constexpr uint32_t kTexts = 24, kRounds = 100;
  const test::TempDir directory;
  auto hot = std::move(HotCache::Create(kWidth, kHotBytesMin, 77)).value();
  auto disk = MakePosixDiskIo(false);
  CacheConfig config;
  config.directory = directory.path();
  config.model_identity = std::string(64, 'a');
  config.width = kWidth;
  config.entries_max = 1000;
  config.policy = DurabilityPolicy::kNone;
  config.observer = hot.get();
  auto shard = std::move(CacheShard::Open(config, disk.get(), Clock::Real())).value();
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> confirmed[kTexts] = {};  // no computation up to this one may be found any more
  std::atomic<uint32_t> computations[kTexts] = {};
  std::atomic<uint64_t> stale{0}, hits{0};

  std::thread loop([&] {
    std::vector<float> unit(kWidth);
    while (!stop.load()) {
      for (uint32_t i = 0; i < kTexts; ++i) {
        const std::string text = TextOf(i);
        const uint64_t removals = shard->Removals();
        CacheValue value;
        if (shard->TryLookup(text, 0, unit.data(), &value).value_or(false)) {
          hot->TryPublish(text, 0, unit, value, removals);
          continue;
        }
        const uint64_t seen = shard->Removals();
        const auto number = static_cast<float>(computations[i].fetch_add(1) + 1);
        shard->Insert(text, 0, VectorOf(number), {.norm = 1, .token_count = 1}, 3600, seen);
      }
      hot->Beat();
    }
  });
  std::thread refill([&] {
    while (!stop.load()) {
      uint64_t cursor = 0;
      const uint64_t removals = shard->Removals();
      const Result<bool> all = shard->Visit(CacheAdmin::Which::kAll, &cursor, [&](const CacheEntry& entry) {
        return hot->Fill(entry.text, entry.variant, entry.vector, entry.value, removals);
      });
      EXPECT_TRUE(all.ok());
    }
  });
  std::thread reader([&] {
    HotClient client(hot->fd(), kWidth, hot->slots());
    while (!stop.load()) {
      for (uint32_t i = 0; i < kTexts; ++i) {
        client.Beat();
        const uint32_t before = confirmed[i].load();
        const std::optional<HotClient::Hit> hit = client.Find(TextOf(i));
        if (!hit.has_value()) continue;
        hits.fetch_add(1);
        if (hit->unit != VectorOf(hit->unit[0]) || static_cast<uint32_t>(hit->unit[0]) <= before) stale.fetch_add(1);
      }
    }
  });
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t i = round % kTexts;
    // What is computed by now began before this removal; what begins beside it may be found or not.
    uint32_t doomed[kTexts];
    for (uint32_t j = 0; j < kTexts; ++j) doomed[j] = computations[j].load();
    if (round % 10 == 9) {
      const auto go_on = [](uint64_t, uint64_t) { return true; };
      CacheFilter everything;
      everything.everything = true;
      const auto preview = shard->PreviewRemoval(everything, go_on);
      ASSERT_TRUE(preview.ok()) << preview.status().message();
      ASSERT_TRUE(shard->CommitRemoval(preview->token, go_on).ok());
      for (uint32_t j = 0; j < kTexts; ++j) confirmed[j].store(doomed[j]);
    } else {
      ASSERT_TRUE(shard->Erase(TextOf(i), 0).ok());
      confirmed[i].store(doomed[i]);
    }
    const uint64_t wanted = hits.load() + kTexts / 4;
    while (hits.load() < wanted) std::this_thread::yield();
  }
  stop.store(true);
  loop.join();
  refill.join();
  reader.join();
  EXPECT_EQ(stale.load(), 0u);
  shard->Close();
}

}  // namespace
}  // namespace sutra
