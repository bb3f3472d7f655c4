// How an engine stops on a signal: drains, answers what was taken, syncs, exits 0; a second signal ends it at once.
#include <thread>

#include "engine/exit_code.h"
#include "shm/layout.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class EngineLifecycle : public SystemTest {
 protected:
  // An engine that needs `delay_us` for each batch of one text.
  static EngineOptions Slow(const std::string& delay_us, std::vector<std::string> args = {}) {
    EngineOptions options;
    options.environment = {"SUTRA_FAKE_DELAY_US=" + delay_us};
    options.args = std::move(args);
    options.args.insert(options.args.end(), {"--batch-tokens-max", "16"});
    return options;
  }
};

TEST_F(EngineLifecycle, TermAnswersWhatWasTakenThenExitsWithZero) {
  EngineProcess engine(Slow("3000"));
  ASSERT_TRUE(engine.Start());
  ClientHandle client = Attached(engine);
  const std::vector<std::string> texts = NumberedTexts("taken before the end", 150);
  std::vector<sutra_ticket> tickets(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(sutra_submit(client.get(), texts[i].data(), texts[i].size(), nullptr, &tickets[i]), SUTRA_OK);
  }
  ASSERT_TRUE(engine.WaitStats([&](const StatsSnapshot& s) { return s.counter("texts") == texts.size(); }));
  engine.process().Signal(SIGTERM);
  for (size_t i = 0; i < texts.size(); ++i) {
    sutra_result result = embed::Result();
    ASSERT_EQ(sutra_wait(client.get(), tickets[i], kWaitMs, &result), SUTRA_OK) << i;
    EXPECT_TRUE(SameVector({result.vector, result.vector + result.width}, ExpectedVector(texts[i])));
    sutra_release(client.get(), tickets[i]);
  }
  const ExitStatus status = engine.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  const StatsSnapshot stats = engine.Stats();
  EXPECT_EQ(stats.counter("replies_ok"), texts.size());
  EXPECT_EQ(stats.gauge("wal_oldest_unsynced_us"), 0u);  // and it is synced
}

TEST_F(EngineLifecycle, TermUnderLoadLosesNoTakenText) {
  EngineProcess engine(Slow("500"));
  ASSERT_TRUE(engine.Start());
  ClientHandle client = Attached(engine);
  std::vector<Reply> replies;
  const std::vector<std::string> texts = NumberedTexts("under load", 2000);
  const sutra_options fail_fast = ClientHandle::RequestOptions(SUTRA_FAIL_FAST);  // there is no next engine
  std::thread load([&] { replies = client.EmbedBatch(texts, nullptr, fail_fast); });
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") >= 100; }));
  const ExitStatus status = engine.Terminate();
  load.join();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
  uint64_t ok = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (replies[i].status == SUTRA_OK) {
      ExpectVector(replies[i], texts[i]);
      ++ok;
      continue;
    }
    EXPECT_TRUE(replies[i].status == SUTRA_SHUTTING_DOWN || replies[i].status == SUTRA_ENGINE_GONE)
        << sutra_status_text(replies[i].status);
  }
  const StatsSnapshot stats = engine.Stats();
  EXPECT_EQ(stats.counter("texts"), stats.counter("replies_ok"));
  EXPECT_EQ(stats.counter("replies_ok"), ok);
}

TEST_F(EngineLifecycle, ADrainingEngineTakesNobodyNew) {
  EngineProcess engine(Slow("300000"));
  ASSERT_TRUE(engine.Start());
  const auto holder = StartClient(engine, "hold", {{"count", "10"}});
  ExpectLine(*holder, "submitted");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("texts") >= 10; }));
  engine.process().Signal(SIGTERM);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("state") == kEngineDraining; }));
  ClientHandle late;
  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.timeout_ms = 300;
  EXPECT_NE(late.Attach(engine.socket(), options), SUTRA_OK);
  const ExitStatus status = engine.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == kExitClean) << ToText(status);
}

TEST_F(EngineLifecycle, ASecondTermLeavesAtOnceAndTheNextStartRecovers) {
  EngineProcess engine(Slow("60000000"));  // a batch that would take a minute
  ASSERT_TRUE(engine.Start());
  const auto holder = StartClient(engine, "hold", {{"count", "10"}});
  ExpectLine(*holder, "submitted");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("batches") >= 1; }));
  engine.process().Signal(SIGTERM);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("state") == kEngineDraining; }));
  engine.process().Signal(SIGTERM);
  const ExitStatus status = engine.WaitEnd();
  EXPECT_TRUE(status.exited && status.code == 128 + SIGTERM) << ToText(status);
  engine.options().environment.clear();
  ASSERT_TRUE(engine.Start());
  const std::string text = "after the second signal";
  ExpectVector(Attached(engine).Embed(text), text);
}

TEST_F(EngineLifecycle, ADrainThatTakesTooLongSaysSo) {
  EngineProcess engine(Slow("1500000", {"--drain-s", "1"}));
  ASSERT_TRUE(engine.Start());
  const auto holder = StartClient(engine, "hold", {{"count", "40"}});
  ExpectLine(*holder, "submitted");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("texts") >= 40; }));
  const ExitStatus status = engine.Terminate();
  EXPECT_TRUE(status.exited && status.code == kExitIncomplete) << ToText(status);
  EXPECT_EQ(engine.Stats().counter("replies_shutting_down"), 0u);
  EXPECT_GT(engine.Stats().counter("texts_lane_ended"), 0u);  // the next engine's
}

// A batch that the model refuses fails alone; the engine goes on. P21, as far as the fake model can show it.
TEST_F(EngineLifecycle, AFailedBatchIsAModelErrorAndTheNextOneWorks) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_FAIL_AT=2"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  ExpectVector(client.Embed("first"), "first");
  const Reply failed = client.Embed("second");
  EXPECT_EQ(failed.status, SUTRA_MODEL_ERROR);
  EXPECT_TRUE(failed.vector.empty());
  const Reply again = client.Embed("second");  // a failure is not cached
  ExpectVector(again, "second");
  EXPECT_EQ(again.source, SUTRA_SOURCE_MODEL);
}

// An idle engine does nothing but its heartbeat: it sleeps about as often as it beats.
TEST_F(EngineLifecycle, AnIdleEngineWakesForItsHeartbeatOnly) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);  // idle, not alone
  const std::string text = "then nothing";
  ExpectVector(client.Embed(text), text);
  ASSERT_TRUE(engine.WaitWritten());
  const StatsSnapshot before = engine.Stats();
  const uint64_t from_ns = before.gauge("heartbeat_ns");
  ASSERT_TRUE(
      engine.WaitStats([&](const StatsSnapshot& s) { return s.gauge("heartbeat_ns") > from_ns + 800'000'000; }));
  const StatsSnapshot after = engine.Stats();
  // A beat every 50 ms, and the log's last sync and watermark: far less than one wake-up in 10 ms of the engine's time.
  const uint64_t passed_ms = (after.gauge("heartbeat_ns") - from_ns) / 1'000'000;
  EXPECT_LE(after.counter("engine_sleeps") - before.counter("engine_sleeps"), passed_ms / 10);
  EXPECT_EQ(after.counter("client_wakes_sent"), before.counter("client_wakes_sent"));
}

TEST_F(EngineLifecycle, AStartReplacesTheSocketOfADeadEngine) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const uint64_t first = Attached(engine).info().engine_generation;
  engine.Kill();  // leaves its socket file
  ASSERT_TRUE(engine.Start());
  const uint64_t second = Attached(engine).info().engine_generation;
  EXPECT_NE(first, 0u);
  EXPECT_NE(second, first);
}

}  // namespace
}  // namespace sutra::test
