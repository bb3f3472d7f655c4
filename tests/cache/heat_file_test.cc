// What was hot is hot after a restart, as far as the file says so and can be believed.
#include "cache/heat_file.h"

#include <gtest/gtest.h>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

using test::Inline;
using test::kWidth;
using test::Put;
using test::VectorOf;
using test::VersionOf;

constexpr uint32_t kEntries = 5000;
constexpr uint64_t kSeed = 7;

class HeatFileTest : public testing::Test {
 protected:
  // A store in which every third entry has been found twice.
  std::unique_ptr<SlotTable> Make(bool hot, uint64_t seed = kSeed) {
    auto store = std::make_unique<SlotTable>(SlotTable::Limits{kWidth, kEntries, 64 << 20});
    store->BeginReplay(seed);
    store->FinishReplay();
    for (uint32_t i = 0; i < kEntries; ++i) Insert(store.get(), std::to_string(i));
    for (uint32_t i = 0; hot && i < kEntries; i += 3) Find(store.get(), std::to_string(i));
    return store;
  }
  static void Insert(SlotTable* store, const std::string& text) {
    const std::vector<float> vector = VectorOf(text, 1);
    const MutexLock lock(store->mutex());
    store->PutLocked(store->KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 1, false}, UINT64_MAX, 0);
  }
  static bool Find(SlotTable* store, const std::string& text) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    return store->Lookup(store->KeyOf(text, 0), 0, vector.data(), &value);
  }
  // Of a thousand entries of each kind, how many survive a bulk job of as many as there is room for.
  struct Left {
    uint32_t hot = 0, cold = 0;
  };
  Left AfterABulkJob(SlotTable* store) {
    for (uint32_t i = 0; i < kEntries; ++i) Insert(store, "bulk " + std::to_string(i));
    Left left;
    for (uint32_t i = 0; i < 3000; ++i) {
      // Looked at only: a hit would change what is hot.
      const std::string text = std::to_string(i);
      if (Find(store, text)) ++(i % 3 == 0 ? left.hot : left.cold);
    }
    return left;
  }
  Status Write(SlotTable* store) {
    HeatFile file(store, &disk_, "/data");
    file.Restore();
    return file.Write();
  }
  void Restore(SlotTable* store) { HeatFile(store, &disk_, "/data").Restore(); }
  void SetUp() override { ASSERT_TRUE(disk_.MakeDirectory("/data").ok()); }

  sim::SimDisk disk_{1};
};

TEST_F(HeatFileTest, ABulkJobAfterARestartLeavesWhatWasHotAndCanaryPushesItOutWithoutTheFile) {
  ASSERT_TRUE(Write(Make(true).get()).ok());
  const std::unique_ptr<SlotTable> with = Make(false), without = Make(false);
  Restore(with.get());
  EXPECT_GT(AfterABulkJob(with.get()).hot, 950u);
  EXPECT_LT(AfterABulkJob(without.get()).hot, 50u);
}

TEST_F(HeatFileTest, WhatADamagedBlockSaysIsNotBelievedAndTheOthersAre) {
  ASSERT_TRUE(Write(Make(true).get()).ok());
  std::vector<std::byte> bytes = disk_.Bytes("/data/heat");
  ASSERT_EQ(bytes.size(), 3u * 4096) << "2,040 slots each";
  bytes[100] ^= std::byte{1};
  disk_.SetBytes("/data/heat", bytes);
  const std::unique_ptr<SlotTable> store = Make(false);
  Restore(store.get());
  uint32_t hot_first = 0, hot_others = 0;
  for (uint32_t i = 0; i < kEntries; ++i) Insert(store.get(), "bulk " + std::to_string(i));
  for (uint32_t i = 0; i < kEntries; i += 3) {
    (i < 2040 ? hot_first : hot_others) += Find(store.get(), std::to_string(i)) ? 1 : 0;
  }
  EXPECT_LT(hot_first, 50u);
  EXPECT_GT(hot_others, 900u);
}

TEST_F(HeatFileTest, AnotherLogsFileOrOneOfOtherEntriesIsNotBelieved) {
  ASSERT_TRUE(Write(Make(true, kSeed + 1).get()).ok());
  const std::unique_ptr<SlotTable> other_seed = Make(false);
  Restore(other_seed.get());
  EXPECT_LT(AfterABulkJob(other_seed.get()).hot, 50u);

  ASSERT_TRUE(Write(Make(true).get()).ok());
  auto others = std::make_unique<SlotTable>(SlotTable::Limits{kWidth, kEntries, 64 << 20});
  others->BeginReplay(kSeed);
  others->FinishReplay();
  for (uint32_t i = 0; i < kEntries; ++i) Insert(others.get(), "other " + std::to_string(i));
  Restore(others.get());
  for (uint32_t i = 0; i < kEntries; ++i) Insert(others.get(), "bulk " + std::to_string(i));
  uint32_t left = 0;
  for (uint32_t i = 0; i < kEntries; i += 3) left += Find(others.get(), "other " + std::to_string(i)) ? 1 : 0;
  EXPECT_LT(left, 50u) << "one in 256 has the same tag";
}

TEST_F(HeatFileTest, NothingIsWrittenBeforeWhatWasHotIsKnown) {
  ASSERT_TRUE(Write(Make(true).get()).ok());
  const std::vector<std::byte> hot = disk_.Bytes("/data/heat");
  const std::unique_ptr<SlotTable> store = Make(false);
  HeatFile file(store.get(), &disk_, "/data");
  ASSERT_TRUE(file.Write().ok());
  EXPECT_EQ(disk_.Bytes("/data/heat"), hot);
  file.Restore();
  ASSERT_TRUE(file.Write().ok());
  EXPECT_EQ(disk_.Bytes("/data/heat"), hot) << "the same is hot again";
}

TEST_F(HeatFileTest, AShardKeepsItOverAStopAndOverAKillOnceAMinuteHasPassed) {
  sim::ManualClock clock;
  CacheConfig config = test::SmallConfig("/data");
  config.entries_max = 600;
  config.wal_bytes_max = 4 << 20;
  for (const bool killed : {false, true}) {
    sim::SimDisk disk(1);
    auto shard = LoggedShard::Open(config, &disk, &clock, Inline()).value();
    for (uint32_t i = 0; i < 600; ++i) Put(shard.get(), std::to_string(i), 1);
    for (uint32_t i = 0; i < 300; ++i) EXPECT_EQ(VersionOf(shard.get(), std::to_string(i)), 1);
    clock.Advance(61'000'000'000);
    shard->Turn();
    if (killed) {
      sim::SimDisk::Faults dead;
      dead.power_off_at = 1;
      disk.SetFaults(dead);
      shard.reset();
      disk.ProcessKill();
    }
    shard.reset();
    shard = LoggedShard::Open(config, &disk, &clock, Inline()).value();
    ASSERT_EQ(shard->Stats().entries, 600u);
    for (uint32_t i = 0; i < 600; ++i) Put(shard.get(), "bulk " + std::to_string(i), 1);
    uint32_t left = 0;
    for (uint32_t i = 0; i < 300; ++i) left += VersionOf(shard.get(), std::to_string(i)) == 1 ? 1 : 0;
    EXPECT_GT(left, 280u) << (killed ? "killed" : "stopped");
  }
}

// A life in which nothing is hot does not leave behind what an earlier one had written.
TEST_F(HeatFileTest, WhatAnEarlierLifeWroteDoesNotOutliveALifeWithoutHeat) {
  ASSERT_TRUE(Write(Make(true).get()).ok());
  {
    const auto cold = Make(false, kSeed + 1);  // nothing of the file is of this one
    ASSERT_TRUE(Write(cold.get()).ok());
  }
  const auto store = Make(false);
  HeatFile(store.get(), &disk_, "/data").Restore();
  std::vector<SlotTable::Heat> heat(kEntries);
  store->CopyHeat(0, heat);
  EXPECT_TRUE(std::all_of(heat.begin(), heat.end(), [](const SlotTable::Heat& one) { return one.state == 0; }));
}

}  // namespace
}  // namespace sutra
