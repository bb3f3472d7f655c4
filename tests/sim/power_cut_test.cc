// Random schedules of changes, faults, kills and power cuts on the simulated disk, each checked against an oracle:
// after recovery every entry is one of {the last that was durable, any attempted after it}. Promises P1, P2, P3, P5.
//   SUTRA_SEED=n runs one schedule; SUTRA_SIM_RUNS=n sets how many are run.
// The canary runs the same schedules on a disk whose sync does nothing and must be caught.
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim_disk.h"

namespace sutra::sim {
namespace {

constexpr int kKeys = 24;

class Schedule {
 public:
  Schedule(uint64_t seed, SimDisk* disk) : random_(seed), disk_(disk) {}

  // An empty string, or the failure.
  std::string Run() {
    if (std::string error = Open(); !error.empty()) return error;
    const uint64_t rounds = 2 + Random(4);
    for (uint64_t round = 0; round < rounds && failure_.empty(); ++round) {
      ArmFaults();
      const uint64_t steps = 5 + Random(120);
      for (uint64_t step = 0; step < steps; ++step) Step();
      Crash();
    }
    shard_.reset();
    return failure_;
  }

 private:
  uint64_t Random(uint64_t below) { return std::uniform_int_distribution<uint64_t>(0, below - 1)(random_); }

  std::string Open() {
    CacheConfig config = test::SmallConfig("/data");
    config.wal_bytes_max = 512 << 10;
    if (Random(4) == 0) config.policy = Random(2) == 0 ? DurabilityPolicy::kGroup : DurabilityPolicy::kSync;
    if (verbose_) config.log = [](LogLevel, const std::string& line) { std::printf("  %s\n", line.c_str()); };
    Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, disk_, &clock_, test::Inline());
    if (!shard.ok()) return "open: " + shard.status().message();
    shard_ = std::move(shard).value();
    oracle_.Attach(shard_.get());
    return "";
  }

  void ArmFaults() {
    SimDisk::Faults faults;
    if (Random(2) == 0) faults.power_off_at = 1 + Random(150);
    if (Random(3) == 0) faults.fail_at = 1 + Random(120);
    faults.fail_errno = Random(2) == 0 ? EIO : ENOSPC;
    faults.fail_forever = Random(4) == 0;
    if (Random(4) == 0) faults.noise_percent = 10;
    if (Random(4) == 0) faults.short_at = 1 + Random(60);
    const size_t lengths[] = {0, 1, 511, 512, 4095, 4096, 5000};
    faults.short_bytes = lengths[Random(7)];
    disk_->SetFaults(faults);
    disk_->SetSlowSyncs(Random(2) == 0 ? 95 : 0);  // changes are written, and the power goes, while a sync runs
  }

  void Step() {
    const std::string text = "key " + std::to_string(Random(kKeys)) + std::string(Random(2) * 100, 'x');
    const uint64_t kind = Random(20);
    if (kind < 11) {
      oracle_.Put(text);
    } else if (kind < 15) {
      oracle_.Erase(text);
    } else if (kind < 17) {
      oracle_.Sync();
    } else {
      oracle_.Advance(kind == 17 ? 60 : kind == 18 ? 5 : 1100);
    }
    Fail(oracle_.CheckRunning(text));
  }

  // The dead engine's destructor must not do what a dead engine cannot.
  void Die() {
    SimDisk::Faults dead;
    dead.power_off_at = 1;
    if (shard_ != nullptr) disk_->SetFaults(dead);
    shard_.reset();
  }

  void Crash() {
    const bool power_cut = Random(3) != 0;
    if (Random(4) == 0) {  // a clean stop first; its last syncs may fail like any other
      oracle_.Sync();
      shard_.reset();
    }
    Die();
    power_cut ? disk_->PowerCut() : disk_->ProcessKill();
    while (Random(2) == 0) {  // the power fails again during recovery
      SimDisk::Faults again;
      again.power_off_at = 1 + Random(40);
      disk_->SetFaults(again);
      if (Open().empty()) Die();
      power_cut ? disk_->PowerCut() : disk_->ProcessKill();
    }
    if (std::string error = Open(); !error.empty()) return Fail(error);
    const CacheStats stats = shard_->Stats();
    if (stats.quarantined_segments != 0 || stats.recovered_dropped != 0) Fail("damage reported without damage");
    Fail(oracle_.CheckRecovered(power_cut));
  }

  void Fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;  // "" means no failure
  }

  const bool verbose_ = test::NumberFromEnvironment("SUTRA_SEED", 0) != 0;
  std::mt19937_64 random_;
  SimDisk* const disk_;
  ManualClock clock_;
  std::unique_ptr<LoggedShard> shard_;
  Oracle oracle_{&clock_};
  std::string failure_;
};

uint64_t Runs() {
#if defined(SUTRA_SANITIZE)
  return test::NumberFromEnvironment("SUTRA_SIM_RUNS", 150);
#else
  return test::NumberFromEnvironment("SUTRA_SIM_RUNS", 2000);
#endif
}

TEST(PowerCut, EveryScheduleKeepsWhatWasDurable) {
  const uint64_t only = test::NumberFromEnvironment("SUTRA_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : Runs();
  for (uint64_t seed = first; seed <= last; ++seed) {
    SimDisk disk(seed);
    const std::string failure = Schedule(seed, &disk).Run();
    ASSERT_EQ(failure, "") << "SUTRA_SEED=" << seed;
  }
  std::printf("power cut schedules: %llu (seeds %llu..%llu)\n", static_cast<unsigned long long>(last - first + 1),
              static_cast<unsigned long long>(first), static_cast<unsigned long long>(last));
}

// Reports that it synced, but does not.
class LyingDisk final : public SimDisk {
 public:
  using SimDisk::SimDisk;

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    Operation unsynced = operation;
    unsynced.then_sync = false;
    SimDisk::RawSubmit(unsynced);
    lie_ = operation.then_sync;
  }
  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_) {
    Completion completion = SimDisk::RawReap();
    if (lie_ && completion.write >= 0) completion.sync = 0;
    return completion;
  }
  int RawSync(FileHandle) override { return 0; }

 private:
  bool lie_ = false;
};

TEST(PowerCut, CanaryADiskThatDoesNotSyncIsCaught) {
  int caught = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    LyingDisk disk(seed);
    if (!Schedule(seed, &disk).Run().empty()) ++caught;
  }
  EXPECT_GT(caught, 0);
}

// Makes directory changes durable only by chance.
class ForgetfulDirectoryDisk final : public SimDisk {
 public:
  using SimDisk::SimDisk;
  Status SyncDirectory(const std::string&) override { return {}; }
};

TEST(PowerCut, CanaryADirectoryThatIsNotSyncedIsCaught) {
  int caught = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    ForgetfulDirectoryDisk disk(seed);
    if (!Schedule(seed, &disk).Run().empty()) ++caught;
  }
  EXPECT_GT(caught, 0);
}

}  // namespace
}  // namespace sutra::sim
