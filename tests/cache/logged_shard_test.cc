// The shard as its users see it: hits, expiry, removals, policies, restarts, directories, bounds of the log. On the
// simulated disk and a manual clock.
#include "cache/cache_shard.h"

#include <gtest/gtest.h>

#include "cache/wal/wal_format.h"
#include "tests/cache/wal/log_fixture.h"
#include "tests/kit/by_build.h"

namespace sutra {
namespace {

using test::ByBuild;
using test::Inline;
using test::Put;
using test::SmallConfig;
using test::VersionOf;

constexpr uint64_t kS = 1'000'000'000;

class CacheShardTest : public testing::Test {
 protected:
  std::unique_ptr<LoggedShard> Open(const CacheConfig& config) {
    CacheConfig logged = config;
    logged.log = [this](LogLevel, const std::string& line) { lines_.push_back(line); };
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(logged, &disk_, &clock_, Inline());
    EXPECT_TRUE(shard.ok()) << shard.status().message();
    return shard.ok() ? std::move(shard).value() : nullptr;
  }
  bool Said(const std::string& part) const {
    return std::any_of(lines_.begin(), lines_.end(),
                       [&](const std::string& line) { return line.find(part) != std::string::npos; });
  }
  uint64_t LogBytes() const {
    uint64_t bytes = 0;
    for (const std::string& path : disk_.Paths()) {
      const bool log = path.find("/MODEL") == std::string::npos && path.find("/heat") == std::string::npos;
      if (log) bytes += disk_.Bytes(path).size();
    }
    return bytes;
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  CacheConfig config_ = SmallConfig("/data");
  std::vector<std::string> lines_;
};

// What was accepted is in the files, which nobody of this shard touches any more: another may have them while this one
// still has its memory.
TEST_F(CacheShardTest, AClosedShardLeavesItsFilesToTheNext) {
  auto shard = Open(config_);
  Put(shard.get(), "a", 1);
  shard->Close();
  const uint64_t entries = shard->Stats().entries;
  EXPECT_EQ(entries, 1u);
  auto next = Open(config_);
  EXPECT_EQ(VersionOf(next.get(), "a"), 1);
  Put(next.get(), "b", 2);
  shard.reset();
  next->Close();
  EXPECT_EQ(VersionOf(Open(config_).get(), "b"), 2);
}

TEST_F(CacheShardTest, AHitCopiesEverythingOut) {
  auto shard = Open(config_);
  const std::vector<float> vector = test::VectorOf("t", 1);
  shard->Insert("t", 3, vector, CacheValue{2.5f, 17, true}, 0);
  std::vector<float> found(test::kWidth);
  CacheValue value;
  EXPECT_FALSE(shard->Lookup("t", 0, found.data(), &value));
  ASSERT_TRUE(shard->Lookup("t", 3, found.data(), &value));
  EXPECT_EQ(found, vector);
  EXPECT_EQ(value.norm, 2.5f);
  EXPECT_EQ(value.token_count, 17u);
  EXPECT_TRUE(value.truncated);
}

TEST_F(CacheShardTest, SurvivesACleanRestartWithEveryPolicyThatLogs) {
  for (const DurabilityPolicy policy :
       {DurabilityPolicy::kInterval, DurabilityPolicy::kGroup, DurabilityPolicy::kSync}) {
    config_.policy = policy;
    const std::string text = "text " + std::to_string(static_cast<int>(policy));
    Put(Open(config_).get(), text, 5);
    auto shard = Open(config_);
    EXPECT_EQ(VersionOf(shard.get(), text), 5);
    EXPECT_EQ(shard->Stats().quarantined_segments, 0u);
  }
}

TEST_F(CacheShardTest, PolicyNoneTouchesNoDisk) {
  config_.policy = DurabilityPolicy::kNone;
  auto shard = Open(config_);
  Put(shard.get(), "t", 1);
  EXPECT_EQ(VersionOf(shard.get(), "t"), 1);
  EXPECT_TRUE(shard->Erase("t", 0).ok());
  EXPECT_TRUE(shard->Sync().ok());
  EXPECT_EQ(VersionOf(shard.get(), "t"), -1);
  EXPECT_EQ(disk_.operations(), 0u);
}

TEST_F(CacheShardTest, IntervalWritesAfterFiftyMillisecondsAndSyncsAfterASecond) {
  auto shard = Open(config_);
  const uint64_t syncs = shard->Stats().wal_syncs;
  Put(shard.get(), "t", 1);
  EXPECT_EQ(shard->Stats().wal_pending_records, 1u);
  clock_.Advance(49'000'000);
  shard->Turn();
  EXPECT_EQ(shard->Stats().wal_oldest_unwritten_us, 49'000u);
  clock_.Advance(1'000'000);
  shard->Turn();
  CacheStats stats = shard->Stats();
  EXPECT_EQ(stats.wal_pending_records, 0u);
  EXPECT_EQ(stats.wal_oldest_unwritten_us, 0u);
  EXPECT_EQ(stats.wal_oldest_unsynced_us, 50'000u);
  EXPECT_EQ(stats.wal_syncs, syncs);
  clock_.Advance(950'000'000);
  shard->Turn();
  stats = shard->Stats();
  EXPECT_EQ(stats.wal_oldest_unsynced_us, 0u);
  EXPECT_EQ(stats.wal_syncs, syncs + 1);
}

TEST_F(CacheShardTest, AWatermarkFollowsTheLastSyncOnceAndThenNothing) {
  auto shard = Open(config_);
  Put(shard.get(), "t", 1);
  ASSERT_TRUE(shard->Sync().ok());
  const uint64_t appends = shard->Stats().wal_appends;
  clock_.Advance(20'000'000);
  shard->Turn();
  EXPECT_EQ(shard->Stats().wal_appends, appends + 1);
  const uint64_t operations = disk_.operations();
  for (int i = 0; i < 100; ++i) {
    clock_.Advance(kS);
    shard->Turn();
  }
  EXPECT_EQ(disk_.operations(), operations) << "an idle shard leaves the disk alone";
}

TEST_F(CacheShardTest, EntriesExpireWhateverTheWallClockShows) {
  auto shard = Open(config_);
  Put(shard.get(), "short", 1, 10);
  Put(shard.get(), "default", 2);
  clock_.Advance(10 * kS - 1);
  EXPECT_EQ(VersionOf(shard.get(), "short"), 1);
  clock_.SetWall(1);  // a jump of the wall clock changes nothing
  EXPECT_EQ(VersionOf(shard.get(), "short"), 1);
  clock_.Advance(1);
  EXPECT_EQ(VersionOf(shard.get(), "short"), -1);
  clock_.Advance(86'400 * kS);
  EXPECT_EQ(VersionOf(shard.get(), "default"), -1);
}

TEST_F(CacheShardTest, ExpiryCountsOnAcrossARestart) {
  Put(Open(config_).get(), "t", 1, 100);
  clock_.Advance(60 * kS);
  auto shard = Open(config_);
  EXPECT_EQ(VersionOf(shard.get(), "t"), 1);
  clock_.Advance(39 * kS);
  EXPECT_EQ(VersionOf(shard.get(), "t"), 1);
  clock_.Advance(2 * kS);
  EXPECT_EQ(VersionOf(shard.get(), "t"), -1);
  shard.reset();
  EXPECT_EQ(VersionOf(Open(config_).get(), "t"), -1);
}

TEST_F(CacheShardTest, AClockSetBackRevivesNothingAndLengthensNothing) {
  const uint64_t wall = clock_.WallNs();
  {
    auto shard = Open(config_);
    Put(shard.get(), "old", 1, 10);
    clock_.Advance(100 * kS);  // "old" has expired
    Put(shard.get(), "young", 2, 50);
  }
  clock_.SetWall(wall - 1000 * kS);
  auto shard = Open(config_);
  EXPECT_EQ(VersionOf(shard.get(), "old"), -1);
  EXPECT_EQ(VersionOf(shard.get(), "young"), 2);
  clock_.Advance(51 * kS);
  EXPECT_EQ(VersionOf(shard.get(), "young"), -1);
}

// After minutes the time counts as seen; cache_clock_test.cc has the jumps that are shorter.
TEST_F(CacheShardTest, AClockSetForwardExpiresAndWhatItWasForMinutesDoesNotComeBack) {
  const uint64_t wall = clock_.WallNs();
  Put(Open(config_).get(), "t", 1, 100);
  clock_.SetWall(wall + 200 * kS);
  {
    auto shard = Open(config_);
    EXPECT_EQ(VersionOf(shard.get(), "t"), -1);
    clock_.Advance(301 * kS);
    shard->Turn();
  }
  clock_.SetWall(wall);
  EXPECT_EQ(VersionOf(Open(config_).get(), "t"), -1) << "time that was seen stays seen";
}

TEST_F(CacheShardTest, AnExpiredInsertHidesTheOlderOneOfTheSameText) {
  {
    auto shard = Open(config_);
    Put(shard.get(), "t", 1, 1000);
    Put(shard.get(), "t", 2, 5);
  }
  clock_.Advance(10 * kS);
  EXPECT_EQ(VersionOf(Open(config_).get(), "t"), -1);
}

TEST_F(CacheShardTest, ErasedStaysErasedEvenIfItHadBeenEvicted) {
  config_.entries_max = 4;
  {
    auto shard = Open(config_);
    Put(shard.get(), "first", 1);
    for (uint32_t i = 0; i < 8; ++i) Put(shard.get(), std::to_string(i), i);
    ASSERT_EQ(VersionOf(shard.get(), "first"), -1) << "evicted";
    ASSERT_TRUE(shard->Erase("first", 0).ok());
    EXPECT_TRUE(shard->Erase("never there", 0).ok());
  }
  config_.entries_max = 1000;
  auto shard = Open(config_);
  EXPECT_EQ(VersionOf(shard.get(), "first"), -1);
  EXPECT_EQ(VersionOf(shard.get(), "7"), 7);
}

TEST_F(CacheShardTest, TheLogStaysWithinItsBoundAndKeepsLiveEntries) {
  config_.wal_bytes_max = 512 << 10;
  auto shard = Open(config_);
  for (uint32_t i = 0; i < 50; ++i) Put(shard.get(), "kept " + std::to_string(i), i);
  uint64_t highest = 0;
  for (uint32_t i = 0; i < 20'000; ++i) {
    Put(shard.get(), "changing " + std::to_string(i % 100), i);
    if (i % 20 == 0) {
      clock_.Advance(60'000'000);
      shard->Turn();
      highest = std::max(highest, LogBytes());
    }
  }
  EXPECT_LE(highest, config_.wal_bytes_max);
  EXPECT_GT(shard->Stats().wal_bytes, 4 * config_.wal_bytes_max) << "the log went round several times";
  EXPECT_EQ(shard->Stats().evictions, 0u);
  shard.reset();
  shard = Open(config_);
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_EQ(VersionOf(shard.get(), "kept " + std::to_string(i)), static_cast<int>(i));
  }
  for (uint32_t i = 19'900; i < 20'000; ++i) {
    ASSERT_EQ(VersionOf(shard.get(), "changing " + std::to_string(i % 100)), static_cast<int>(i));
  }
}

TEST_F(CacheShardTest, ALogFullOfLiveEntriesEvictsAndMovesOn) {
  config_.wal_bytes_max = 256 << 10;
  auto shard = Open(config_);
  for (uint32_t i = 0; i < 5'000; ++i) {
    Put(shard.get(), "live " + std::to_string(i), i);
    if (i % 20 == 0) {
      clock_.Advance(60'000'000);
      shard->Turn();
      ASSERT_LE(LogBytes(), config_.wal_bytes_max);
    }
  }
  EXPECT_EQ(VersionOf(shard.get(), "live 4999"), 4999);
  EXPECT_GT(shard->Stats().evictions, 0u);
  shard.reset();
  EXPECT_EQ(VersionOf(Open(config_).get(), "live 4999"), 4999);
}

TEST_F(CacheShardTest, RemovalsStayRemovedWhileTheLogGoesRound) {
  config_.wal_bytes_max = 256 << 10;
  auto shard = Open(config_);
  for (uint32_t round = 0; round < 200; ++round) {
    Put(shard.get(), "gone", round);
    ASSERT_TRUE(shard->Erase("gone", 0).ok());
    for (uint32_t i = 0; i < 10; ++i) Put(shard.get(), std::to_string(i), round);
    clock_.Advance(60'000'000);
    shard->Turn();
    if (round % 40 == 39) {
      shard.reset();
      shard = Open(config_);
      ASSERT_EQ(VersionOf(shard.get(), "gone"), -1) << "round " << round;
      ASSERT_EQ(VersionOf(shard.get(), "3"), static_cast<int>(round));
    }
  }
}

TEST_F(CacheShardTest, RestartsAloneDoNotGrowTheLog) {
  Put(Open(config_).get(), "t", 1);
  const uint64_t before = LogBytes();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(VersionOf(Open(config_).get(), "t"), 1);
  EXPECT_LE(LogBytes(), before + config_.wal_segment_bytes);
}

// The live entries fill one of 16 segments; every life adds one entry and takes a segment.
TEST_F(CacheShardTest, RestartsEvictNothingThatTheLogHasRoomFor) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 16 << 20;
  constexpr uint32_t kOld = 4000;
  {
    auto shard = Open(config_);
    for (uint32_t i = 0; i < kOld; ++i) Put(shard.get(), "old " + std::to_string(i), i);
  }
  for (uint32_t life = 0; life < ByBuild(50u, 50u, 12u); ++life) {
    auto shard = Open(config_);
    ASSERT_EQ(shard->Stats().evictions, 0u) << "by start " << life;
    ASSERT_EQ(shard->Stats().entries, kOld + life);
    ASSERT_LE(LogBytes(), config_.wal_bytes_max);
    Put(shard.get(), "new " + std::to_string(life), life);
  }
  EXPECT_FALSE(Said("--wal-bytes-max"));
}

// The canary of the test above: when the log is too small indeed, the gauge and the line say so.
TEST_F(CacheShardTest, EvictionsByTheLogsBoundAreCountedAndSaidWithTheFix) {
  config_.wal_bytes_max = 256 << 10;
  auto shard = Open(config_);
  for (uint32_t i = 0; i < 3'000; ++i) {
    Put(shard.get(), "live " + std::to_string(i), i);
    if (i % 20 == 0) {
      clock_.Advance(60'000'000);
      shard->Turn();
    }
  }
  EXPECT_GT(shard->Stats().wal_evictions, 0u);
  EXPECT_EQ(shard->Stats().wal_evictions, shard->Stats().evictions);
  const auto said = [&] {
    return std::count_if(lines_.begin(), lines_.end(), [](const std::string& line) {
      return line.find(" entries were evicted because the log is at its bound") != std::string::npos &&
             line.find("raise --wal-bytes-max (262144)") != std::string::npos;
    });
  };
  EXPECT_EQ(said(), 1) << "9 s: one line a minute at most";
  clock_.Advance(60 * kS);
  for (uint32_t i = 0; i < 500; ++i) Put(shard.get(), "more " + std::to_string(i), i);
  clock_.Advance(kS);
  shard->Turn();
  EXPECT_EQ(said(), 2);
}

TEST_F(CacheShardTest, ARecordTooLargeForTheLogIsServedFromMemoryAndCounted) {
  auto shard = Open(config_);
  const std::string text(50'000, 'x');
  Put(shard.get(), text, 1);
  EXPECT_EQ(VersionOf(shard.get(), text), 1);
  EXPECT_EQ(shard->Stats().wal_dropped_inserts, 1u);
  EXPECT_TRUE(shard->Erase(text, 0).ok());
  EXPECT_EQ(VersionOf(shard.get(), text), -1);
}

TEST_F(CacheShardTest, ARecordLargerThanAGroupIsLogged) {
  const std::string text(20'000, 'y');
  Put(Open(config_).get(), text, 1);
  EXPECT_EQ(VersionOf(Open(config_).get(), text), 1);
}

TEST_F(CacheShardTest, SmallerSegmentsThanBeforeAreNoTrouble) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 4 << 20;
  const std::string text(200'000, 'y');
  Put(Open(config_).get(), text, 1);
  config_.wal_segment_bytes = 64 << 10;
  config_.wal_bytes_max = 256 << 10;
  auto shard = Open(config_);
  EXPECT_EQ(VersionOf(shard.get(), text), 1);
  for (uint32_t i = 0; i < 500; ++i) {
    Put(shard.get(), std::to_string(i % 50), i);
    clock_.Advance(60'000'000);
    shard->Turn();
  }
  EXPECT_LE(LogBytes(), config_.wal_bytes_max);
  EXPECT_FALSE(shard->Stats().storage_failed);
}

// Its record would not fit into a segment any more; a removal names the key by its digest.
TEST_F(CacheShardTest, ALongTextIsRemovedForGoodAfterSegmentsWereMadeSmaller) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 8 << 20;
  const std::string text(200'000, 'y');
  Put(Open(config_).get(), text, 1);
  config_.wal_segment_bytes = 64 << 10;
  EXPECT_EQ(VersionOf(Open(config_).get(), text), 1);
  EXPECT_TRUE(Open(config_)->Erase(text, 0).ok());
  EXPECT_EQ(VersionOf(Open(config_).get(), text), -1);
}

TEST_F(CacheShardTest, AFullQueueDropsTheRecordNotTheEntry) {
  config_.interval_us_max = 10'000'000;
  config_.interval_bytes_max = 1ull << 40;
  auto shard = Open(config_);
  for (uint32_t i = 0; i < 4'000; ++i) Put(shard.get(), std::to_string(i) + std::string(20'000, 'z'), i);
  const CacheStats stats = shard->Stats();
  EXPECT_GT(stats.wal_dropped_inserts, 0u);
  EXPECT_EQ(stats.wal_dropped_inserts + stats.wal_pending_records, 4'000u);
  EXPECT_EQ(VersionOf(shard.get(), "3999" + std::string(20'000, 'z')), 3999);
}

TEST_F(CacheShardTest, WhatWasComputedFromBeforeARemovalIsNotStoredAfterIt) {
  auto shard = Open(config_);
  const std::vector<float> vector = test::VectorOf("t", 1);
  const auto insert = [&](uint64_t removals_seen) {
    shard->Insert("t", 0, vector, CacheValue{1, 1, false}, 0, removals_seen);
    return VersionOf(shard.get(), "t");
  };
  const uint64_t before = shard->Removals();
  EXPECT_EQ(insert(before), 1);
  EXPECT_TRUE(shard->Erase("t", 0).ok());
  EXPECT_EQ(insert(before), -1) << "it began before the removal";
  const uint64_t after = shard->Removals();
  EXPECT_GT(after, before);
  EXPECT_EQ(insert(after), 1);
  EXPECT_TRUE(shard->Erase("another", 0).ok());
  EXPECT_TRUE(shard->Erase("t", 0).ok()) << "of what is absent, too";
  EXPECT_EQ(insert(after), -1);
  Put(shard.get(), "u", 2);
  EXPECT_EQ(VersionOf(shard.get(), "u"), 2) << "whoever names no number has seen all";
}

// An entry that is too long for the log takes the place of one that the log knows.
TEST_F(CacheShardTest, WhatAnEntryThatIsNotLoggedPushedOutDoesNotComeBack) {
  config_.entries_max = 1;
  {
    auto shard = Open(config_);
    Put(shard.get(), "logged", 1);
    Put(shard.get(), std::string(80'000, 'z'), 2);
    EXPECT_EQ(VersionOf(shard.get(), "logged"), -1);
    EXPECT_TRUE(shard->Sync().ok());
  }
  EXPECT_EQ(VersionOf(Open(config_).get(), "logged"), -1);
}

TEST_F(CacheShardTest, AnotherModelGetsItsOwnDirectory) {
  Put(Open(config_).get(), "t", 1);
  CacheConfig other = config_;
  other.model_identity[3] = 'f';
  auto shard = Open(other);
  EXPECT_EQ(VersionOf(shard.get(), "t"), -1);
  shard.reset();
  EXPECT_EQ(VersionOf(Open(config_).get(), "t"), 1);
}

TEST_F(CacheShardTest, TheSameDirectoryForAnotherIdentityOrWidthIsRefused) {
  Open(config_).reset();
  CacheConfig other = config_;
  other.model_identity[40] = 'e';
  Status status = LoggedShard::Open(other, &disk_, &clock_, Inline()).status();
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_NE(status.message().find("/MODEL says model"), std::string::npos) << status.message();
  other = config_;
  other.width = 8;
  status = LoggedShard::Open(other, &disk_, &clock_, Inline()).status();
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_NE(status.message().find("width 16"), std::string::npos) << status.message();
}

TEST_F(CacheShardTest, ASegmentOfALaterVersionIsRefusedNotDamaged) {
  { Put(Open(config_).get(), "t", 1); }
  const std::string path = test::kSmallLogDirectory + "/" + SegmentName(1);
  std::vector<std::byte> bytes = disk_.Bytes(path);
  SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.format_major = 2;
  EncodeSegmentHeader(header, bytes.data());
  EncodeSegmentHeader(header, bytes.data() + kWalBlockBytes);
  disk_.SetBytes(path, bytes);
  const Status status = LoggedShard::Open(config_, &disk_, &clock_, Inline()).status();
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_NE(status.message().find("later version"), std::string::npos);
}

TEST_F(CacheShardTest, AMissingSegmentVoidsWhatIsOlder) {
  config_.policy = DurabilityPolicy::kGroup;
  auto shard = Open(config_);
  Put(shard.get(), "old", 1);
  uint32_t i = 0;
  for (; shard->Stats().wal_segments < 3; ++i) Put(shard.get(), "filler " + std::to_string(i % 5), i);
  Put(shard.get(), "new", 2);
  shard.reset();
  ASSERT_TRUE(disk_.Unlink(test::kSmallLogDirectory + "/" + SegmentName(2)).ok());
  CacheConfig strict = config_;
  strict.strict_recovery = true;
  EXPECT_EQ(LoggedShard::Open(strict, &disk_, &clock_, Inline()).status().code(), StatusCode::kRefused);
  shard = Open(config_);
  EXPECT_EQ(VersionOf(shard.get(), "old"), -1);
  EXPECT_EQ(VersionOf(shard.get(), "new"), 2);
  const uint64_t quarantined = shard->Stats().quarantined_segments;
  EXPECT_GT(quarantined, 0u);
  shard.reset();
  shard = Open(config_);
  EXPECT_EQ(shard->Stats().recovered_dropped, 0u) << "the damage is cleared away";
  EXPECT_EQ(shard->Stats().quarantined_segments, quarantined) << "the files still take up room";
}

TEST_F(CacheShardTest, BadOptionsAreNamed) {
  const auto message = [&](const std::function<void(CacheConfig*)>& change) {
    CacheConfig config = config_;
    change(&config);
    const Status status = LoggedShard::Open(config, &disk_, &clock_, Inline()).status();
    EXPECT_EQ(status.code(), StatusCode::kBadOption);
    return status.message();
  };
  EXPECT_NE(message([](CacheConfig* c) { c->width = 0; }).find("width"), std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->model_identity = "abc"; }).find("model_identity"), std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->entries_max = 0; }).find("entries_max"), std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->bytes_max = 1; }).find("bytes_max"), std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->ttl_s_default = 0; }).find("ttl_s_default"), std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->wal_segment_bytes = 100'000; }).find("wal_segment_bytes"),
            std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->wal_bytes_max = c->wal_segment_bytes; }).find("wal_bytes_max"),
            std::string::npos);
  EXPECT_NE(message([](CacheConfig* c) { c->directory = ""; }).find("directory"), std::string::npos);
}

}  // namespace
}  // namespace sutra
