// Many threads on one shard over a real directory: every answer is a vector that was stored for that text, removals
// hold, bounds hold, and what was synced is there after a restart. Meant for TSan as well.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/cache_test_support.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

using test::Put;
using test::VersionOf;

TEST(CacheThreads, MixedCallsNeverGiveAWrongAnswer) {
  const uint64_t seed = test::TestSeed(11);
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp.path(), {}).value();
  CacheConfig config = test::SmallConfig(temp.path());
  config.wal_bytes_max = 1 << 20;
  config.entries_max = 300;
  constexpr int kThreads = 6, kSteps = 1500, kShared = 400;
  {
    std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937_64 random(seed + static_cast<uint64_t>(t));
        const std::string own = "own " + std::to_string(t);
        for (uint32_t step = 0; step < kSteps; ++step) {
          const std::string text = std::to_string(random() % kShared);
          const uint64_t kind = random() % 100;
          if (kind < 50) {
            if (VersionOf(shard.get(), text) == -2) wrong.fetch_add(1, std::memory_order_relaxed);
          } else if (kind < 94) {
            Put(shard.get(), text, step);
          } else if (kind < 96) {
            // No other thread touches this text: after the removal it is gone.
            Put(shard.get(), own, step);
            if (!shard->Erase(own, 0).ok() || VersionOf(shard.get(), own) != -1) {
              wrong.fetch_add(1, std::memory_order_relaxed);
            }
          } else if (kind < 97) {
            if (!shard->Sync().ok()) wrong.fetch_add(1, std::memory_order_relaxed);
          } else {
            const CacheStats stats = shard->Stats();
            if (stats.entries > config.entries_max) wrong.fetch_add(1, std::memory_order_relaxed);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong.load(std::memory_order_relaxed), 0);
    EXPECT_FALSE(shard->Stats().storage_failed);
    Put(shard.get(), "last", 1);
    ASSERT_TRUE(shard->Sync().ok());
  }
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  EXPECT_EQ(shard->Stats().quarantined_segments, 0u);
  EXPECT_EQ(VersionOf(shard.get(), "last"), 1);
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(VersionOf(shard.get(), "own " + std::to_string(t)), -1);
  for (int i = 0; i < kShared; ++i) EXPECT_NE(VersionOf(shard.get(), std::to_string(i)), -2);
}

// The log's thread evicts, and so hands the log records of its own, while it is being stopped.
TEST(CacheThreads, AStopWhoseLastWritesMakeTheLogEvictWritesThem) {
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp.path(), {}).value();
  CacheConfig config = test::SmallConfig(temp.path());
  config.wal_bytes_max = 512 << 10;
  config.interval_us_max = 10'000'000;  // nothing is written before the stop
  config.interval_bytes_max = 8 << 20;
  uint64_t evictions = 0, entries = 0;
  for (uint32_t round = 0; round < 8; ++round) {
    constexpr uint32_t kTexts = 400;
    std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
    const CacheStats before = shard->Stats();
    EXPECT_EQ(before.entries + before.wal_evictions, entries) << "round " << round;
    for (uint32_t i = round * kTexts; i < (round + 1) * kTexts; ++i) Put(shard.get(), std::to_string(i), i);
    shard->Close();
    const CacheStats after = shard->Stats();
    EXPECT_EQ(after.wal_dropped_inserts, 0u);
    EXPECT_EQ(after.wal_pending_records, 0u);
    evictions += after.wal_evictions - before.wal_evictions;
    entries = after.entries;
  }
  EXPECT_GT(evictions, 0u) << "this shows nothing";
}

TEST(CacheThreads, AGroupCarriesManyWaiters) {
  const test::TempDir temp;
  std::unique_ptr<DiskIo> io = MakeDiskIo(DiskIoKind::kAuto, temp.path(), {}).value();
  CacheConfig config = test::SmallConfig(temp.path());
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), Clock::Real()).value();
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        if (!shard->Erase(std::to_string(t), 0).ok()) failed.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failed.load(std::memory_order_relaxed), 0);
  EXPECT_LE(shard->Stats().wal_syncs, 320u + 8u);
}

}  // namespace
}  // namespace sutra
