// Every disk operation of a script fails, one after the other, once or permanently, by error or by power cut (P5, P2);
// a full disk is in full_disk_test.cc. Nothing acknowledged is lost, nothing crashes, the failure is reported, and the
// shard accepts records again when the disk works again.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/kit/by_build.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

using sim::ManualClock;
using sim::Oracle;
using sim::SimDisk;
using test::ByBuild;
using test::Inline;
using test::Put;
using test::SmallConfig;
using test::VersionOf;

CacheConfig SweepConfig() {
  CacheConfig config = SmallConfig("/data");
  config.wal_bytes_max = 320 << 10;  // five segments, so that the script reaches recycling
  return config;
}

// About 200 calls: inserts, replacements, removals, syncs and time, enough to fill and recycle segments.
std::string RunScript(Oracle* oracle) {
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 12; ++i) {
      const std::string text = "text " + std::to_string((round * 5 + i) % 30) + std::string(600, 't');
      oracle->Put(text);
      if (std::string error = oracle->CheckRunning(text); !error.empty()) return error;
    }
    oracle->Erase("text " + std::to_string(round % 30) + std::string(600, 't'));
    oracle->Advance(60);
    if (round % 3 == 0) oracle->Sync();
    if (round % 4 == 3) oracle->Advance(1100);
  }
  return "";
}

// Returns the operations that the script needed, or 0 after a failed expectation.
uint64_t RunWithFault(SimDisk::Faults faults, bool power_cut) {
  SimDisk disk(faults.fail_at + faults.power_off_at);
  ManualClock clock;
  Oracle oracle(&clock);
  disk.SetFaults(faults);
  if (power_cut) disk.SetSlowSyncs(80);  // half of them fail beside a sync
  Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(SweepConfig(), &disk, &clock, Inline());
  if (shard.ok()) {
    oracle.Attach(shard->get());
    const std::string error = RunScript(&oracle);
    EXPECT_EQ(error, "");
    if (!error.empty()) return 0;
  } else {
    EXPECT_FALSE(shard.status().message().empty());
  }
  const uint64_t operations = disk.operations();
  if (shard.ok()) {
    SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk.SetFaults(dead);
    shard.value().reset();
  }
  power_cut ? disk.PowerCut() : disk.ProcessKill();
  Result<std::unique_ptr<LoggedShard>> again = LoggedShard::Open(SweepConfig(), &disk, &clock, Inline());
  EXPECT_TRUE(again.ok()) << again.status().message();
  if (!again.ok()) return 0;
  EXPECT_EQ((*again)->Stats().quarantined_segments, 0u);
  oracle.Attach(again->get());
  const std::string error = oracle.CheckRecovered(power_cut).failure;
  EXPECT_EQ(error, "");
  return error.empty() ? operations : 0;
}

class FaultSweep : public testing::TestWithParam<int> {};

TEST_P(FaultSweep, EveryOperationFailsOnceAndForEver) {
  constexpr uint64_t kStep = ByBuild(1, 5, 15);
  uint64_t runs = 0;
  for (const bool forever : {false, true}) {
    for (uint64_t n = 1;; n += kStep) {
      SimDisk::Faults faults;
      faults.fail_at = n;
      faults.fail_errno = GetParam();
      faults.fail_forever = forever;
      const uint64_t operations = RunWithFault(faults, n % 2 == 0);
      ASSERT_NE(operations, 0u) << "operation " << n << (forever ? " and all after it" : "");
      ++runs;
      if (operations < n) break;
      ASSERT_LT(n, 5000u) << "the script never ends";
    }
  }
  std::printf("fault positions run: %llu\n", static_cast<unsigned long long>(runs));
}

std::string ErrorName(const testing::TestParamInfo<int>& error) { return error.param == EIO ? "EIO" : "ENOSPC"; }

INSTANTIATE_TEST_SUITE_P(Errors, FaultSweep, testing::Values(EIO, ENOSPC), ErrorName);

TEST(FaultSweep, ThePowerGoesAtEveryOperation) {
  constexpr uint64_t kStep = ByBuild(1, 3, 9);
  for (uint64_t n = 1;; n += kStep) {
    SimDisk::Faults faults;
    faults.power_off_at = n;
    const uint64_t operations = RunWithFault(faults, true);
    ASSERT_NE(operations, 0u) << "operation " << n;
    if (operations < n) break;
    ASSERT_LT(n, 5000u);
  }
}

TEST(FaultSweep, ShortWritesOfEveryKindLoseNothing) {
  for (const size_t bytes : {0u, 1u, 511u, 512u, 4095u, 4096u}) {
    for (uint64_t n = 1; n < 120; n += ByBuild(3u, 3u, 12u)) {
      SimDisk::Faults faults;
      faults.short_at = n;
      faults.short_bytes = bytes;
      ASSERT_NE(RunWithFault(faults, true), 0u) << bytes << " bytes at operation " << n;
    }
  }
}

TEST(StorageFailure, HitsGoOnRemovalsFailAndTheProbeReopens) {
  SimDisk disk;
  ManualClock clock;
  auto shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  Put(shard.get(), "kept", 1);
  Put(shard.get(), "removed", 1);
  ASSERT_TRUE(shard->Sync().ok());
  SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_forever = true;
  disk.SetFaults(faults);
  EXPECT_EQ(shard->Erase("removed", 0).code(), StatusCode::kStorageError);
  EXPECT_TRUE(shard->Stats().storage_failed);
  EXPECT_EQ(VersionOf(shard.get(), "kept"), 1);
  Put(shard.get(), "unlogged", 2);
  EXPECT_EQ(VersionOf(shard.get(), "unlogged"), 2);
  EXPECT_EQ(shard->Stats().wal_dropped_inserts, 1u);
  EXPECT_EQ(shard->Sync().code(), StatusCode::kStorageError);
  clock.Advance(1'100'000'000);
  shard->Turn();
  EXPECT_TRUE(shard->Stats().storage_failed) << "the disk is still broken";
  disk.SetFaults(SimDisk::Faults());
  clock.Advance(1'100'000'000);
  shard->Turn();
  EXPECT_FALSE(shard->Stats().storage_failed);
  EXPECT_TRUE(shard->Erase("removed", 0).ok());
  Put(shard.get(), "logged", 3);
  shard.reset();
  shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  EXPECT_EQ(VersionOf(shard.get(), "kept"), 1);
  EXPECT_EQ(VersionOf(shard.get(), "removed"), -1);
  EXPECT_EQ(VersionOf(shard.get(), "logged"), 3);
}

TEST(StorageFailure, SyncReportsOnceWhatWasLostAlthoughTheLogWorksAgain) {
  SimDisk disk;
  ManualClock clock;
  auto shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  Put(shard.get(), "kept", 1);
  ASSERT_TRUE(shard->Sync().ok());
  SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_forever = true;
  disk.SetFaults(faults);
  Put(shard.get(), "lost", 2);
  clock.Advance(60'000'000);
  shard->Turn();  // the write fails, and so does the next segment
  ASSERT_TRUE(shard->Stats().storage_failed);
  disk.SetFaults(SimDisk::Faults());
  clock.Advance(1'100'000'000);
  shard->Turn();
  ASSERT_FALSE(shard->Stats().storage_failed) << "the probe has reopened the log";
  Put(shard.get(), "later", 3);
  const Status lost = shard->Sync();
  EXPECT_EQ(lost.code(), StatusCode::kStorageError) << "\"lost\" was accepted and is not on the disk";
  EXPECT_NE(lost.message().find("1 entries"), std::string::npos) << lost.message();
  EXPECT_TRUE(shard->Sync().ok()) << "it was reported";
  shard.reset();
  disk.PowerCut();
  shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  EXPECT_EQ(VersionOf(shard.get(), "kept"), 1);
  EXPECT_EQ(VersionOf(shard.get(), "lost"), -1);
  EXPECT_EQ(VersionOf(shard.get(), "later"), 3) << "the sync that reported the loss made it durable all the same";
}

TEST(StorageFailure, AFailedSyncMovesEverythingToANewSegmentAndIsNotRepeated) {
  SimDisk disk;
  ManualClock clock;
  auto shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  for (uint32_t i = 0; i < 50; ++i) Put(shard.get(), std::to_string(i), i);
  clock.Advance(60'000'000);
  shard->Turn();  // written, not synced
  SimDisk::Faults faults;
  faults.fail_at = 1;
  disk.SetFaults(faults);
  EXPECT_TRUE(shard->Sync().ok()) << "the records were still in memory";
  EXPECT_EQ(shard->Stats().wal_segments, 1u) << "the failed segment held nothing acknowledged";
  SimDisk::Faults dead;
  dead.power_off_at = 1;
  disk.SetFaults(dead);
  shard.reset();
  disk.PowerCut();
  shard = LoggedShard::Open(SmallConfig("/data"), &disk, &clock, Inline()).value();
  for (uint32_t i = 0; i < 50; ++i) EXPECT_EQ(VersionOf(shard.get(), std::to_string(i)), static_cast<int>(i));
}

}  // namespace
}  // namespace sutra
