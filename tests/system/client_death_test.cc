// Clients that die, stop or come and go: the engine lives, the neighbours' answers stay correct, nothing is left over.
#include <poll.h>
#include <sys/syscall.h>

#include <random>

#include "tests/kit/seed.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

// A kill closes the socket a moment before it drops the lock: the engine may call it a detach.
uint64_t LanesEnded(const StatsSnapshot& stats) {
  return stats.counter("lanes_client_died") + stats.counter("detaches");
}

class ClientDeath : public SystemTest {
 protected:
  // Whatever happened: the neighbour's stream is correct to its end, its lane is gone, a new client is served.
  static void ExpectUnharmed(EngineProcess& engine, ChildProcess& neighbour) {
    ASSERT_TRUE(engine.running());
    ExpectRight(neighbour);
    ASSERT_TRUE(engine.WaitLanes(0));
    const std::string text = "after the deaths";
    ExpectVector(Attached(engine).Embed(text), text);
    EXPECT_EQ(engine.Stats().counter("lanes_protocol_violation"), 0u);
  }
};

// Every named point of attach, send, receive and detach.
TEST_F(ClientDeath, AtEveryCheckpointCostsNobodyElseAnything) {
  if (!kCheckpoints) GTEST_SKIP() << kNoCheckpoints;
  EngineProcess engine({.args = {"--hot-bytes-max", "0"}});  // what is found there is not sent
  ASSERT_TRUE(engine.Start());
  const auto neighbour = StartClient(engine, "stream");
  ExpectLine(*neighbour, "attached");
  ASSERT_TRUE(engine.WaitLanes(1));
  const char* const points[] = {"attach.socket_connected", "attach.fds_received",  "attach.mapped",
                                "attach.lock_taken",       "send.slot_claimed",    "send.payload_half",
                                "send.payload_done",       "send.index_published", "send.wake_sent",
                                "recv.reply_seen",         "recv.copied",          "recv.index_released",
                                "detach.lock_dropped"};
  for (const std::string point : points) {
    for (const char* nth : {"1", "17"}) {
      // An attach happens once per client; `cycle` attaches again and again.
      const auto victim = StartClient(engine, "cycle", {}, {"SUTRA_CHECKPOINT=" + point + ":kill:" + nth});
      const std::optional<ExitStatus> status = victim->Wait(kWaitMs);
      ASSERT_TRUE(status.has_value()) << point << " is never reached";
      EXPECT_EQ(status->signal, SIGKILL) << point << ": " << ToText(*status) << "\n" << victim->Log();
      ASSERT_TRUE(engine.WaitLanes(1)) << point;
      ASSERT_TRUE(neighbour->Running()) << point << "\n" << neighbour->Log();
    }
  }
  EXPECT_GT(engine.Stats().counter("lanes_client_died"), 0u);
  ExpectUnharmed(engine, *neighbour);
}

TEST_F(ClientDeath, AtRandomTimesInMidSendCostsNobodyElseAnything) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  std::mt19937_64 random(FreshTestSeed());
  const auto neighbour = StartClient(engine, "stream");
  ExpectLine(*neighbour, "attached");
  ASSERT_TRUE(engine.WaitLanes(1));
  const uint64_t ended_before = LanesEnded(engine.Stats());
  for (int round = 0; round < 25; ++round) {
    const auto victim = StartClient(engine, "stream", {{"seed", std::to_string(random())}});
    ExpectLine(*victim, "attached");
    // The time of the kill is the random input of this test.
    timespec pause = {0, static_cast<long>(random() % 8'000'000)};
    ppoll(nullptr, 0, &pause, nullptr);
    EXPECT_EQ(victim->Kill().signal, SIGKILL) << victim->Log();
  }
  ASSERT_TRUE(engine.WaitLanes(1));
  EXPECT_EQ(LanesEnded(engine.Stats()) - ended_before, 25u);
  ExpectUnharmed(engine, *neighbour);
}

TEST_F(ClientDeath, WithRequestsInWorkTakesItsLaneDown) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=200000"};
  options.args = {"--batch-tokens-max", "64"};
  EngineProcess engine(options);
  ASSERT_TRUE(engine.Start());
  const auto victim = StartClient(engine, "hold", {{"count", "100"}});
  ExpectLine(*victim, "submitted");
  victim->Kill();
  ASSERT_TRUE(engine.WaitLanes(0));
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.gauge("in_flight_texts") == 0; }, 1));
  // Texts without waiters are not computed.
  EXPECT_LT(engine.Stats().counter("batch_texts"), 100u);
}

// A dead client that is not reaped yet: its pid still exists, its lock does not.
TEST_F(ClientDeath, AZombieIsDead) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const auto victim = StartClient(engine, "attach");
  ExpectLine(*victim, "attached");
  ASSERT_TRUE(engine.WaitLanes(1));
  victim->Signal(SIGKILL);  // and not waited for: it stays a zombie of ours
  EXPECT_TRUE(engine.WaitLanes(0));
}

TEST_F(ClientDeath, AStoppedClientStopsNobodyAndIsServedWhenItGoesOn) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const auto neighbour = StartClient(engine, "stream");
  ExpectLine(*neighbour, "attached");
  const auto stopped = StartClient(engine, "stream", {{"seed", "7"}});
  ExpectLine(*stopped, "attached");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& s) { return s.counter("replies_ok") > 1000; }));
  stopped->Stop();
  const uint64_t before = engine.Stats().counter("replies_ok");
  EXPECT_TRUE(engine.WaitStats([&](const StatsSnapshot& s) { return s.counter("replies_ok") > before + 2000; }));
  EXPECT_TRUE(engine.WaitLanes(2));  // stopped is not dead
  stopped->Continue();
  ExpectRight(*stopped);
  ExpectUnharmed(engine, *neighbour);
}

// P19: attach, use, detach, many times, killed now and then: what the engine holds afterwards is what it held before.
TEST_F(ClientDeath, ManyLivesLeaveNothingBehind) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  std::mt19937_64 random(FreshTestSeed());
  const std::string text = "one of many lives";
  ExpectVector(Attached(engine).Embed(text), text);  // whatever is created once is created now
  ASSERT_TRUE(engine.WaitLanes(0));
  const ProcessFootprint before = FootprintOf(engine.process().pid());
  ASSERT_GT(before.descriptors, 0u);

  int killed = 0;
  const uint64_t ended_before = LanesEnded(engine.Stats());
  for (int cycle = 0; cycle < 300; ++cycle) {
    if (random() % 6 != 0) {
      const ClientHandle client = Attached(engine);
      ExpectVector(client.Embed(text), text);
      continue;
    }
    const auto victim = StartClient(engine, "cycle");
    ExpectLine(*victim, "cycling");
    timespec pause = {0, static_cast<long>(random() % 4'000'000)};
    ppoll(nullptr, 0, &pause, nullptr);
    EXPECT_EQ(victim->Kill().signal, SIGKILL) << victim->Log();
    ++killed;
  }
  std::printf("300 lives, %d of them killed\n", killed);
  ASSERT_TRUE(engine.WaitLanes(0));
  EXPECT_GE(LanesEnded(engine.Stats()) - ended_before, 300u - static_cast<unsigned>(killed));
  // An attach that a kill cut short is dropped within its second, or when its socket hangs up.
  for (int look = 0; look < 1000 && !(FootprintOf(engine.process().pid()) == before); ++look) poll(nullptr, 0, 10);
  EXPECT_EQ(ToText(FootprintOf(engine.process().pid())), ToText(before));
}

// The comparison above must see a client that remains.
TEST_F(ClientDeath, CanaryAnAttachedClientShowsInTheFootprint) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ASSERT_TRUE(engine.WaitLanes(0));
  const ProcessFootprint before = FootprintOf(engine.process().pid());
  const ClientHandle client = Attached(engine);
  ASSERT_TRUE(engine.WaitLanes(1));
  const ProcessFootprint now = FootprintOf(engine.process().pid());
  EXPECT_GT(now.descriptors, before.descriptors);
  EXPECT_GT(now.lane_maps, before.lane_maps);
}

}  // namespace
}  // namespace sutra::test
