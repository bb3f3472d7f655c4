// A warm second engine: it waits without touching the first one's things, and serves when that one is gone.
#include <algorithm>
#include <filesystem>

#include "shm/layout.h"
#include "shm/stats/labels.h"
#include "tests/kit/raw_client.h"
#include "tests/kit/remove_live.h"
#include "tests/system/standby_fixture.h"

namespace sutra::test {
namespace {

namespace fs = std::filesystem;

// Everything below a directory: names, inodes and sizes.
std::string Listing(const std::string& directory) {
  std::vector<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    struct stat info = {};
    if (lstat(entry.path().c_str(), &info) != 0) continue;
    const bool log = S_ISREG(info.st_mode) && entry.path().extension() == ".log";
    lines.push_back(entry.path().string() + " " + std::to_string(info.st_ino) + " " +
                    (log ? "" : std::to_string(info.st_size)));
  }
  std::sort(lines.begin(), lines.end());
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

TEST_F(StandbyTest, ServesWhenTheEngineIsKilledAndFindsWhatThatOneHadWritten) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const ClientHandle client = Attached(first);
  ExpectVector(client.Embed("before"), "before");
  ASSERT_TRUE(first.WaitWritten());
  const uint64_t generation = first.Stats().engine_generation;

  const uint64_t killed_ns = MonotonicNs();
  first.Kill();
  const Reply reply = client.Embed("after");
  std::printf("%llu ms from the kill to the first answer\n",
              static_cast<unsigned long long>((MonotonicNs() - killed_ns) / kNsPerMs));
  ExpectVector(reply, "after");
  EXPECT_TRUE(WaitLog(*standby, kTookOver));
  ASSERT_TRUE(WaitShard(*standby, kShardOpen));
  EXPECT_NE(standby->Stats().engine_generation, generation);
  EXPECT_EQ(standby->Stats().gauge(Gauge::kPid), static_cast<uint64_t>(standby->process().pid()));
  EXPECT_TRUE(client.Embed("before").FromCache()) << "recovered";
  EXPECT_TRUE(client.Embed("after").FromCache()) << "waited for the shard, if it was not open";
  const ExitStatus status = standby->Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
}

// The drain comes while the shard is still being opened, or just after: either way what was computed is in it.
TEST_F(StandbyTest, ThatIsStoppedRightAfterItTookOverStoresWhatItComputed) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const ClientHandle client = Attached(first);
  static_cast<void>(client.EmbedBatch(NumberedTexts("before", 5000)));
  ASSERT_TRUE(first.WaitWritten());
  first.Kill();
  ExpectVector(client.Embed("meanwhile"), "meanwhile");
  const ExitStatus status = standby->Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  ASSERT_TRUE(first.Start());
  EXPECT_TRUE(client.Embed("meanwhile").FromCache());
  EXPECT_TRUE(client.Embed("before 4999").FromCache());
}

// The first engine went on without its data directory; so does the next one, with an empty cache.
TEST_F(StandbyTest, MakesADataDirectoryAgainThatWasRemovedWhileItWaited) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const ClientHandle client = Attached(first);
  RemoveLive(first.data());
  first.Kill();
  ExpectVector(client.Embed("after"), "after");
  EXPECT_TRUE(WaitLog(*standby, kTookOver));
  ASSERT_TRUE(WaitShard(*standby, kShardOpen));
  EXPECT_TRUE(client.Embed("after").FromCache());
}

TEST_F(StandbyTest, ThatIsStoppedWhileItWaitsLeavesNothing) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const ClientHandle client = Attached(first);
  ExpectVector(client.Embed("before"), "before");
  ASSERT_TRUE(first.WaitWritten());
  ASSERT_TRUE(first.WaitStats([](const StatsSnapshot& s) { return s.gauge("wal_oldest_unsynced_us") == 0; }, 2));
  const std::string files = Listing(first.directory().path());
  const std::string segment = ReadFile(first.stats_file()).substr(0, 256);
  const auto standby = StandbyOf(first);
  EXPECT_EQ(Listing(first.directory().path()), files);
  const ExitStatus status = standby->Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  EXPECT_EQ(Listing(first.directory().path()), files);
  EXPECT_EQ(ReadFile(first.stats_file()).substr(0, 256), segment);
  ExpectVector(client.Embed("still the first one"), "still the first one");
}

// It would have locked another directory; that one goes, too.
TEST_F(StandbyTest, WithAnotherDataDirectoryLeavesNothingThereEither) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const std::string other = first.directory() / "other/data";
  EngineOptions options;
  options.socket = first.socket();
  options.args = {"--standby", "--data", other};
  EngineProcess standby(options);
  standby.Launch();
  ASSERT_TRUE(WaitLog(standby, kWaits));
  const ExitStatus status = standby.Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  EXPECT_FALSE(fs::exists(first.directory() / "other"));
}

TEST_F(StandbyTest, WithoutAnEngineSimplyIsTheEngine) {
  EngineOptions options;
  options.args = {"--standby"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  ExpectVector(Attached(engine).Embed("alone"), "alone");
  EXPECT_EQ(CountInLog(engine, kWaits), 0u);
  const ExitStatus status = engine.Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
}

TEST_F(StandbyTest, OfSeveralOneServesAndTheOthersGoOnWaiting) {
  std::vector<std::unique_ptr<EngineProcess>> engines;
  engines.push_back(std::make_unique<EngineProcess>());
  ASSERT_TRUE(engines[0]->Start());
  for (int i = 0; i < 3; ++i) engines.push_back(StandbyOf(*engines[0]));
  EXPECT_TRUE(engines[0]->WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kStandbysReady) == 3; }));
  const ClientHandle client = Attached(*engines[0]);
  EngineProcess* serving = engines[0].get();
  for (size_t takeovers = 1; takeovers <= 3; ++takeovers) {
    serving->Kill();
    const std::string text = "after kill " + std::to_string(takeovers);
    ExpectVector(client.Embed(text), text);
    size_t took_over = 0, running = 0;
    for (const auto& engine : engines) {
      running += engine->running();
      if (CountInLog(*engine, kTookOver) == 0) continue;
      ++took_over;
      if (engine->running()) serving = engine.get();
    }
    EXPECT_EQ(took_over, takeovers);
    EXPECT_EQ(running, 4 - takeovers);
    EXPECT_TRUE(serving->WaitStats([&](const StatsSnapshot& s) {
      return s.gauge(Gauge::kStandbysReady) == 3 - takeovers;
    })) << "those that still wait register with the new one";
  }
}

// Nobody would serve after a hand-over to it.
TEST_F(StandbyTest, ThatIsStoppedDoesNotCountAsReadyUntilItGoesOn) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const auto wait_ready = [&first](uint64_t ready) {
    return first.WaitStats([ready](const StatsSnapshot& now) {
      return now.gauge(Gauge::kStandbys) == 1 && now.gauge(Gauge::kStandbysReady) == ready;
    });
  };
  ASSERT_TRUE(wait_ready(1));
  standby->process().Stop();
  EXPECT_TRUE(wait_ready(0));
  const Finished refused = RunToEnd({.args = {EngineProgram(), "--hand-over", first.socket()}}, kWaitMs);
  EXPECT_TRUE(refused.status.exited && refused.status.code == kExitRefused) << ToText(refused.status);
  EXPECT_NE(refused.errors.find("is stopped, or hangs"), std::string::npos) << refused.errors;
  standby->process().Continue();
  EXPECT_TRUE(wait_ready(1));
  EXPECT_EQ(RunToEnd({.args = {EngineProgram(), "--hand-over", first.socket()}}, kWaitMs).status.code, kExitClean);
}

TEST_F(StandbyTest, ThatWouldServeAnotherModelDoesNotWait) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const std::string identity = first.Stats().identity;
  const auto other = Beside(first, {"--standby", "--fake-width", "24"});
  other->Launch();
  const ExitStatus status = other->WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitOtherModel) << ToText(status);
  EXPECT_EQ(CountInLog(*other, identity), 1u) << other->Log();
  EXPECT_EQ(CountInLog(*other, kWaits), 0u);
  ExpectVector(Attached(first).Embed("undisturbed"), "undisturbed");
}

TEST_F(StandbyTest, ThatWouldServeAnotherModelDoesNotWaitForAStoppedEngineEither) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  first.process().Stop();
  const auto other = Beside(first, {"--standby", "--fake-width", "24"});
  other->Launch();
  const ExitStatus status = other->WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitOtherModel) << ToText(status);
  first.process().Continue();
}

// Somebody else was faster, and serves another model now.
TEST_F(StandbyTest, DoesNotGoOnWaitingForAnEngineOfAnotherModel) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  standby->process().Stop();  // so that the other one gets the locks
  first.Kill();
  const auto other = Beside(first, {"--fake-width", "24"});
  ASSERT_TRUE(other->Start());
  standby->process().Continue();
  const ExitStatus status = standby->WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitOtherModel) << ToText(status);
  EXPECT_TRUE(other->running());
}

TEST_F(StandbyTest, WaitsForAStoppedEngine) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  first.process().Stop();
  const auto standby = StandbyOf(first);
  first.process().Continue();
  ExpectVector(Attached(first).Embed("it was only stopped"), "it was only stopped");
  EXPECT_EQ(CountInLog(*standby, kTookOver), 0u);
}

// P: a shard that cannot be opened costs the cache, not the service.
TEST_F(StandbyTest, ServesWithoutAShardThatCannotBeOpenedAndSaysSo) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const std::string shard = first.data() + "/" + first.Stats().identity.substr(0, 16);
  ASSERT_TRUE(fs::exists(shard + "/MODEL"));
  WriteFile(shard + "/MODEL", "identity of another model\nwidth 3\nname other\n");
  const ClientHandle client = Attached(first);
  first.Kill();
  for (int i = 0; i < 3; ++i) {
    const Reply reply = client.Embed("computed each time");
    ExpectVector(reply, "computed each time");
    EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
  }
  ASSERT_TRUE(WaitShard(*standby, kShardFailed));
  EXPECT_EQ(standby->Stats().gauge(Gauge::kStorageFailed), 1u);
  EXPECT_TRUE(WaitLog(*standby, "the cache cannot be opened"));
  const ExitStatus status = standby->Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitIncomplete) << ToText(status);
}

TEST_F(StandbyTest, OpensItsShardLaterWhenTheDiskWasTheReason) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const ClientHandle client = Attached(first);
  ExpectVector(client.Embed("before"), "before");
  ASSERT_TRUE(first.WaitWritten());
  const std::string shard = first.data() + "/" + first.Stats().identity.substr(0, 16);
  // Under the running engine, which says so and serves from memory.
  fs::rename(shard, shard + ".away");
  WriteFile(shard, "");
  first.Kill();
  ExpectVector(client.Embed("waits for the shard"), "waits for the shard");
  EXPECT_TRUE(WaitLog(*standby, "the cache cannot be opened"));
  fs::remove(shard);
  fs::rename(shard + ".away", shard);
  ASSERT_TRUE(WaitShard(*standby, kShardOpen));
  EXPECT_TRUE(client.Embed("before").FromCache());
  EXPECT_TRUE(client.Embed("waits for the shard").FromCache());
  EXPECT_TRUE(standby->WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kStorageFailed) == 0; }));
}

// A restart is no attack: neither the rate of attaches nor a quota keeps out what the engine before had let in.
TEST_F(StandbyTest, TakesSixtyFourLanesBackAtOnce) {
  constexpr size_t kLanes = 64;
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  first.Kill();
  ASSERT_TRUE(WaitLog(*standby, kTookOver));
  std::vector<RawClient> clients;
  for (size_t i = 0; i < kLanes; ++i) {
    clients.push_back(RawClient::AttachOnce(first.socket()));
    ASSERT_TRUE(clients.back().lane_ready()) << "lane " << i << ": " << clients.back().welcome().message;
  }
}

}  // namespace
}  // namespace sutra::test
