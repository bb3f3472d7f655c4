// Attacks by attaching: memory kept after a detach, descriptors used up, attaches during a drain, connections without a
// word, log lines hidden behind others.
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "tests/hostile/flood_fixture.h"
#include "tests/kit/raw_client.h"

namespace sutra::test {
namespace {

using AttachAttackTest = FloodTest;

constexpr uint64_t kMebi = 1 << 20;
constexpr double kSlowSeconds = 4;  // 150 attaches that take longer, as on a busy machine, stay within any rate here

struct Attached {
  sutra_status status = SUTRA_NOT_READY;
  std::string why;
};
Attached TryAttach(embed::Client* client, const std::string& socket, uint32_t timeout_ms, uint32_t slots = 8) {
  sutra_attach_options options = embed::AttachOptions();
  options.timeout_ms = timeout_ms;
  options.slots = slots;
  options.lanes_max = 1;
  Attached attached;
  attached.status = client->Attach(socket, options);
  if (attached.status != SUTRA_OK) attached.why = sutra_error_text();
  return attached;
}

// The quota of its user at once, then 16 MiB per second of reply memory.
void ExpectWhatTheRateAllows(uint64_t held, uint64_t quota, double seconds) {
  EXPECT_LE(static_cast<double>(held), static_cast<double>(quota) + seconds * 16.0 * static_cast<double>(kMebi));
}

// The pages of lane memory that only a client's descriptors keep alive are the engine's in the eyes of its cgroup.
TEST_F(AttachAttackTest, DescriptorsKeptAfterADetachHoldWhatTheRateOfAttachesAllows) {
  constexpr uint64_t kLaneBytes = 96 * kMebi;  // a quarter of it for one client
  StartEngine({"--attach-rate-max", "20", "--lane-bytes-max", std::to_string(kLaneBytes), "--lanes-max", "8"});
  const uint64_t start = MonotonicNs();
  const auto attacker = StartAttacker("hoard-memory", {"rounds=150", "slots=4096"});
  const uint64_t accepted = SaidNumber(*attacker, "accepted");
  const uint64_t refused = SaidNumber(*attacker, "refused");
  const uint64_t hinted = SaidNumber(*attacker, "hinted");
  const uint64_t held = SaidNumber(*attacker, "held");
  std::printf("%zu accepted, %zu refused, %zu with a hint; %.1f MiB held; %s\n", accepted, refused, hinted,
              static_cast<double>(held) / static_cast<double>(kMebi), Said(*attacker, "reason").c_str());
  EXPECT_GT(accepted, 0u);
  const double seconds = static_cast<double>(MonotonicNs() - start) / 1e9;
  EXPECT_TRUE(refused > 0 || seconds > kSlowSeconds) << "150 attaches in " << seconds << " s are no attack?";
  EXPECT_EQ(hinted, refused);
  ExpectWhatTheRateAllows(held, kLaneBytes, seconds);
  // And nobody else pays for it.
  EXPECT_TRUE(engine_->WaitLanes(0));
  Victim victim;
  EXPECT_EQ(victim.Attach(engine_->socket(), 8), SUTRA_OK) << sutra_error_text();
  EXPECT_EQ(victim.Ask("after the hoard").wrong, "");
}

// However fast it attaches: the quota of its user at once, then a rate.
TEST_F(AttachAttackTest, DescriptorsKeptAfterADetachHoldWhatTheRateOfReplyMemoryAllows) {
  constexpr uint64_t kLaneBytes = 96 * kMebi;
  StartEngine({"--attach-rate-max", "1000000", "--lane-bytes-max", std::to_string(kLaneBytes)});
  const uint64_t start = MonotonicNs();
  const auto attacker = StartAttacker("hoard-memory", {"rounds=150", "slots=4096"});
  const uint64_t accepted = SaidNumber(*attacker, "accepted");
  const uint64_t refused = SaidNumber(*attacker, "refused");
  EXPECT_EQ(SaidNumber(*attacker, "hinted"), refused);
  const uint64_t held = SaidNumber(*attacker, "held");
  const double seconds = static_cast<double>(MonotonicNs() - start) / 1e9;
  std::printf("%zu accepted, %zu refused; %.1f MiB held after %.1f s; %s\n", accepted, refused,
              static_cast<double>(held) / static_cast<double>(kMebi), seconds, Said(*attacker, "reason").c_str());
  EXPECT_TRUE(refused > 0 || seconds > kSlowSeconds) << "150 attaches in " << seconds << " s are no attack?";
  ExpectWhatTheRateAllows(held, kLaneBytes, seconds);
}

TEST_F(AttachAttackTest, CanaryMemoryOfAttachedLanesIsCounted) {
  StartEngine();
  std::vector<RawClient> clients;
  HelloMessage hello = RawClient::Hello();
  hello.slots = 4096;
  hello.text_bytes_max = 256;
  uint64_t held = 0;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(RawClient::Attach(engine_->socket(), hello));
    ASSERT_TRUE(clients.back().lane_ready()) << clients.back().welcome().message;
    struct stat status = {};
    ASSERT_EQ(fstat(clients.back().request_fd(), &status), 0);
    held += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  EXPECT_GT(held, 20 * kMebi);
}

TEST_F(AttachAttackTest, AFullEngineSaysSoAtOnce) {
  StartEngine({}, {}, {{RLIMIT_NOFILE, 200}});
  std::vector<std::unique_ptr<embed::Client>> clients;
  Attached last;
  while (clients.size() < 256 && (clients.empty() || last.status == SUTRA_OK)) {
    clients.push_back(std::make_unique<embed::Client>());
    last = TryAttach(clients.back().get(), engine_->socket(), 5000);
    for (int tries = 0; tries < 100 && last.status == SUTRA_OVERLOADED; ++tries) {
      poll(nullptr, 0, 20);
      last = TryAttach(clients.back().get(), engine_->socket(), 5000);
    }
  }
  std::printf("%zu lanes, then: %s\n", clients.size() - 1, last.why.c_str());
  EXPECT_EQ(last.status, SUTRA_REFUSED) << last.why;
  EXPECT_NE(last.why.find("limit"), std::string::npos) << last.why;
  EXPECT_EQ(engine_->Stats().gauge("lanes_max"), clients.size() - 1);
}

// Connections that say nothing take the engine's descriptors: it has none left for a lane, and says so.
TEST_F(AttachAttackTest, AnEngineOutOfDescriptorsSaysSoAtOnce) {
  StartEngine({"--lanes-max", "8"}, {}, {{RLIMIT_NOFILE, 150}});
  const auto attacker = StartAttacker("connect-silently", {"connections=400"});
  EXPECT_EQ(Said(*attacker, "silent"), "");
  for (int i = 0; i < 5; ++i) {
    embed::Client client;
    const Attached attached = TryAttach(&client, engine_->socket(), 5000);
    EXPECT_NE(attached.status, SUTRA_DEADLINE_EXCEEDED) << attached.why;
    EXPECT_NE(attached.status, SUTRA_ENGINE_GONE) << attached.why;
    if (i == 0) std::printf("%u: %s\n", attached.status, attached.why.c_str());
  }
}

TEST_F(AttachAttackTest, MoreLanesThanDescriptorsAreAStartUpError) {
  EngineOptions options;
  options.args = {"--lanes-max", "4096"};
  options.limits = {{RLIMIT_NOFILE, 1000}};
  EngineProcess engine(options);
  ASSERT_FALSE(engine.Start());
  const std::optional<ExitStatus> status = engine.process().Wait(0);
  ASSERT_TRUE(status.has_value()) << "it runs";
  EXPECT_TRUE(status->exited && status->code == 3) << ToText(*status);
  EXPECT_NE(engine.Log().find("--lanes-max"), std::string::npos) << engine.Log();
}

TEST_F(AttachAttackTest, AnAttachDuringADrainIsToldAtOnce) {
  StartEngine({}, {"SUTRA_FAKE_DELAY_US=1500000"});
  Victim waiting;
  ASSERT_EQ(waiting.Attach(engine_->socket(), 8), SUTRA_OK);
  embed::Ticket ticket;
  ASSERT_EQ(waiting.client().Submit("under way", &ticket, Victim::Options()), SUTRA_OK);
  ASSERT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.gauge("in_flight_texts") == 1; }));
  engine_->process().Signal(SIGTERM);
  ASSERT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.gauge("state") == kEngineDraining; }));
  embed::Client late;
  const Attached attached = TryAttach(&late, engine_->socket(), 1000);
  EXPECT_EQ(attached.status, SUTRA_SHUTTING_DOWN) << attached.why;
  EXPECT_EQ(waiting.Collect(&ticket, "under way").wrong, "");
  EXPECT_EQ(engine_->WaitEnd().code, 0);
  engine_ = nullptr;
}

class SilentAttachTest : public FloodTest {
 protected:
  // How many of ten attaches, one after the other, succeed.
  int Served() {
    int served = 0;
    for (int i = 0; i < 10; ++i) {
      embed::Client client;
      Attached attached = TryAttach(&client, engine_->socket(), 5000);
      for (int tries = 0; tries < 50 && attached.status == SUTRA_OVERLOADED; ++tries) {
        poll(nullptr, 0, 50);
        attached = TryAttach(&client, engine_->socket(), 5000);
      }
      served += attached.status == SUTRA_OK;
      if (attached.status != SUTRA_OK) why_ = attached.why;
    }
    return served;
  }
  std::string why_;
};

TEST_F(SilentAttachTest, ConnectionsOfOneProcessThatSayNothingKeepNobodyElseOut) {
  StartEngine();
  const auto attacker = StartAttacker("connect-silently", {"connections=1000"});
  EXPECT_EQ(Said(*attacker, "silent"), "");
  EXPECT_EQ(Served(), 10) << why_;
}

TEST_F(SilentAttachTest, ConnectionsOfAnotherUserThatSayNothingKeepNobodyOut) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to become another user";
  StartEngine({"--allow-uid", "65534"});
  ASSERT_EQ(chmod(engine_->directory().path().c_str(), 0755), 0);
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < 4; ++i) {
    attackers.push_back(StartAttacker("connect-silently", {"connections=300"}, 65534));
    EXPECT_EQ(Said(*attackers.back(), "silent"), "");
  }
  EXPECT_EQ(Served(), 10) << why_;
}

TEST_F(SilentAttachTest, ConnectionsOfManyProcessesThatSayNothingKeepNobodyElseOut) {
  StartEngine();
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < 4; ++i) {
    attackers.push_back(StartAttacker("connect-silently", {"connections=300"}));
    EXPECT_EQ(Said(*attackers.back(), "silent"), "");
  }
  EXPECT_EQ(Served(), 10) << why_;
}

// They claim memory for a second each.
TEST_F(SilentAttachTest, ConnectionsOfAnotherUserThatNeverTakeTheirLanesKeepNobodyOut) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to become another user";
  StartEngine({"--allow-uid", "65534", "--lanes-max", "64"});
  ASSERT_EQ(chmod(engine_->directory().path().c_str(), 0755), 0);
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < 4; ++i) {
    attackers.push_back(StartAttacker("connect-silently", {"connections=100", "hello=1"}, 65534));
    EXPECT_EQ(Said(*attackers.back(), "silent"), "");
  }
  EXPECT_EQ(Served(), 10) << why_;
}

// The largest lanes that there are, 140 MB each.
TEST_F(SilentAttachTest, LargeAttachesOfOthersKeepNobodyOut) {
  StartEngine({"--fake-width", "8192", "--text-bytes-max", "4096"});
  std::vector<std::unique_ptr<ChildProcess>> attackers;
  for (int i = 0; i < 4; ++i) {
    attackers.push_back(StartAttacker("storm-attaches", {"slots=4096"}));
    EXPECT_EQ(Said(*attackers.back(), "storming"), "");
  }
  EXPECT_EQ(Served(), 10) << why_;
}

class LogFloodTest : public FloodTest {
 protected:
  static RawClient RefusedClient(const std::string& socket) {
    HelloMessage hello = RawClient::Hello();
    hello.slots = 3;  // not a power of two
    return RawClient::Attach(socket, hello);
  }
  // Breaks the protocol once, so that the engine has something else to say.
  void BreakTheProtocol() {
    RawClient client = RawClient::Attach(engine_->socket());
    ASSERT_TRUE(client.lane_ready()) << client.welcome().message;
    client.PublishEntry(0, UINT64_MAX);
    client.Ring();
    EXPECT_TRUE(client.WaitClosed(kWaitMs));
  }
};

TEST_F(LogFloodTest, AClientThatIsRefusedAgainAndAgainHidesNoOtherLine) {
  StartEngine();
  std::atomic<bool> stop{false};
  std::thread flood([&] {
    while (!stop.load()) static_cast<void>(RefusedClient(engine_->socket()));
  });
  ASSERT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.counter("attaches_refused") > 50; }));
  for (int i = 0; i < 3; ++i) BreakTheProtocol();
  ASSERT_TRUE(
      engine_->WaitStats([](const StatsSnapshot& now) { return now.counter("lanes_protocol_violation") >= 3; }));
  stop.store(true);
  flood.join();
  EXPECT_NE(engine_->Log().find("closed: a submission ring entry"), std::string::npos)
      << "the violation is not in the log";
}

}  // namespace
}  // namespace sutra::test
