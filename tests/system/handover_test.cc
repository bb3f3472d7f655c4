// A planned change of engines: SIGTERM while a standby waits.
#include <atomic>
#include <random>
#include <thread>

#include "engine/control/control_client.h"
#include "shm/layout.h"
#include "tests/kit/seed.h"
#include "tests/system/standby_fixture.h"

namespace sutra::test {
namespace {

class HandOverTest : public StandbyTest {};

TEST_F(HandOverTest, TheStandbyServesWhileTheOldEngineStillEnds) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first);
  const ClientHandle client = Attached(first);
  ExpectVector(client.Embed("before"), "before");
  first.process().Signal(SIGTERM);
  ExpectVector(client.Embed("after"), "after");
  const ExitStatus status = first.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  EXPECT_TRUE(WaitLog(*standby, kTookOver)) << "the old engine may have answered and ended before";
  ASSERT_TRUE(WaitShard(*standby, kShardOpen));
  EXPECT_TRUE(client.Embed("before").FromCache()) << "stored and synced before the locks were free";
}

TEST_F(HandOverTest, ByCommandIsTheSame) {
  EngineProcess first;
  ASSERT_TRUE(first.Start());
  const ClientHandle client = Attached(first);
  const uint64_t until_ns = MonotonicNs() + kWaitMs * kNsPerMs;
  EXPECT_EQ(AskHandOver(first.socket(), until_ns).code(), StatusCode::kRefused) << "there is nobody to hand over to";
  ExpectVector(client.Embed("it serves on"), "it serves on");
  const auto standby = StandbyOf(first);
  ASSERT_TRUE(first.WaitStats([](const StatsSnapshot& s) { return s.gauge(Gauge::kStandbysReady) == 1; }));
  const Result<HandOverBody> handed = AskHandOver(first.socket(), until_ns);
  ASSERT_TRUE(handed.ok()) << handed.status().message();
  EXPECT_EQ(handed->standby_pid, static_cast<uint32_t>(standby->process().pid()));
  ExpectVector(client.Embed("after"), "after");
  const ExitStatus status = first.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  EXPECT_TRUE(WaitLog(*standby, kTookOver));
}

// What the old engine took it answers, the rest is the next one's.
TEST_F(HandOverTest, UnderLoadShowsNoClientAnError) {
  EngineProcess first;
  first.options().environment = {"SUTRA_FAKE_DELAY_US=500"};
  first.options().args = {"--batch-tokens-max", "64"};
  ASSERT_TRUE(first.Start());
  const auto standby = StandbyOf(first, {"--batch-tokens-max", "64"});
  ClientHandle client = Attached(first);
  const std::vector<std::string> texts = NumberedTexts("under load", 2000);
  std::vector<Reply> replies;
  std::thread load([&] { replies = client.EmbedBatch(texts); });
  ASSERT_TRUE(first.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") >= 100; }));
  first.process().Signal(SIGTERM);
  const ExitStatus status = first.WaitEnd();
  load.join();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  for (size_t i = 0; i < texts.size(); ++i) {
    ExpectVector(replies[i], texts[i]);
  }
}

TEST_F(HandOverTest, ThreeEnginesSurviveAnyOrderOfKillsAndStops) {
  std::mt19937_64 random(FreshTestSeed());
  std::vector<std::unique_ptr<EngineProcess>> engines;
  engines.push_back(std::make_unique<EngineProcess>());
  ASSERT_TRUE(engines[0]->Start());
  engines.push_back(StandbyOf(*engines[0]));
  engines.push_back(StandbyOf(*engines[0]));
  const std::string socket = engines[0]->socket();
  const ClientHandle client = Attached(*engines[0]);

  std::atomic<bool> stop{false};
  std::atomic<int> served{0};
  std::thread stream([&] {
    for (int i = 0; !stop.load(); ++i) {
      const std::string text = "stream " + std::to_string(i % 500);
      const Reply reply = client.Embed(text);
      ExpectVector(reply, text);
      if (HasFailure()) return;
      served.fetch_add(1);
    }
  });
  for (int round = 0; round < 12 && !HasFailure(); ++round) {
    const int served_before = served.load();
    // Any of them, the one that serves or one that waits, killed or asked to stop.
    EngineProcess& victim = *engines[random() % engines.size()];
    if (random() % 2 == 0) {
      victim.Kill();
    } else {
      const ExitStatus status = victim.Terminate();
      EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
    }
    victim.options().args = {"--standby"};
    const size_t starts = CountInLog(victim, kLoaded);
    victim.Launch();
    // Before that a SIGTERM could meet a process that is no engine yet.
    while (CountInLog(victim, kLoaded) == starts && victim.running()) poll(nullptr, 0, 1);
    while (served.load() < served_before + 20 && !HasFailure()) poll(nullptr, 0, 1);
  }
  stop.store(true);
  stream.join();
  for (const auto& engine : engines) EXPECT_TRUE(engine->running());
}

}  // namespace
}  // namespace sutra::test
