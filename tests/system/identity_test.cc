// Real engines with one model after another on the same data directory: what becomes of the caches left behind.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "engine/exit_code.h"
#include "tests/kit/wall_clock_jumps.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWalBytes = 1 << 20;

class OtherModels : public SystemTest {
 protected:
  // The engine's model from its next start on.
  void Use(int width, std::vector<std::string> further = {}) {
    engine_.options().args = {"--fake-width",        std::to_string(width),
                              "--wal-bytes-max",     std::to_string(kWalBytes),
                              "--wal-segment-bytes", "65536"};
    engine_.options().args.insert(engine_.options().args.end(), further.begin(), further.end());
  }
  // Serves one model and `texts` texts, and ends. RETURNS its directory.
  std::string ServeOnce(int width, int texts, std::vector<std::string> environment = {}) {
    Use(width);
    engine_.options().environment = std::move(environment);
    EXPECT_TRUE(engine_.Start());
    const ClientHandle client = Attached(engine_);
    const std::string path = engine_.data() + "/" + std::string(client.info().identity).substr(0, 16);
    for (int i = 0; i < texts; ++i) EXPECT_EQ(client.Embed("text " + std::to_string(i)).status, SUTRA_OK);
    EXPECT_EQ(engine_.Terminate().code, kExitClean);
    engine_.options().environment.clear();
    return path;
  }
  bool Await(const std::function<bool(const StatsSnapshot&)>& condition) { return engine_.WaitStats(condition); }
  bool Says(const std::string& words) const { return engine_.Log().find(words) != std::string::npos; }

  EngineProcess engine_;
};

TEST_F(OtherModels, AreNamedAndShownAndThoseThatNeverStoredAnythingAreRemoved) {
  const std::string full = ServeOnce(8, 3);
  const std::string empty = ServeOnce(16, 0);
  Use(24);
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(Await([](const StatsSnapshot& s) {
    return s.gauge(Gauge::kOtherIdentities) == 1 && s.gauge(Gauge::kIdentitiesRemoved) == 1;
  }));
  EXPECT_GE(engine_.Stats().gauge(Gauge::kOtherIdentitiesBytes), 2u * 65'536);
  EXPECT_TRUE(fs::exists(full + "/MODEL"));
  EXPECT_FALSE(fs::exists(empty));
  EXPECT_TRUE(Says("also holds the cache of model fake at " + full)) << engine_.Log();
  EXPECT_TRUE(Says("removed the cache of model fake at " + empty));
  EXPECT_EQ(engine_.Terminate().code, kExitClean);
  Use(8);
  ASSERT_TRUE(engine_.Start());
  EXPECT_TRUE(Attached(engine_).Embed("text 1").FromCache()) << "what is kept is whole";
}

TEST_F(OtherModels, ThatHaveExpiredAreRemovedOnceTheClockIsBelieved) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  WallClockJumps clock(engine_.directory() / "wall offset");
  clock.SetSeconds(-3 * 86'400);
  const std::string old = ServeOnce(8, 3, clock.Environment());
  const std::string fresh = ServeOnce(16, 3);
  Use(24);
  engine_.options().environment = {"SUTRA_CHECKPOINT=identity.clock_held:fail:2"};  // as if five minutes had gone by
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(Await([](const StatsSnapshot& s) { return s.gauge(Gauge::kIdentitiesRemoved) == 1; }));
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(fresh + "/MODEL"));
  EXPECT_TRUE(Says("its last entry expired 2 days ago") || Says("its last entry expired 48 h ago")) << engine_.Log();
}

TEST_F(OtherModels, ThatTakeUpTooMuchGoTheLongestUnusedFirst) {
  const std::string first = ServeOnce(8, 3), second = ServeOnce(16, 3);
  Use(24, {"--data-bytes-max", std::to_string(kWalBytes)});
  for (const std::string& path : {first, second}) {  // one of them fits beside the served one
    WriteFile(path + "/wal-0000000000000001.log.quarantined", std::string(kWalBytes / 2, 'x'));
  }
  const timespec old[2] = {{1'700'000'000, 0}, {1'700'000'000, 0}};
  for (const auto& entry : fs::directory_iterator(second)) {
    ASSERT_EQ(utimensat(AT_FDCWD, entry.path().c_str(), old, 0), 0);
  }
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(Await([](const StatsSnapshot& s) { return s.gauge(Gauge::kIdentitiesRemoved) == 1; }));
  EXPECT_TRUE(fs::exists(first + "/MODEL"));
  EXPECT_FALSE(fs::exists(second));
  EXPECT_TRUE(Says("raise --data-bytes-max")) << engine_.Log();
}

TEST_F(OtherModels, AKillInTheMiddleOfARemovalIsEndedByTheNextEngineAndTheModelStartsEmpty) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  for (const std::string point : {"identity.renamed:kill", "identity.unlinked:kill", "identity.unlinked:kill:2"}) {
    const std::string old = ServeOnce(8, 3);
    Use(24, {"--data-bytes-max", std::to_string(kWalBytes)});
    WriteFile(old + "/wal-0000000000000001.log.quarantined", std::string(kWalBytes, 'x'));
    engine_.options().environment = {"SUTRA_CHECKPOINT=" + point};
    ASSERT_TRUE(engine_.Start());
    EXPECT_FALSE(engine_.WaitEnd().exited) << "the canary: it was killed there";
    EXPECT_FALSE(fs::exists(old));
    EXPECT_TRUE(fs::exists(old + ".removing"));
    Use(8, {"--strict-recovery"});  // the very model that was being removed
    engine_.options().environment.clear();
    ASSERT_TRUE(engine_.Start());
    EXPECT_FALSE(Attached(engine_).Embed("text 1").FromCache());
    ASSERT_TRUE(Await([&](const StatsSnapshot&) { return !fs::exists(old + ".removing"); }));
    EXPECT_EQ(engine_.Terminate().code, kExitClean);
    fs::remove_all(engine_.data());
  }
}

TEST_F(OtherModels, AHostileTreeLosesNothingOutsideAndNothingThatIsNotOurs) {
  const TempDir elsewhere;
  elsewhere.Write("wal-0000000000000001.log", "precious");
  const std::string full = ServeOnce(8, 3);
  WriteFile(full + "/thesis.txt", std::string(2 * kWalBytes, 'x'));
  fs::create_directory_symlink(elsewhere.path(), engine_.data() + "/0123456789abcdef");
  fs::create_directory_symlink(elsewhere.path(), engine_.data() + "/0123456789abcdef.removing");
  ASSERT_EQ(mkfifo((engine_.data() + "/fedcba9876543210").c_str(), 0600), 0);
  fs::create_directory(engine_.data() + "/1111111111111111");
  ASSERT_EQ(mkfifo((engine_.data() + "/1111111111111111/MODEL").c_str(), 0600), 0);
  Use(24, {"--data-bytes-max", std::to_string(kWalBytes)});
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(Await([](const StatsSnapshot& s) { return s.gauge(Gauge::kOtherIdentities) == 4; }));
  ASSERT_TRUE(Await([&](const StatsSnapshot&) { return Says("none of them may be removed"); })) << engine_.Log();
  EXPECT_TRUE(fs::exists(elsewhere / "wal-0000000000000001.log"));
  EXPECT_TRUE(fs::exists(full + "/MODEL") && fs::exists(full + "/thesis.txt"));
  EXPECT_TRUE(Says("thesis.txt', which no engine made there; move it away")) << engine_.Log();
  EXPECT_TRUE(Says("0123456789abcdef is no directory"));
  EXPECT_EQ(engine_.Stats().gauge(Gauge::kIdentitiesRemoved), 0u);
  ExpectVector(Attached(engine_).Embed("served meanwhile"), "served meanwhile");
}

TEST_F(OtherModels, AStandbyLeavesThemAloneUntilItServes) {
  const std::string empty = ServeOnce(16, 0);
  Use(24);
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(Await([](const StatsSnapshot& s) { return s.gauge(Gauge::kIdentitiesRemoved) == 1; }));
  fs::create_directory(empty);
  EngineProcess standby({.args = engine_.options().args,
                         .environment = {},
                         .uid = {},
                         .data = engine_.data(),
                         .socket = engine_.socket()});
  standby.options().args.push_back("--standby");
  standby.Launch();
  ASSERT_TRUE(Await([](const StatsSnapshot& s) { return s.gauge(Gauge::kStandbys) == 1; }));
  EXPECT_TRUE(fs::exists(empty));
  engine_.Kill();
  ASSERT_TRUE(standby.WaitStats([&](const StatsSnapshot&) { return !fs::exists(empty); }));
  EXPECT_EQ(standby.Terminate().code, kExitClean);
}

}  // namespace
}  // namespace sutra::test
