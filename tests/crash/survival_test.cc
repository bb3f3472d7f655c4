// A short run of the chaos that must be survived, and the canaries that show that it sees what goes wrong.
// SUTRA_SEED repeats a run's choices; SUTRA_CHAOS_KILLS makes it long (tests/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/kit/child_process.h"
#include "tests/kit/engine_process.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

// Shorter than ctest's limit, which shows nothing of a run that hangs.
constexpr int kShortRunMs = 100'000;

// The script, which brings the clients in Rust, or the program itself.
nlohmann::json RunSurvival(const std::vector<std::string>& program, uint64_t kills, uint64_t seed, int timeout_ms,
                           int* exit_code) {
  SpawnOptions spawn;
  spawn.args = program;
  spawn.args.insert(spawn.args.end(), {"--json", "--kills", std::to_string(kills), "--seed", std::to_string(seed)});
  const Finished finished = RunToEnd(spawn, timeout_ms);
  *exit_code = finished.status.exited ? finished.status.code : -1;
  nlohmann::json json = nlohmann::json::parse(finished.output, nullptr, false);
  EXPECT_TRUE(json.is_object()) << ToText(finished.status) << "\n" << finished.output << finished.errors;
  std::printf("%s", finished.output.c_str());
  return json.is_object() ? json : nlohmann::json::object();
}

TEST(Survival, NothingIsLostWrongWedgedOrLeaked) {
  const uint64_t kills = NumberFromEnvironment("SUTRA_CHAOS_KILLS", 150);
  int exit_code = -1;
  const int timeout_ms = std::max(kShortRunMs, static_cast<int>(std::min<uint64_t>(kills, 100'000)) * 600);
  // The programs of this build, sanitized or not: the script would take those of the release build.
  const std::vector<std::string> program = {"/usr/bin/env", "SUTRA_BUILD_DIR=" SUTRA_CHAOS_BUILD, SUTRA_CHAOS_SCRIPT};
  const nlohmann::json json = RunSurvival(program, kills, FreshTestSeed(), timeout_ms, &exit_code);
  EXPECT_EQ(exit_code, 0);
  for (const char* key : {"lost", "wrong", "wedged", "leaked", "ended"}) EXPECT_EQ(json.value(key, -1), 0) << key;
  EXPECT_GE(json.value("kills", uint64_t{0}), kills);
  EXPECT_GT(json.value("answers", uint64_t{0}), kills);
  EXPECT_GT(json.value("takeovers", 0), 0);
}

// It is over with the second kill, that of a standby, which this seed draws at once: no client may be attached by then.
TEST(Survival, AnEndWhileTheClientsBeginLetsThemBeginFirst) {
  int exit_code = -1;
  const nlohmann::json json = RunSurvival({SUTRA_CHAOS_PROGRAM}, 2, 4, kShortRunMs, &exit_code);
  EXPECT_EQ(exit_code, 0) << json.dump();
}

// What is seen in the middle of a run ends it. How many kills that takes depends on how slow the clients are.
constexpr uint64_t kUntilSeen = 1'000'000;

// At least one failure of the expected kind, and the exit code says so.
void ExpectSeen(const char* key, uint64_t kills, const std::vector<std::string>& options) {
  int exit_code = -1;
  std::vector<std::string> program = {SUTRA_CHAOS_PROGRAM, "--end-at-first"};
  program.insert(program.end(), options.begin(), options.end());
  const nlohmann::json json = RunSurvival(program, kills, FreshTestSeed(), kShortRunMs, &exit_code);
  EXPECT_EQ(exit_code, 1);
  EXPECT_GT(json.value(key, 0), 0) << json.dump();
}

TEST(Survival, CanaryADamagedVectorIsWrong) { ExpectSeen("wrong", kUntilSeen, {"--corrupt", "50"}); }
TEST(Survival, CanaryAClientThatDoesNotGoOnAtTheNextEngineLoses) { ExpectSeen("lost", kUntilSeen, {"--fail-fast"}); }
TEST(Survival, CanaryAnEngineThatNeverComesBackLoses) {
  ExpectSeen("lost", kUntilSeen, {"--never-restart", "--deadline-ms", "2000"});
}
TEST(Survival, CanaryAnEngineThatKeepsNothingLoses) { ExpectSeen("lost", kUntilSeen, {"--engine-forgets"}); }
TEST(Survival, CanaryALostWakeUpWedges) {
  ExpectSeen("wedged", kUntilSeen, {"--deaf-after", "100", "--wedged-ms", "3000"});
}
TEST(Survival, CanaryADescriptorThatAClientKeepsIsLeaked) { ExpectSeen("leaked", 60, {"--client-leak", "1"}); }
TEST(Survival, CanaryALaneThatStaysIsLeaked) { ExpectSeen("leaked", 5, {"--lane-leak"}); }

}  // namespace
}  // namespace sutra::test
