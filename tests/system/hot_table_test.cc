// The hot table of a real engine, seen by a client of the test's own: the handshake and the lane byte by byte, and a
// reader over the descriptors that came with it.
#include <poll.h>

#include <map>
#include <optional>
#include <random>

#include "tests/kit/hot_client.h"
#include "tests/kit/raw_client.h"
#include "tests/kit/seed.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

struct TableClient {
  explicit TableClient(const EngineProcess& engine) : raw(RawClient::Attach(engine.socket())) {
    EXPECT_TRUE(raw.lane_ready());
    if (raw.hot_fd() >= 0) table.emplace(raw.hot_fd(), kTestWidth, raw.welcome().hot_slots, raw.page_fd());
  }
  // Through the lane.
  void Ask(const std::string& text) {
    const uint64_t sequence = raw.Submit(0, text);
    raw.Ring();
    EXPECT_EQ(raw.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk) << text;
    EXPECT_TRUE(SameVector(raw.Vector(0), ExpectedVector(text))) << text;
  }
  // In the table; what is found must be right.
  bool Found(const std::string& text) {
    const std::optional<HotClient::Hit> hit = table->Find(text);
    if (!hit.has_value()) return false;
    EXPECT_TRUE(SameVector(hit->unit, ExpectedVector(text))) << text;
    return true;
  }
  bool FoundWithin(const std::string& text, bool wanted, int timeout_ms = kWaitMs) {
    for (const uint64_t until_ns = MonotonicNs() + timeout_ms * kNsPerMs; MonotonicNs() < until_ns;) {
      if (Found(text) == wanted) return true;
      poll(nullptr, 0, 1);
    }
    return false;
  }

  RawClient raw;
  std::optional<HotClient> table;
};

class HotTable : public SystemTest {
 protected:
  static uint64_t Counted(const EngineProcess& engine, const char* counter) { return engine.Stats().counter(counter); }
};

TEST_F(HotTable, TheSecondUsePublishesAndTheThirdIsFoundThere) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  EXPECT_NE(engine.Log().find("hot table: "), std::string::npos) << "its size is said at the start";
  TableClient client(engine), other(engine);
  ASSERT_TRUE(client.table.has_value());
  client.Ask("a text");
  EXPECT_FALSE(client.Found("a text"));
  client.Ask("a text");
  EXPECT_TRUE(client.FoundWithin("a text", true));
  EXPECT_TRUE(other.FoundWithin("a text", true));
  EXPECT_FALSE(client.Found("another text"));
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& stats) { return stats.gauge("hot_used") == 1; }));
  EXPECT_EQ(engine.Stats().gauge("hot_slots"), client.raw.welcome().hot_slots);
  EXPECT_EQ(engine.Stats().gauge("hot_published"), 1u);
}

TEST_F(HotTable, WithoutOneAndWithoutACacheClientsGetNone) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"--hot-bytes-max", "0"}, std::vector<std::string>{"--no-cache"}}) {
    EngineProcess engine({.args = args, .environment = {}, .uid = {}, .data = {}, .socket = {}});
    ASSERT_TRUE(engine.Start());
    TableClient client(engine);
    EXPECT_EQ(client.raw.hot_fd(), -1);
    EXPECT_EQ(client.raw.welcome().hot_slots, 0u);
    client.Ask("a text");
    client.Ask("a text");
    EXPECT_EQ(engine.Stats().gauge("hot_slots"), 0u);
  }
}

// A library of layout minor 0 takes five descriptors.
TEST_F(HotTable, AnOlderLibraryIsServedWithoutIt) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  HelloMessage hello = RawClient::Hello();
  hello.layout_minor = 0;
  RawClient old = RawClient::Attach(engine.socket(), hello);
  ASSERT_TRUE(old.lane_ready());
  EXPECT_EQ(old.hot_fd(), -1);
  for (int use = 0; use < 3; ++use) {
    const uint64_t sequence = old.Submit(0, "a text");
    old.Ring();
    EXPECT_EQ(old.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
  }
  EXPECT_EQ(Counted(engine, "hits"), 2u);
}

TEST_F(HotTable, ALifetimeEndsThereAsInTheShard) {
  EngineProcess engine({.args = {"--ttl-s", "2"}, .environment = {}, .uid = {}, .data = {}, .socket = {}});
  ASSERT_TRUE(engine.Start());
  TableClient client(engine);
  const uint64_t before_ns = MonotonicNs();
  client.Ask("brief");
  client.Ask("brief");
  ASSERT_TRUE(client.FoundWithin("brief", true));
  ASSERT_TRUE(client.FoundWithin("brief", false));
  EXPECT_GE(MonotonicNs() - before_ns, 2 * kNsPerSecond);
  client.Ask("brief");  // computed again
  EXPECT_EQ(Counted(engine, "misses"), 2u);
  client.Ask("brief");
  EXPECT_TRUE(client.FoundWithin("brief", true));
}

// The shard knows what is hot from its own file, written when it was closed and every minute.
TEST_F(HotTable, AfterKillAndRestartTheHotSetIsThereWithoutAnyRequest) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const std::vector<std::string> texts = NumberedTexts("hot", 200);
  {
    TableClient client(engine);
    for (int use = 0; use < 2; ++use) {
      for (const std::string& text : texts) client.Ask(text);
    }
  }
  EXPECT_EQ(engine.Terminate().code, 0);
  for (const bool killed : {false, true}) {
    ASSERT_TRUE(engine.Start());
    TableClient client(engine);
    for (const std::string& text : texts) EXPECT_TRUE(client.FoundWithin(text, true)) << text << " " << killed;
    EXPECT_EQ(Counted(engine, "texts"), 0u);
    engine.Kill();
  }
}

// L: a client that finds no newer heartbeat does not know whether its engine still holds its locks.
TEST_F(HotTable, AnEngineThatIsStoppedGivesNoHotAnswers) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  TableClient client(engine);
  client.Ask("a text");
  client.Ask("a text");
  ASSERT_TRUE(client.FoundWithin("a text", true));
  engine.process().Stop();
  EXPECT_TRUE(client.FoundWithin("a text", false));
  const uint64_t heartbeat_ns = client.table->page()->heartbeat_ns.load(std::memory_order_relaxed);
  EXPECT_GE(MonotonicNs() - heartbeat_ns, kHotHeartbeatNsMax);
  EXPECT_FALSE(client.Found("a text"));
  engine.process().Continue();
  EXPECT_TRUE(client.FoundWithin("a text", true));
}

TEST_F(HotTable, ADrainClosesItWhileTheEngineStillAnswers) {
  EngineProcess engine(
      {.args = {}, .environment = {"SUTRA_FAKE_DELAY_US=1000000"}, .uid = {}, .data = {}, .socket = {}});
  ASSERT_TRUE(engine.Start());
  TableClient client(engine);
  client.Ask("a text");
  client.Ask("a text");
  ASSERT_TRUE(client.FoundWithin("a text", true));
  const uint64_t sequence = client.raw.Submit(1, "under way");
  client.raw.Ring();
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& stats) { return stats.counter("misses") == 2; }));
  engine.process().Signal(SIGTERM);
  while (client.table->page()->state.load(std::memory_order_relaxed) != kEngineDraining) poll(nullptr, 0, 1);
  EXPECT_TRUE(client.table->closed()) << "before anything else says that it drains";
  EXPECT_FALSE(client.Found("a text"));
  EXPECT_EQ(client.raw.WaitAnswer(1, sequence, kWaitMs), StatusCode::kOk);
  EXPECT_EQ(engine.WaitEnd().code, 0);
}

// What a client writes into its own line is shown as its word, within what a process can do, and moves nothing else.
TEST_F(HotTable, LiesAboutHitsAndHintsChangeNobodyElsesFigures) {
  EngineProcess engine({.args = {"--hot-bytes-max", "65536"}, .environment = {}, .uid = {}, .data = {}, .socket = {}});
  ASSERT_TRUE(engine.Start());
  const uint64_t started_ns = MonotonicNs();
  TableClient honest(engine), liar(engine);
  std::mt19937_64 random(FreshTestSeed());
  constexpr int kTexts = 40;
  const std::vector<std::string> texts = NumberedTexts("honest", kTexts);
  ClientLine& line = liar.raw.request().client();
  for (int use = 0; use < 3; ++use) {
    for (const std::string& text : texts) {
      for (int i = 0; i < 50; ++i) {
        line.hot_hits.store(random() >> (random() % 64), std::memory_order_relaxed);
        for (auto& hint : line.hot_hints) {
          hint.store(static_cast<uint32_t>(random() >> (random() % 64)), std::memory_order_relaxed);
        }
      }
      honest.Ask(text);
    }
  }
  for (const std::string& text : texts) EXPECT_TRUE(honest.FoundWithin(text, true)) << text;
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& stats) { return stats.counter("hits") == 2 * kTexts; }, 3));
  const StatsSnapshot stats = engine.Stats();
  EXPECT_EQ(stats.counter("texts"), 3u * kTexts);
  EXPECT_EQ(stats.counter("misses"), uint64_t{kTexts});
  EXPECT_EQ(stats.counter("joined"), 0u);
  EXPECT_EQ(stats.counter("lanes_protocol_violation"), 0u);
  EXPECT_LE(stats.counter("hot_hits"), (MonotonicNs() - started_ns) / 20);  // fifty million a second
  EXPECT_TRUE(engine.running());
}

TEST_F(HotTable, WhatAClientReportsIsCountedAlsoWhenItSendsNothing) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  TableClient client(engine);
  client.raw.request().client().hot_hits.store(5, std::memory_order_relaxed);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& stats) { return stats.counter("hot_hits") == 5; }));
  client.raw.request().client().hot_hits.store(7, std::memory_order_relaxed);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& stats) { return stats.counter("hot_hits") == 7; }));
  EXPECT_EQ(Counted(engine, "texts"), 0u);
}

// The memory outlives its writer: wherever that was killed, a reader finds the right vector, or none, and soon none.
TEST_F(HotTable, AnEngineKilledAtAnyStepOfPublishingLeavesNoWrongVector) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  const std::vector<std::string> texts = NumberedTexts("killed", 30);
  for (const char* point : {"hot.publishing", "hot.unnamed", "hot.begun", "hot.described", "hot.half", "hot.copied",
                            "hot.ended", "hot.named"}) {
    EngineProcess engine({.args = {},
                          .environment = {std::string("SUTRA_CHECKPOINT=") + point + ":kill:20"},
                          .uid = {},
                          .data = {},
                          .socket = {}});
    ASSERT_TRUE(engine.Start());
    TableClient client(engine);
    for (const std::string& text : texts) client.Ask(text);
    int answered = 0;
    for (const std::string& text : texts) {
      const uint64_t sequence = client.raw.Submit(0, text);
      client.raw.Ring();
      if (client.raw.WaitAnswer(0, sequence, engine.running() ? 200 : 1) != StatusCode::kOk) break;
      ++answered;
    }
    EXPECT_EQ(engine.WaitEnd().signal, SIGKILL) << point;
    EXPECT_EQ(answered, 19) << point;
    uint32_t found = 0;
    for (const std::string& text : texts) found += client.Found(text) ? 1 : 0;  // Found compares the vectors
    EXPECT_LE(found, 20u) << point;
    EXPECT_TRUE(client.FoundWithin(texts.front(), false)) << point;
  }
}

}  // namespace
}  // namespace sutra::test
