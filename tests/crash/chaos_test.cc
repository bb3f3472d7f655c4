// Seeded chaos over real processes, and the canaries that show that its checker can fail.
// SUTRA_SEED repeats a run's choices; SUTRA_CRASH_ROUNDS makes it long (tests/README.md).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

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

// Small segments: the log turns over many times, and kills meet recycling.
TEST(Chaos, ALogOfSmallSegmentsLosesNothingEither) {
  ChaosOptions options;
  options.seed = FreshTestSeed();
  options.rounds = RoundsAsked() / 2;
  options.engine_args = {"--wal-segment-bytes", "65536"};
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

TEST(ChaosOracle, ATornLastLineIsNotAnAnswer) {
  const TempDir directory;
  WriteFile(directory / "oracle", "I 0\nA 0 7\nI 1\n\nI 2\nA 2 9\nA 1 1");
  EXPECT_EQ(AcknowledgedIn(directory / "oracle"), (std::vector<Acknowledged>{{0, 7}, {2, 9}}));
}

}  // namespace
}  // namespace sutra::test
