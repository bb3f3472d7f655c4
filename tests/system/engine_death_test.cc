// Engines that are killed or stand still, as the client library shows it: texts go on at the next engine, or with
// SUTRA_FAIL_FAST end as `engine gone`; a stopped one means `deadline exceeded`; never a hang, never a wrong vector.
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <map>
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
    ExpectVector(old_client.Embed(text), text);  // the old handle finds the new engine by itself
  }
  static sutra_options FailFast() { return ClientHandle::RequestOptions(SUTRA_FAIL_FAST); }
  // Submits, sleeps on the descriptor and polls; every ticket must come, once and with its own text's vector.
  static void EventLoop(const ClientHandle& client, std::atomic<bool>* stop, std::atomic<uint64_t>* wrong) {
    const int event_fd = sutra_event_fd(client.get());
    std::map<sutra_ticket, std::string> under_way;
    for (uint64_t number = 0; !stop->load() || !under_way.empty();) {
      const std::string text = "loop " + std::to_string(number % 4000);
      sutra_ticket ticket = 0;
      if (!stop->load() && under_way.size() < 32 &&
          sutra_submit(client.get(), text.data(), text.size(), nullptr, &ticket) == SUTRA_OK) {
        under_way[ticket] = text;
        ++number;
        continue;
      }
      sutra_result results[8] = {embed::Result()};
      const size_t found = sutra_poll(client.get(), results, sizeof(sutra_result), 8);
      for (size_t i = 0; i < found; ++i) {
        const auto mine = under_way.find(results[i].ticket);
        const bool right =
            mine != under_way.end() && results[i].status == SUTRA_OK &&
            SameVector({results[i].vector, results[i].vector + results[i].width}, ExpectedVector(mine->second));
        wrong->fetch_add(right ? 0 : 1);
        if (mine != under_way.end()) under_way.erase(mine);
        sutra_release(client.get(), results[i].ticket);
      }
      pollfd item = {event_fd, POLLIN, 0};
      // The poll may have taken the word of an engine that came after the submit failed: then there is no other.
      if (found < 8) (void)poll(&item, 1, under_way.empty() ? 1 : kWaitMs);
    }
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
  std::thread embedding([&] { replies = client.EmbedBatch(texts, nullptr, FailFast()); });
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
  EXPECT_EQ(client.Embed("nobody there", FailFast()).status, SUTRA_ENGINE_GONE);
  ASSERT_TRUE(engine.Start());
  ExpectServes(engine, client);
}

TEST_F(EngineDeath, AtEveryCheckpointEndsEveryTextAsAnsweredOrGone) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  const char* const points[] = {"poll.index_read",   "poll.header_copied",    "poll.payload_copied", "poll.hashed",
                                "cache.hit_checked", "batch.formed",          "infer.started",       "infer.done",
                                "reply.written",     "reply.index_published", "wal.encoded",         "wal.submitted",
                                "wal.completed",     "lane.closing",          "lane.recycled"};
  EngineProcess engine({.args = {"--hot-bytes-max", "0"}});  // what is found there never reaches the engine
  ClientHandle survivor;                                     // lives through all of it
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
      const std::vector<Reply> replies = survivor.EmbedBatch(texts, nullptr, FailFast());
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
      if (client.Embed("never answered " + std::to_string(i), FailFast()).status == SUTRA_ENGINE_GONE)
        gone.fetch_add(1);
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
  EXPECT_EQ(client.Embed("another", FailFast()).status, SUTRA_ENGINE_GONE);
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

// Blocking calls of many threads, and an event loop, over one client: nobody is told of the restarts.
TEST_F(EngineDeath, ManyRandomKillsAndRestartsLoseNoTextAndBringNoWrongVector) {
  EngineProcess engine;
  std::mt19937_64 random(FreshTestSeed());
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, seed = random(), batch = t % 2 == 0] {
      std::mt19937_64 own(seed);
      while (!stop.load()) {
        std::vector<std::string> texts;
        while (texts.size() < (batch ? 24 : 1)) {
          texts.push_back("stream " + std::to_string(own() % 4000) + std::string(own() % 2 * 400, 'x'));
        }
        std::vector<Reply> replies;
        if (batch) {
          replies = client.EmbedBatch(texts);
        } else {
          replies.push_back(client.Embed(texts[0]));
        }
        for (size_t i = 0; i < texts.size(); ++i) {
          answered.fetch_add(1);
          const std::string why = WhatIsWrong(replies[i], texts[i]);
          if (!why.empty() && wrong.fetch_add(1) == 0) ADD_FAILURE() << why << ": " << sutra_error_text();
        }
      }
    });
  }
  std::thread loop([&] { EventLoop(client, &stop, &wrong); });
  for (int round = 0; round < 8; ++round) {
    const uint64_t wanted = answered.load() + 200 + random() % 500;
    while (answered.load() < wanted) std::this_thread::yield();
    engine.Kill();
    ASSERT_TRUE(engine.Start());
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  loop.join();
  EXPECT_EQ(wrong.load(), 0u);
  sutra_info info = embed::Info();
  ASSERT_EQ(sutra_get_info(client.get(), &info), SUTRA_OK);
  EXPECT_EQ(info.engines, 9u);
  EXPECT_GT(info.resubmitted, 0u);
}

}  // namespace
}  // namespace sutra::test
