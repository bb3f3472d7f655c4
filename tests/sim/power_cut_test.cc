// A short run of the schedules with power cuts (power_cuts.h; promises P1, P2, P3, P5), and the canaries that show that
// it sees disks which do not do what they report.
//   SUTRA_SEED=n runs one schedule; SUTRA_SIM_RUNS=n sets how many are run.
#include "tests/sim/power_cuts.h"

#include <gtest/gtest.h>

#include "tests/kit/by_build.h"
#include "tests/kit/seed.h"
#include "tests/sim/lying_disks.h"

namespace sutra::sim {
namespace {

constexpr uint64_t kRunsDefault = test::ByBuild(2000, 100, 20);

void RunAndCheck(uint64_t full_percent, uint64_t runs) {
  const uint64_t only = test::NumberFromEnvironment("SUTRA_SEED", 0);
  PowerCutOptions options;
  options.verbose = only != 0;
  options.end_at_first = true;
  options.full_percent = full_percent;
  options.seed = only != 0 ? only : 1;
  options.schedules = only != 0 ? 1 : runs;
  options.every = 16;
  const PowerCutTotals totals = RunPowerCuts(options);
  EXPECT_EQ(totals.failure, "") << "SUTRA_SEED=" << totals.failed_seed;
  EXPECT_TRUE(totals.good());
  std::printf(
      "power cut schedules: %llu, %llu power cuts (%llu more during a start), %llu kills, %llu segments read by their "
      "index, %llu entries left unread, %llu ms\n",
      static_cast<unsigned long long>(totals.schedules), static_cast<unsigned long long>(totals.cuts),
      static_cast<unsigned long long>(totals.second_cuts), static_cast<unsigned long long>(totals.kills),
      static_cast<unsigned long long>(totals.indexed), static_cast<unsigned long long>(totals.unread),
      static_cast<unsigned long long>(totals.ms));
  if (totals.schedules < 50) return;
  EXPECT_GT(totals.removals, totals.schedules);
  EXPECT_GT(totals.many_removals, totals.schedules / 4);
  EXPECT_GT(totals.compactions, totals.schedules / 20);
  EXPECT_GT(totals.cuts, 10 * totals.schedules);
  EXPECT_GT(totals.written_over, totals.schedules / 4);
  EXPECT_GE(totals.evictions, full_percent * totals.schedules / 100);
  EXPECT_GT(totals.indexed, totals.schedules);
  EXPECT_GT(totals.unread, totals.schedules);
}

uint64_t Runs() { return test::NumberFromEnvironment("SUTRA_SIM_RUNS", kRunsDefault); }

TEST(PowerCut, EveryScheduleKeepsWhatWasDurable) { RunAndCheck(0, Runs()); }
TEST(PowerCut, EveryScheduleKeepsWhatWasDurableInAFullStore) { RunAndCheck(100, Runs() / 4); }

// A few schedules with a cut at each single operation.
TEST(PowerCut, AtEveryOperationOfASchedule) {
  PowerCutOptions options;
  options.end_at_first = true;
  options.schedules = test::ByBuild(50, 2, 1);
  options.seed = 1'000'000;
  options.every = 1;
  options.full_percent = 0;
  const PowerCutTotals totals = RunPowerCuts(options);
  EXPECT_EQ(totals.failure, "") << "seed " << totals.failed_seed;
  if (options.schedules < 10) return;
  EXPECT_GT(totals.indexed, 0u);
  EXPECT_GT(totals.unread, 0u);
}

template <typename Disk>
PowerCutTotals RunOn(uint64_t every) {
  PowerCutOptions options;
  options.schedules = 40;
  options.every = every;
  options.make_disk = [](uint64_t seed) { return std::make_unique<Disk>(seed); };
  return RunPowerCuts(options);
}

TEST(PowerCut, CanaryADiskThatDoesNotSyncIsCaught) {
  EXPECT_GT(RunOn<LyingDisk>(0).lost, 0u);
  EXPECT_GT(RunOn<LyingDisk>(8).lost, 0u);
}

TEST(PowerCut, CanaryADirectoryThatIsNotSyncedIsCaught) {
  EXPECT_FALSE(RunOn<ForgetfulDirectoryDisk>(0).good());
  EXPECT_FALSE(RunOn<ForgetfulDirectoryDisk>(8).good());
}

}  // namespace
}  // namespace sutra::sim
