// Seeded chaos over real processes, and the canaries that show that its checker can fail.
// SUTRA_SEED repeats a run's choices; SUTRA_CRASH_ROUNDS makes it long (tests/README.md).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "shm/base/time.h"
#include "tests/crash/chaos.h"
#include "tests/kit/seed.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

constexpr int kRoundsDefault = 15;

int RoundsAsked() {
  const char* text = std::getenv("SUTRA_CRASH_ROUNDS");
  return text != nullptr && *text != '\0' ? std::atoi(text) : kRoundsDefault;
}

ChaosTotals RunChaos(const ChaosOptions& options) {
  // The waits inside detect a round that hangs; this ends what they cannot.
  const Watchdog watchdog(std::chrono::seconds(100 + 20 * std::max(0, options.rounds - kRoundsDefault)));
  const ChaosTotals totals = Chaos(options).Run();
  std::printf("%d rounds, seed %llu: %s\n", options.rounds, static_cast<unsigned long long>(options.seed),
              ToText(totals).c_str());
  return totals;
}

TEST(Chaos, EveryAnswerIsRightAndNothingWrittenIsLost) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked();
  const ChaosTotals totals = RunChaos(options);
  EXPECT_EQ(totals.failure, "");
  EXPECT_GT(totals.acknowledged, 0u);
}

TEST(Chaos, PlainSystemCallsLoseNothingEither) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.engine_args = {"--disk-io", "posix"};
  EXPECT_EQ(RunChaos(options).failure, "");
}

// Small segments and a small log: it turns over many times, and kills meet recycling.
TEST(Chaos, ALogOfSmallSegmentsLosesNothingEither) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.texts = 400;
  options.engine_args = {"--wal-segment-bytes", "65536", "--wal-bytes-max", "8388608"};
  EXPECT_EQ(RunChaos(options).failure, "");
}

TEST(Chaos, JumpsOfTheWallClockLoseNothing) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.clock_jumps = true;
  EXPECT_EQ(RunChaos(options).failure, "");
}

TEST(Chaos, ARemovedSocketIsThereAgain) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.removed_socket = true;
  EXPECT_EQ(RunChaos(options).failure, "");
}

// Sixteen segments of disk for a log that may have 64, and all texts need five.
TEST(Chaos, AFullDiskEndsNoEngineAndTheLogGoesOn) {
  const TempDir directory;
  SmallDisk disk(directory / "data", "16m");
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.texts = 400;
  options.data_disk = &disk;
  options.data = directory / "data";
  EXPECT_EQ(RunChaos(options).failure, "");
}

TEST(Chaos, AFullDevShmIsSaidAtTheStartAndEndsNothing) {
  SmallDisk disk("/dev/shm", "1m");
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.shm_disk = &disk;
  EXPECT_EQ(RunChaos(options).failure, "");
}

// Many rounds, so that one of them verifies, whatever the seed is.
TEST(Chaos, CanaryAnEngineThatKeepsNothingIsFound) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 40;
  options.engine_args = {"--durability", "none"};
  EXPECT_NE(RunChaos(options).failure.find("lost by a kill"), std::string::npos);
}

TEST(Chaos, CanaryAWrongVectorIsFound) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 40;
  options.corrupt_every = 50;
  EXPECT_NE(RunChaos(options).failure.find("the vector of another text"), std::string::npos);
}

TEST(Chaos, CanaryAWrongVectorOfAnEventLoopIsFound) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 40;
  options.corrupt_polled_every = 50;
  EXPECT_NE(RunChaos(options).failure.find("the vector of another text"), std::string::npos);
}

TEST(Chaos, CanaryEntriesThatExpireAreMissed) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 40;
  options.clock_jumps = true;
  options.engine_args = {"--ttl-s", "1"};
  EXPECT_NE(RunChaos(options).failure.find("lost by a kill"), std::string::npos);
}

TEST(Chaos, CanaryASocketThatStaysAwayIsFound) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 80;
  options.removed_socket = options.socket_path_taken = true;
  options.wait_ms = 3000;
  EXPECT_NE(RunChaos(options).failure.find("nobody can attach any more"), std::string::npos);
}

// One segment has room: what is full stays full.
TEST(Chaos, CanaryALogThatStaysFailedIsFound) {
  const TempDir directory;
  SmallDisk disk(directory / "data", "1500k");
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = 80;
  options.data_disk = &disk;
  options.data = directory / "data";
  options.disk_stays_full = true;
  options.wait_ms = 3000;
  EXPECT_NE(RunChaos(options).failure.find("although there is room again"), std::string::npos);
}

TEST(Chaos, CanaryAnEngineThatServesWithoutSharedMemoryIsFound) {
  SmallDisk disk("/dev/shm", "1m");
  if (!disk.mounted()) GTEST_SKIP() << kCannotMount;
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.shm_disk = &disk;
  options.shm_stays_empty = true;
  EXPECT_NE(RunChaos(options).failure.find("although /dev/shm is full"), std::string::npos);
}

TEST(WallClockJumps, MoveTheClockOfAProcessAndNoOther) {
  const TempDir directory;
  WallClockJumps clock(directory / "offset");
  const auto seconds = [&clock] {
    SpawnOptions spawn;
    spawn.args = {"/bin/date", "+%s"};
    spawn.environment = clock.Environment();
    return std::atoll(RunToEnd(spawn, kWaitMs).output.c_str());
  };
  const auto true_seconds = [] { return static_cast<long long>(WallNs() / kNsPerSecond); };
  EXPECT_LT(std::llabs(seconds() - true_seconds()), 1000);
  clock.SetSeconds(-86'400);
  EXPECT_LT(std::llabs(seconds() + 86'400 - true_seconds()), 1000);
}

TEST(ChaosOracle, ATornLastLineIsNotAnAnswer) {
  const TempDir directory;
  WriteFile(directory / "oracle", "I 0\nA 0 7\nI 1\n\nI 2\nA 2 9\nA 1 1");
  EXPECT_EQ(AcknowledgedIn(directory / "oracle"), (std::vector<Acknowledged>{{0, 7}, {2, 9}}));
}

}  // namespace
}  // namespace sutra::test
