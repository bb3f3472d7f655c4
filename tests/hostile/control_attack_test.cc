// Attacks on control sessions: by a user who may attach and may not control, and by the engine's own user, who must not
// be able to keep others from the engine, or to stop it, by holding what it may use.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/control/control_client.h"
#include "engine/control/control_frame.h"
#include "engine/control/control_link.h"
#include "engine/control/standby_link.h"
#include "shm/base/time.h"
#include "tests/hostile/hostile_fixture.h"

namespace sutra::test {
namespace {

uint64_t InSeconds(uint64_t seconds) { return MonotonicNs() + seconds * kNsPerSecond; }
std::string Message(ControlCommand command, std::string_view body = {}) {
  return MakeControlMessage({.request_id = 1, .command = static_cast<uint32_t>(command)}, body);
}

class ControlAttackTest : public HostileTest {
 protected:
  RawClient Connect() {
    RawClient client = RawClient::Connect(engine_->socket());
    EXPECT_GE(client.socket(), 0);
    return client;
  }
  // An operator who comes now gets an answer in time, whatever happens beside.
  void ExpectOperatorIsHeard() {
    const Result<EngineStatus> status = AskStatus(engine_->socket(), InSeconds(60));
    EXPECT_TRUE(status.ok()) << status.status().message();
    EXPECT_EQ(status.ok() ? status.value().state : "", "serving");
  }
  bool WaitControlRefused(uint64_t more) {
    return engine_->WaitStats([&](const StatsSnapshot& now) {
      return now.counter("control_refused") >= before_.counter("control_refused") + more;
    });
  }
  bool WaitStandbys(uint64_t standbys) {
    return engine_->WaitStats([&](const StatsSnapshot& now) { return now.gauge("standbys") == standbys; });
  }
};

TEST_F(ControlAttackTest, HalfAMessageIsRefused) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  const StandbyBody body = {};
  const std::string whole = Message(ControlCommand::kRegisterStandby, BytesOf(body));
  uint64_t sent = 0;
  for (size_t bytes = 8; bytes < whole.size(); bytes += 7, ++sent) {
    const RawClient client = Connect();
    ASSERT_EQ(client.Send(whole.data(), bytes), 0);
    EXPECT_TRUE(client.HungUp(kWaitMs)) << bytes;
    char answer[1024];
    EXPECT_GT(recv(client.socket(), answer, sizeof(answer), MSG_DONTWAIT), 0) << "no cause for " << bytes << " bytes";
  }
  EXPECT_TRUE(WaitControlRefused(sent));
  ExpectOperatorIsHeard();
  ExpectNothingLeft(before);
}

TEST_F(ControlAttackTest, TheMagicAloneAndAHugeMessageAreRefused) {
  const uint64_t magic = kControlMagic;
  const RawClient alone = Connect();
  ASSERT_EQ(alone.Send(&magic, sizeof(magic)), 0);
  const RawClient huge = Connect();
  const std::string bytes = Message(ControlCommand::kStatus) + std::string(100'000, 'x');
  ASSERT_EQ(huge.Send(bytes.data(), bytes.size()), 0);
  EXPECT_TRUE(WaitControlRefused(2));
  ExpectOperatorIsHeard();
}

TEST_F(ControlAttackTest, ASilentHolderOfTheOnePlaceLosesIt) {
  const RawClient holder = Connect();
  const std::string status = Message(ControlCommand::kStatus);
  ASSERT_EQ(holder.Send(status.data(), status.size()), 0);
  ExpectOperatorIsHeard();
  EXPECT_TRUE(holder.HungUp(1)) << "whoever was heard has its place";
}

TEST_F(ControlAttackTest, AHolderThatSpeaksWithoutReadingLosesItsPlace) {
  const RawClient holder = Connect();
  const std::string status = Message(ControlCommand::kStatus);
  for (int i = 0; i < 100'000 && holder.Send(status.data(), status.size()) != EPIPE; ++i) {
  }
  ExpectOperatorIsHeard();
}

TEST_F(ControlAttackTest, AFloodOfSessionsKeepsNobodyFromTheEngine) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  const std::string status = Message(ControlCommand::kStatus);
  for (int round = 0; round < 50; ++round) {
    std::vector<RawClient> clients;
    for (int i = 0; i < 40; ++i) {
      clients.push_back(Connect());
      if (i % 4 != 3) static_cast<void>(clients.back().Send(status.data(), status.size()));
    }
  }
  ExpectOperatorIsHeard();
  EXPECT_TRUE(Attach().lane_ready());
  ExpectNothingLeft(before);
}

TEST_F(ControlAttackTest, AFloodOfStandbysStopsAtTheBoundAndLeavesNothing) {
  const Result<EngineStatus> status = AskStatus(engine_->socket(), InSeconds(60));
  ASSERT_TRUE(status.ok()) << status.status().message();
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  const StandbyHello hello = {.identity = status.value().identity,
                              .precision = status.value().precision,
                              .width = static_cast<uint32_t>(status.value().width),
                              .pid = 1,
                              .state = StandbyState::kPreparing};
  {
    std::vector<StandbyLink> links;
    for (uint32_t i = 0; i < 4 * kStandbysMax; ++i) {
      Result<StandbyLink> link = StandbyLink::Register(engine_->socket(), hello, InSeconds(60));
      EXPECT_EQ(link.ok(), i < kStandbysMax) << i;
      if (link.ok()) links.push_back(std::move(link).value());
    }
    EXPECT_TRUE(WaitStandbys(kStandbysMax));
    // Updates as fast as they go: the loop reads them one by one.
    for (int i = 0; i < 20'000; ++i) static_cast<void>(links[i % kStandbysMax].Update(StandbyState::kPreparing));
    EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
    ExpectOperatorIsHeard();
  }
  EXPECT_TRUE(WaitStandbys(0));
  ExpectNothingLeft(before);
}

// A hand-over needs a standby that is ready; one that only claims to be one serves what this engine serves, or is
// refused.
TEST_F(ControlAttackTest, AStandbyOfAnotherModelMakesNoHandOverPossible) {
  const StandbyHello other = {
      .identity = std::string(64, 'f'), .precision = "fp32", .width = 48, .pid = 1, .state = StandbyState::kReady};
  EXPECT_EQ(StandbyLink::Register(engine_->socket(), other, InSeconds(60)).code(), StatusCode::kRefused);
  EXPECT_EQ(AskHandOver(engine_->socket(), InSeconds(60)).code(), StatusCode::kRefused);
}

TEST_F(ControlAttackTest, DescriptorsWithACommandStayOutside) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  const std::string status = Message(ControlCommand::kStatus);
  for (int i = 0; i < 10; ++i) {
    const RawClient client = Connect();
    // A kernel with SO_PASSRIGHTS refuses them at once; on others they are discarded on arrival.
    static_cast<void>(client.Send(status.data(), status.size(), std::vector<int>(64, STDERR_FILENO)));
  }
  ExpectOperatorIsHeard();
  ExpectNothingLeft(before);
}

class ControlStrangerTest : public ControlAttackTest {
 protected:
  static constexpr uid_t kStranger = 65'534;
  bool StartsEngine() const override { return false; }
  // What another user, who may attach, sees: as a forked child, since a connection's user is that of its connect.
  template <typename Step>
  static int AsStranger(const Step& step) {
    const pid_t pid = fork();
    if (pid == 0)
      _exit(setresgid(kStranger, kStranger, kStranger) != 0 || setresuid(kStranger, kStranger, kStranger) != 0
                ? 99
                : step());
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
};

TEST_F(ControlStrangerTest, AnotherUserControlsNothingHoweverOftenItTries) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to become another user";
  EngineOptions options;
  options.args = {"--allow-uid", std::to_string(kStranger)};
  StartEngine(std::move(options));
  ASSERT_EQ(chmod(engine_->directory().path().c_str(), 0755), 0);
  const std::string path = engine_->socket();
  const int refused = AsStranger([&] {
    int count = 0;
    for (int i = 0; i < 50; ++i) {
      count += AskStatus(path, InSeconds(60)).code() == StatusCode::kRefused;
      count += AskHandOver(path, InSeconds(60)).code() == StatusCode::kRefused;
    }
    return count;
  });
  EXPECT_EQ(refused, 100);
  EXPECT_TRUE(WaitControlRefused(100));
  EXPECT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.gauge("standbys") == 0; }));
  ExpectOperatorIsHeard();
}

// Of users who may do nothing at all: they fill every place that strangers have.
TEST_F(ControlStrangerTest, StrangersWhoSayNothingKeepNoOperatorOut) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to become another user";
  EngineOptions options;
  options.args = {"--socket-mode", "0666"};
  StartEngine(std::move(options));
  ASSERT_EQ(chmod(engine_->directory().path().c_str(), 0755), 0);
  const std::string path = engine_->socket();
  int hold[2];
  ASSERT_EQ(pipe(hold), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    if (setresuid(kStranger, kStranger, kStranger) != 0) _exit(99);
    close(hold[1]);
    std::vector<RawClient> silent;
    for (int i = 0; i < 200; ++i) silent.push_back(RawClient::Connect(path));
    char byte;
    _exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
  }
  close(hold[0]);
  for (int i = 0; i < 20; ++i) ExpectOperatorIsHeard();
  close(hold[1]);
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace sutra::test
