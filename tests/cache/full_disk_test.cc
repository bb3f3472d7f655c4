// A full disk: at the start, while the shard serves, and when there is room again. Hits go on in every case, what the
// log can give back is given back before inserts are dropped, and what is dropped is counted and said. On the simulated
// disk and a manual clock; tests/system/start_fault_test.cc does it with an engine on a small file system.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>

#include "cache/wal/wal_format.h"
#include "tests/cache/wal/log_fixture.h"

namespace sutra {
namespace {

using test::Inline;
using test::Put;
using test::SmallConfig;
using test::VersionOf;

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kSegment = kSegmentBytesMin;
constexpr uint64_t kModelFileBytes = 1024;  // more than it needs

class FullDisk : public testing::Test {
 protected:
  std::unique_ptr<LoggedShard> Open(bool load_at_open = true) {
    CacheConfig config = config_;
    config.log = [this](LogLevel level, const std::string& line) {
      if (level != LogLevel::kInfo) lines_.push_back(line);
    };
    LoggedShard::Options options = Inline();
    options.load_at_open = load_at_open;
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, &disk_, &clock_, options);
    EXPECT_TRUE(shard.ok()) << shard.status().message();
    return shard.ok() ? std::move(shard).value() : nullptr;
  }
  // The disk has room for this many segments, the reserve included.
  void SetRoom(uint64_t segments) { disk_.SetCapacity(segments * kSegment + kModelFileBytes); }
  uint64_t UsedBytes() const {
    uint64_t bytes = 0;
    for (const std::string& path : disk_.Paths()) bytes += disk_.Bytes(path).size();
    return bytes;
  }
  // Another program fills what is free.
  void FillDisk() { disk_.SetCapacity(UsedBytes()); }
  void Pass(CacheShard* shard, uint64_t ns) {
    clock_.Advance(ns);
    static_cast<LoggedShard*>(shard)->Turn();
  }
  // About 180 entries fill a segment.
  void PutMany(LoggedShard* shard, const std::string& prefix, uint32_t count, uint64_t ttl_s = 0) {
    for (uint32_t i = 0; i < count; ++i) {
      Put(shard, prefix + std::to_string(i), i, ttl_s);
      if (i % 20 == 19) Pass(shard, 60'000'000);
    }
    Pass(shard, 60'000'000);
  }
  size_t Said(const std::string& part) const {
    return static_cast<size_t>(std::count_if(
        lines_.begin(), lines_.end(), [&](const std::string& line) { return line.find(part) != std::string::npos; }));
  }
  // After a power cut a new shard finds these.
  void ExpectDurable(std::unique_ptr<LoggedShard> shard, const std::vector<std::pair<std::string, int>>& texts) {
    ASSERT_TRUE(shard->Sync().ok());
    sim::SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk_.SetFaults(dead);
    shard.reset();
    disk_.PowerCut();
    disk_.SetCapacity(UINT64_MAX);
    shard = Open();
    EXPECT_EQ(shard->Stats().quarantined_segments, 0u);
    for (const auto& [text, version] : texts) EXPECT_EQ(VersionOf(shard.get(), text), version) << text;
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_ = SmallConfig("/data");
  std::vector<std::string> lines_;
};

TEST_F(FullDisk, AFirstStartServesFromMemoryAndTakesTheLogUpWhenThereIsRoom) {
  SetRoom(0);
  auto shard = Open();
  ASSERT_NE(shard, nullptr);
  EXPECT_TRUE(shard->Stats().storage_failed);
  EXPECT_EQ(Said("the log refuses records"), 1u);
  EXPECT_EQ(Said("No space left on device"), 1u);
  EXPECT_EQ(Said("free 65536 bytes there"), 1u);
  Put(shard.get(), "unlogged", 1);
  EXPECT_EQ(VersionOf(shard.get(), "unlogged"), 1) << "hits go on";
  EXPECT_EQ(shard->Stats().wal_dropped_inserts, 1u);
  EXPECT_EQ(shard->Erase("unlogged", 0).code(), StatusCode::kStorageError);
  EXPECT_EQ(shard->Sync().code(), StatusCode::kStorageError);
  for (int i = 0; i < 5; ++i) Pass(shard.get(), kS);
  EXPECT_TRUE(shard->Stats().storage_failed);
  EXPECT_EQ(Said(""), 1u) << "the same trouble is said once";
  SetRoom(2);
  Pass(shard.get(), kS);
  EXPECT_FALSE(shard->Stats().storage_failed) << "a probe every second";
  EXPECT_EQ(Said("the log takes records again"), 1u);
  Put(shard.get(), "logged", 2);
  ExpectDurable(std::move(shard), {{"logged", 2}, {"unlogged", -1}});
}

TEST_F(FullDisk, AStartServesWhatTheLogHoldsAndLosesNothingOfItUntilThereIsRoom) {
  Put(Open().get(), "kept", 1);
  ASSERT_TRUE(disk_.Unlink(test::kSmallLogDirectory + "/reserve.tmp").ok());
  FillDisk();
  for (int start = 0; start < 3; ++start) {
    auto shard = Open();
    EXPECT_TRUE(shard->Stats().storage_failed) << "there is one segment: it cannot give itself back";
    EXPECT_EQ(VersionOf(shard.get(), "kept"), 1);
    for (int i = 0; i < 3; ++i) Pass(shard.get(), kS);
  }
  auto shard = Open();
  disk_.SetCapacity(UINT64_MAX);
  Pass(shard.get(), kS);
  EXPECT_FALSE(shard->Stats().storage_failed);
  ASSERT_TRUE(shard->Erase("nothing", 0).ok());
  ExpectDurable(std::move(shard), {{"kept", 1}});
}

TEST_F(FullDisk, AStartUsesTheRoomOfTheReserveThatTheLastEngineLeft) {
  Put(Open().get(), "kept", 1);
  FillDisk();
  auto shard = Open();
  EXPECT_FALSE(shard->Stats().storage_failed);
  Put(shard.get(), "new", 2);
  ExpectDurable(std::move(shard), {{"kept", 1}, {"new", 2}});
}

TEST_F(FullDisk, AStartGivesBackTheOldestSegmentAndAppendsWhatLivesInItAgain) {
  {
    auto shard = Open();
    Put(shard.get(), "oldest", 1);
    for (uint32_t round = 0; shard->Stats().wal_segments < 4; ++round) PutMany(shard.get(), "turns over ", 20);
  }
  ASSERT_TRUE(disk_.Unlink(test::kSmallLogDirectory + "/reserve.tmp").ok());
  FillDisk();
  auto shard = Open();
  EXPECT_FALSE(shard->Stats().storage_failed);
  EXPECT_EQ(Said("the log gives back its oldest ones"), 1u);
  EXPECT_EQ(VersionOf(shard.get(), "oldest"), 1);
  EXPECT_EQ(shard->Stats().evictions, 0u);
  Put(shard.get(), "new", 2);
  ExpectDurable(std::move(shard), {{"oldest", 1}, {"turns over 7", 7}, {"new", 2}});
}

TEST_F(FullDisk, ExpiredSegmentsAreGivenBackBeforeInsertsAreDropped) {
  config_.wal_bytes_max = 64 * kSegment;
  SetRoom(8);
  auto shard = Open();
  for (int day = 0; day < 10; ++day) {
    PutMany(shard.get(), "day " + std::to_string(day) + " ", 1000, 3600);
    clock_.Advance(3600 * kS);  // all of it has expired
  }
  EXPECT_EQ(shard->Stats().wal_dropped_inserts, 0u);
  EXPECT_EQ(shard->Stats().wal_evictions, 0u) << "nothing that lives was in the way";
  EXPECT_FALSE(shard->Stats().storage_failed);
  EXPECT_LE(UsedBytes(), 8 * kSegment + kModelFileBytes);
  Put(shard.get(), "new", 2);
  ExpectDurable(std::move(shard), {{"new", 2}});
}

TEST_F(FullDisk, TheOldestEntriesMakeRoomSoThatLoggingNeverEnds) {
  config_.wal_bytes_max = 64 * kSegment;
  SetRoom(6);
  auto shard = Open();
  PutMany(shard.get(), "live ", 10'000);
  const CacheStats stats = shard->Stats();
  EXPECT_EQ(stats.wal_dropped_inserts, 0u);
  EXPECT_GT(stats.wal_evictions, 0u);
  EXPECT_FALSE(stats.storage_failed);
  EXPECT_FALSE(stats.log_full);
  EXPECT_GE(Said("or lower --wal-bytes-max (4194304)"), 1u);
  EXPECT_LE(Said("or lower --wal-bytes-max"), 2u) << "33 s: one line a minute at most";
  EXPECT_GE(Said("entries were evicted because the disk is full"), 1u);
  EXPECT_EQ(Said("the log is at its bound"), 0u) << "a larger bound would not help";
  EXPECT_EQ(Said("the log failed"), 0u);
  EXPECT_EQ(VersionOf(shard.get(), "live 9999"), 9999);
  ExpectDurable(std::move(shard), {{"live 9999", 9999}, {"live 9900", 9900}});
}

TEST_F(FullDisk, OneSegmentOfRoomKeepsRemovalsPossibleAndDropsInsertsUntilThereIsMore) {
  config_.policy = DurabilityPolicy::kGroup;
  SetRoom(1);
  auto shard = Open();
  uint32_t i = 0;
  while (shard->Stats().wal_dropped_inserts == 0) {
    ASSERT_LT(++i, 1000u);
    Put(shard.get(), std::to_string(i), i);
  }
  EXPECT_FALSE(shard->Stats().storage_failed);
  EXPECT_TRUE(shard->Stats().log_full);
  EXPECT_EQ(Said("not logged until there is room: free 65536 bytes there"), 1u);
  EXPECT_EQ(VersionOf(shard.get(), std::to_string(i)), static_cast<int>(i)) << "served from memory";
  for (uint32_t k = 1; k <= 4; ++k) EXPECT_TRUE(shard->Erase(std::to_string(k), 0).ok());
  disk_.SetCapacity(UINT64_MAX);
  Pass(shard.get(), 1'100'000'000);
  EXPECT_FALSE(shard->Stats().log_full);
  Put(shard.get(), "after", 7);
  EXPECT_EQ(shard->Stats().wal_dropped_inserts, 1u);
  ExpectDurable(std::move(shard), {{"after", 7}, {"1", -1}});
}

// At a start on a full disk, too, only memory holds what was in a segment that was given back.
TEST_F(FullDisk, EntriesThatAreUnreadAreReadBeforeTheirSegmentIsGivenBack) {
  auto shard = Open();
  PutMany(shard.get(), "live ", 700);
  ASSERT_GE(shard->Stats().wal_segments, 4u);
  ASSERT_EQ(shard->Stats().wal_evictions, 0u);
  shard.reset();
  if (const std::string reserve = test::kSmallLogDirectory + "/reserve.tmp"; disk_.Unlink(reserve).ok()) FillDisk();
  shard = Open(false);
  ASSERT_NE(shard, nullptr);
  ASSERT_GT(shard->Stats().recovered_indexed, 2u);
  ASSERT_GT(shard->Stats().unread_entries, 100u);
  ASSERT_LT(shard->Stats().unread_entries, 700u) << "nothing was given back";
  for (uint32_t i = 0; i < 700; ++i) {
    ASSERT_EQ(VersionOf(shard.get(), "live " + std::to_string(i)), static_cast<int>(i));
  }
}

TEST_F(FullDisk, TheBoundGrowsAgainWithTheRoom) {
  config_.wal_bytes_max = 24 * kSegment;
  SetRoom(4);
  auto shard = Open();
  PutMany(shard.get(), "tight ", 3000);
  ASSERT_GT(shard->Stats().wal_evictions, 0u);
  disk_.SetCapacity(UINT64_MAX);
  PutMany(shard.get(), "wide ", 2000);
  const uint64_t evictions = shard->Stats().wal_evictions;
  PutMany(shard.get(), "wide ", 2000);
  EXPECT_EQ(shard->Stats().wal_evictions, evictions);
  EXPECT_GT(shard->Stats().wal_segments, 8u);
  EXPECT_LE(UsedBytes(), config_.wal_bytes_max + kModelFileBytes);
}

// A limit of file sizes is no lack of room: it is named, nothing is evicted for it, and a start serves.
TEST_F(FullDisk, ALimitOfFileSizesIsNamedAndServedUnder) {
  Put(Open().get(), "kept", 1);
  disk_.SetFileLimit(kSegment - 1);
  auto shard = Open();
  ASSERT_NE(shard, nullptr);
  EXPECT_TRUE(shard->Stats().storage_failed);
  EXPECT_EQ(VersionOf(shard.get(), "kept"), 1);
  EXPECT_EQ(Said("ulimit -f"), 1u);
  EXPECT_EQ(Said("free "), 0u);
  disk_.SetFileLimit(UINT64_MAX);
  Pass(shard.get(), kS);
  EXPECT_FALSE(shard->Stats().storage_failed);
  ExpectDurable(std::move(shard), {{"kept", 1}});
}

TEST_F(FullDisk, ALimitOfFileSizesWhileRunningEvictsNothing) {
  auto shard = Open();
  for (uint32_t round = 0; shard->Stats().wal_segments < 3; ++round) {
    PutMany(shard.get(), "live " + std::to_string(round) + " ", 20);
  }
  disk_.SetFileLimit(kSegment - 1);
  for (uint32_t round = 0; !shard->Stats().log_full; ++round) {
    ASSERT_LT(round, 100u);
    PutMany(shard.get(), "more " + std::to_string(round) + " ", 20);
  }
  Pass(shard.get(), kS);
  EXPECT_EQ(shard->Stats().wal_evictions, 0u);
  EXPECT_GE(shard->Stats().wal_segments, 3u);
  EXPECT_EQ(Said("no reserve segment"), 1u);
  EXPECT_EQ(Said("ulimit -f"), 1u);
  EXPECT_EQ(Said("free "), 0u);
}

// Another program takes whatever is given back: one segment a second goes, not the whole log at once. A segment of this
// engine is not given back but becomes the reserve.
TEST_F(FullDisk, WhatIsGivenBackInVainGoesSlowly) {
  {
    auto former = Open();
    for (uint32_t round = 0; former->Stats().wal_segments < 5; ++round) {
      PutMany(former.get(), "live " + std::to_string(round) + " ", 20);
    }
  }
  auto shard = Open();
  disk_.SetCapacity(0);
  // Into the next segment, whose reserve cannot be made.
  for (int i = 0; !shard->Stats().log_full; ++i) {
    ASSERT_LT(i, 1000);
    Put(shard.get(), "one more", 1);
    clock_.Advance(1'000'000);
    ASSERT_TRUE(shard->Sync().ok());
  }
  const uint64_t before = shard->Stats().wal_segments;
  EXPECT_EQ(before, 6u) << "two more, and one given back";
  for (uint64_t s = 1; s <= 4; ++s) {
    EXPECT_TRUE(shard->Stats().log_full);
    Pass(shard.get(), kS);
    EXPECT_EQ(shard->Stats().wal_segments, before - s);
    EXPECT_TRUE(shard->Erase("one more", 0).ok());
  }
  Pass(shard.get(), kS);
  EXPECT_FALSE(shard->Stats().log_full);
  EXPECT_EQ(shard->Stats().wal_segments, 1u) << "the first one of this engine is the reserve";
  EXPECT_FALSE(shard->Stats().storage_failed);
}

// Whatever other programs take: the log goes round in the files that it has.
TEST_F(FullDisk, ALogThatGoesRoundNeedsNoRoom) {
  config_.wal_bytes_max = 8 * kSegment;
  auto shard = Open();
  for (int round = 0; round < 200; ++round) PutMany(shard.get(), "turns over ", 20);
  disk_.SetCapacity(0);
  PutMany(shard.get(), "turns over ", 10'000);
  const CacheStats stats = shard->Stats();
  EXPECT_EQ(stats.wal_dropped_inserts, 0u);
  EXPECT_FALSE(stats.log_full);
  ExpectDurable(std::move(shard), {{"turns over 9999", 9999}, {"turns over 9900", 9900}});
}

// Whatever a start needs room for, the shard serves, and takes its log up when there is room.
TEST_F(FullDisk, AStartServesWhereverTheRoomRunsOut) {
  uint64_t served = 0;
  for (uint64_t at = 1;; ++at) {
    sim::SimDisk disk;
    { Put(LoggedShard::Open(config_, &disk, &clock_, Inline()).value().get(), "kept", 1); }
    sim::SimDisk::Faults faults;
    faults.fail_at = at;
    faults.fail_errno = ENOSPC;
    disk.SetFaults(faults);
    Result<std::unique_ptr<LoggedShard>> opened = LoggedShard::Open(config_, &disk, &clock_, Inline());
    const uint64_t operations = disk.operations();
    if (opened.ok()) {
      ++served;
      LoggedShard& shard = **opened;
      Put(&shard, "while it is full", 2);
      EXPECT_EQ(VersionOf(&shard, "while it is full"), 2);
      EXPECT_EQ(VersionOf(&shard, "kept"), at == 1 ? VersionOf(&shard, "kept") : 1) << "operation " << at;
      disk.SetFaults(sim::SimDisk::Faults());
      Pass(&shard, 1'100'000'000);
      if (at > 1) {
        EXPECT_FALSE(shard.Stats().storage_failed) << "operation " << at;
        EXPECT_TRUE(shard.Erase("while it is full", 0).ok());
      }
    }
    if (operations < at) break;
    ASSERT_LT(at, 200u);
  }
  EXPECT_GT(served, 10u);
}

}  // namespace
}  // namespace sutra
