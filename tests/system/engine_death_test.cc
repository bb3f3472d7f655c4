// Engines that are killed or stand still, as the client library shows it: `engine gone` or `deadline exceeded`, never a
// hang, never a wrong vector; and a new engine serves.
#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "tests/kit/seed.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class EngineDeath : public SystemTest {
 protected:
  // A reply is correct, or says that the engine is gone; nothing else.
  static bool RightOrGone(const Reply& reply, const std::string& text) {
    return reply.status == SUTRA_ENGINE_GONE || WhatIsWrong(reply, text).empty();
  }
  static void ExpectServes(EngineProcess& engine, const ClientHandle& old_client) {
    const std::string text = "served by the next engine";
    ExpectVector(Attached(engine).Embed(text), text);
    // The old handle finds the new engine by itself, after at most a few tries of its backoff.
    Reply reply = old_client.Embed(text);
    while (reply.status == SUTRA_ENGINE_GONE) reply = old_client.Embed(text);
    ExpectVector(reply, text);
  }
};

TEST_F(EngineDeath, InMidBatchEndsEveryTextAsAnsweredOrGone) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=20000"};
  options.args = {"--batch-tokens-max", "128"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  ClientHandle client = Attached(engine);
  const std::vector<std::string> texts = NumberedTexts("in the middle of the batch", 1000);
  std::vector<Reply> replies;
  std::thread embedding([&] { replies = client.EmbedBatch(texts); });
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") >= 50; }));
  engine.Kill();
  embedding.join();  // ends, because the engine is dead; the watchdog says so if not
  size_t gone = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_TRUE(RightOrGone(replies[i], texts[i])) << i << ": " << sutra_status_text(replies[i].status);
    gone += replies[i].status == SUTRA_ENGINE_GONE;
  }
  EXPECT_GT(gone, 0u);
  EXPECT_LT(gone, texts.size());
  EXPECT_EQ(client.Embed("nobody there").status, SUTRA_ENGINE_GONE);
  ASSERT_TRUE(engine.Start());
  ExpectServes(engine, client);
}

TEST_F(EngineDeath, AtEveryCheckpointEndsEveryTextAsAnsweredOrGone) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  const char* const points[] = {"poll.index_read",   "poll.header_copied",    "poll.payload_copied", "poll.hashed",
                                "cache.hit_checked", "batch.formed",          "infer.started",       "infer.done",
                                "reply.written",     "reply.index_published", "wal.encoded",         "wal.submitted",
                                "wal.completed",     "lane.closing",          "lane.recycled"};
  EngineProcess engine;
  ClientHandle survivor;  // lives through all of it
  int round = 0;
  for (const std::string point : points) {
    SCOPED_TRACE(point);
    const bool at_detach = point.rfind("lane.", 0) == 0;
    // The log writes in groups, and an attach that is tried is one lane: few hits until the kill there.
    const bool few = at_detach || point.rfind("wal.", 0) == 0;
    engine.options().environment = {"SUTRA_CHECKPOINT=" + point + ":kill:" + (few ? "2" : "5")};
    ASSERT_TRUE(engine.Start());  // which is one attach and detach
    if (survivor.get() == nullptr) survivor = Attached(engine);
    const std::string prefix = "round " + std::to_string(round++);
    for (int call = 0; engine.running(); ++call) {
      ClientHandle other;  // its detach kills the engine
      if (at_detach) static_cast<void>(other.Attach(engine.socket()));
      std::vector<std::string> texts = NumberedTexts(prefix + " call " + std::to_string(call), 8);
      if (call > 0) texts.push_back(prefix + " call 0 0");  // a hit
      const std::vector<Reply> replies = survivor.EmbedBatch(texts);
      for (size_t i = 0; i < texts.size(); ++i) {
        EXPECT_TRUE(RightOrGone(replies[i], texts[i])) << texts[i] << ": " << WhatIsWrong(replies[i], texts[i]);
      }
    }
    const ExitStatus status = engine.WaitEnd();
    EXPECT_EQ(status.signal, SIGKILL) << ToText(status);
  }
  engine.options().environment.clear();
  ASSERT_TRUE(engine.Start());
  EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("quarantined_segments") == 0; }, 1));
  ExpectServes(engine, survivor);
}

TEST_F(EngineDeath, WakesEveryThreadThatWaits) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=60000000"};  // answers nothing within this test
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  std::atomic<int> gone{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      if (client.Embed("never answered " + std::to_string(i)).status == SUTRA_ENGINE_GONE) gone.fetch_add(1);
    });
  }
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("texts") >= 6; }));
  engine.Kill();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(gone.load(), 6);
}

TEST_F(EngineDeath, VectorsAlreadyDeliveredStayReadable) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const std::string text = "read after the engine's death";
  sutra_ticket ticket = 0;
  ASSERT_EQ(sutra_submit(client.get(), text.data(), text.size(), nullptr, &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), ticket, kWaitMs, &result), SUTRA_OK);
  engine.Kill();
  EXPECT_EQ(client.Embed("another").status, SUTRA_ENGINE_GONE);
  EXPECT_TRUE(SameVector({result.vector, result.vector + result.width}, ExpectedVector(text)));
  sutra_release(client.get(), ticket);
}

// A stopped engine is not dead: requests fail at their deadline, the ticket survives a wait, and when the engine
// continues it is the same engine.
TEST_F(EngineDeath, AStoppedEngineMeansDeadlineExceededNotGone) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const ClientHandle other = Attached(engine);  // its slots stay free
  ExpectVector(client.Embed("before"), "before");
  engine.process().Stop();
  for (const uint32_t timeout_ms : {1u, 100u, 700u}) {
    EXPECT_EQ(
        client.Embed("unanswered " + std::to_string(timeout_ms), ClientHandle::RequestOptions(0, timeout_ms)).status,
        SUTRA_DEADLINE_EXCEEDED);
  }
  sutra_status status = SUTRA_OK;
  const std::vector<Reply> replies =
      client.EmbedBatch(NumberedTexts("unanswered batch", 400), &status, ClientHandle::RequestOptions(0, 150));
  EXPECT_EQ(status, SUTRA_DEADLINE_EXCEEDED);
  for (const Reply& reply : replies) EXPECT_EQ(reply.status, SUTRA_DEADLINE_EXCEEDED);

  const std::string text = "submitted to a stopped engine";
  const sutra_options patient = ClientHandle::RequestOptions(0, kWaitMs);
  sutra_ticket ticket = 0;
  ASSERT_EQ(sutra_submit(other.get(), text.data(), text.size(), &patient, &ticket), SUTRA_OK);
  sutra_result result = embed::Result();
  EXPECT_EQ(sutra_wait(other.get(), ticket, 50, &result), SUTRA_NOT_READY);
  engine.process().Continue();
  EXPECT_EQ(sutra_wait(other.get(), ticket, kWaitMs, &result), SUTRA_OK);
  EXPECT_TRUE(SameVector({result.vector, result.vector + result.width}, ExpectedVector(text)));
  sutra_release(other.get(), ticket);
  const uint64_t generation = client.info().engine_generation;
  ExpectVector(client.Embed("after", patient), "after");
  sutra_info info = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
  EXPECT_EQ(info.engine_generation, generation);
}

TEST_F(EngineDeath, ARandomKillInAStreamNeverBringsAWrongVector) {
  EngineProcess engine;
  std::mt19937_64 random(FreshTestSeed());
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  for (int round = 0; round < 8; ++round) {
    if (round > 0) {
      ASSERT_TRUE(engine.Start());
    }
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    const uint64_t seed = random();
    std::thread stream([&] {
      std::mt19937_64 own(seed);
      while (!stop.load()) {
        std::vector<std::string> texts;
        while (texts.size() < 24) texts.push_back("stream " + std::to_string(own() % 4000));
        const std::vector<Reply> replies = client.EmbedBatch(texts);
        for (size_t i = 0; i < texts.size(); ++i) wrong.fetch_add(RightOrGone(replies[i], texts[i]) ? 0 : 1);
      }
    });
    const uint64_t wanted = 500 + random() % 2000;
    EXPECT_TRUE(engine.WaitStats([&](const StatsSnapshot& s) { return s.counter("replies_ok") >= wanted; }));
    engine.Kill();
    stop.store(true);
    stream.join();
    EXPECT_EQ(wrong.load(), 0) << "round " << round;
  }
}

}  // namespace
}  // namespace sutra::test
