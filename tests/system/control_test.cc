// Control sessions with real engines: what an operator sees and does, who may, and what an engine that is stopped, gone
// or of another program makes of it.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "engine/control/control_client.h"
#include "engine/control/control_link.h"
#include "engine/control/standby_link.h"
#include "engine/exit_code.h"
#include "shm/base/time.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

constexpr uid_t kStranger = 65'534;

uint64_t InSeconds(uint64_t seconds) { return MonotonicNs() + seconds * kNsPerSecond; }

class ControlTest : public SystemTest {
 protected:
  static Finished RunProgram(std::vector<std::string> args, std::optional<uid_t> uid = {}) {
    SpawnOptions spawn;
    spawn.args = std::move(args);
    spawn.uid = uid;
    return RunToEnd(std::move(spawn), kWaitMs);
  }
  static Finished Operate(std::vector<std::string> args, std::optional<uid_t> uid = {}) {
    args.insert(args.begin(), EngineProgram());
    return RunProgram(std::move(args), uid);
  }
  static EngineStatus Status(const EngineProcess& engine) {
    Result<EngineStatus> status = AskStatus(engine.socket(), InSeconds(30));
    EXPECT_TRUE(status.ok()) << status.status().message();
    return status.ok() ? std::move(status).value() : EngineStatus();
  }
  // What a standby of the same model would say.
  static StandbyHello Fitting(const EngineProcess& engine) {
    const EngineStatus now = Status(engine);
    return {.identity = now.identity,
            .precision = now.precision,
            .width = static_cast<uint32_t>(now.width),
            .pid = static_cast<uint32_t>(getpid()),
            .state = StandbyState::kReady};
  }
  static bool WaitStandbys(const EngineProcess& engine, uint64_t standbys, uint64_t ready) {
    return engine.WaitStats([&](const StatsSnapshot& now) {
      return now.gauge("standbys") == standbys && now.gauge("standbys_ready") == ready;
    });
  }
  static void ExpectEnd(const Finished& finished, ExitCode code, const std::string& words) {
    EXPECT_TRUE(finished.status.exited && finished.status.code == code) << ToText(finished.status);
    EXPECT_NE(finished.errors.find(words), std::string::npos) << finished.errors;
    EXPECT_EQ(finished.output, "");
  }
};

TEST_F(ControlTest, StatusShowsTheEngineAsTextAndAsJson) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const Finished text = Operate({"--status", engine.socket()});
  EXPECT_EQ(text.status.code, kExitClean) << text.errors;
  const std::string pid = std::to_string(engine.process().pid());
  EXPECT_NE(text.output.find("engine    serving, pid " + pid), std::string::npos) << text.output;
  EXPECT_NE(text.output.find("standbys  none"), std::string::npos) << text.output;
  const Finished json = Operate({"--status", engine.socket(), "--json"});
  const nlohmann::json status = nlohmann::json::parse(json.output);
  EXPECT_EQ(status["pid"], engine.process().pid());
  EXPECT_EQ(status["state"], "serving");
  EXPECT_EQ(status["model"], "fake");
  EXPECT_EQ(status["lanes"], 1);
  EXPECT_EQ(status["clients"], 1);
  EXPECT_EQ(status["socket"], engine.socket());
  EXPECT_EQ(status["log_level"], "info");
}

TEST_F(ControlTest, TheLogLevelChangesWhileTheEngineServes) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const Finished less = Operate({"--set-log-level", "err", "--socket", engine.socket()});
  EXPECT_EQ(less.output, "log level err, before info\n") << less.errors;
  EXPECT_EQ(Status(engine).log_level, "err");
  EXPECT_NE(engine.Log().find("log level err, before info"), std::string::npos) << "the change itself is in the log";
  const Finished more = Operate({"--set-log-level", "trace", "--socket", engine.socket(), "--json"});
  EXPECT_EQ(nlohmann::json::parse(more.output)["before"], "err");
  EXPECT_NE(engine.Log().find("log level trace, before err"), std::string::npos);
  EXPECT_TRUE(engine.Terminate().exited);
}

TEST_F(ControlTest, CommandsThatMakeNoSenseAreUsageErrors) {
  const std::vector<std::string> wrong[] = {{"--status", "/s", "--hand-over", "/s"},
                                            {"--status", "/s", "--backend", "fake"},
                                            {"--set-log-level", "info"},
                                            {"--set-log-level", "loud", "--socket", "/s"},
                                            {"--json"},
                                            {"--hand-over", "/s", "--wait-s", "0"}};
  for (const std::vector<std::string>& args : wrong) {
    const Finished finished = Operate(args);
    EXPECT_TRUE(finished.status.exited && finished.status.code == kExitUsage) << args[0] << args.size();
  }
}

TEST_F(ControlTest, WithoutAnEngineTheErrorNamesTheSocket) {
  TempDir directory;
  for (const char* command : {"--status", "--hand-over"}) {
    ExpectEnd(Operate({command, directory / "nobody"}), kExitNoEngine, directory / "nobody");
  }
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  engine.Kill();
  ExpectEnd(Operate({"--status", engine.socket()}), kExitNoEngine, "start one");
}

TEST_F(ControlTest, AStoppedEngineCostsTheDeadline) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  engine.process().Stop();
  ExpectEnd(Operate({"--status", engine.socket()}), kExitNoAnswer, "SIGSTOP");
  engine.process().Continue();
  EXPECT_EQ(Status(engine).state, "serving");
}

TEST_F(ControlTest, AStrangerMayAttachAndMayNotControl) {
  std::string reason;
  if (!OtherUserCanRunEngine(kStranger, &reason)) GTEST_SKIP() << "SKIPPED: " << reason;
  EngineOptions options;
  options.args = {"--allow-uid", std::to_string(kStranger)};
  EngineProcess engine(std::move(options));
  ASSERT_TRUE(engine.Start());
  ASSERT_EQ(chmod(engine.directory().path().c_str(), 0755), 0);
  ExpectEnd(Operate({"--status", engine.socket()}, kStranger), kExitRefused, "--control-gid");
  EXPECT_TRUE(engine.WaitStats([](const StatsSnapshot& now) { return now.counter("control_refused") == 1; }));
}

TEST_F(ControlTest, RootAndTheGroupMayControlAnEngineOfAnotherUser) {
  std::string reason;
  if (!OtherUserCanRunEngine(kStranger, &reason)) GTEST_SKIP() << "SKIPPED: " << reason;
  constexpr gid_t kOperators = 65'533;  // RunToEnd gives a user the group of the same number
  EngineOptions options;
  options.uid = kStranger;
  options.args = {"--control-gid", std::to_string(kOperators)};
  EngineProcess engine(std::move(options));
  engine.Launch();
  const uint64_t deadline_ns = InSeconds(60);  // root, who may not attach, asks until it serves
  while (!AskStatus(engine.socket(), deadline_ns).ok()) ASSERT_LT(MonotonicNs(), deadline_ns);
  ASSERT_EQ(chmod(engine.directory().path().c_str(), 0755), 0);
  EXPECT_EQ(Operate({"--status", engine.socket()}).status.code, kExitClean);
  EXPECT_EQ(Operate({"--status", engine.socket()}, kOperators).status.code, kExitClean);
  ExpectEnd(Operate({"--status", engine.socket()}, kOperators - 1), kExitRefused, "--control-gid");
}

TEST_F(ControlTest, AStandbyIsSeenByTheOperatorAndInTheStatsUntilItIsGone) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  {
    StandbyHello hello = Fitting(engine);
    hello.state = StandbyState::kPreparing;
    Result<StandbyLink> standby = StandbyLink::Register(engine.socket(), hello, InSeconds(30));
    ASSERT_TRUE(standby.ok()) << standby.status().message();
    EXPECT_TRUE(WaitStandbys(engine, 1, 0));
    EXPECT_TRUE(standby->Update(StandbyState::kReady).ok());
    EXPECT_TRUE(WaitStandbys(engine, 1, 1));
    const Finished text = Operate({"--status", engine.socket()});
    EXPECT_NE(text.output.find("standby   pid " + std::to_string(getpid()) + ", ready"), std::string::npos)
        << text.output;
    const Finished stat = RunProgram({SUTRA_STAT_PROGRAM, "--socket", engine.socket()});
    EXPECT_NE(stat.output.find("standbys 1 (1 of them ready)"), std::string::npos) << stat.output << stat.errors;
  }
  EXPECT_TRUE(WaitStandbys(engine, 0, 0));
  EXPECT_NE(engine.Log().find("the standby pid " + std::to_string(getpid()) + " is gone"), std::string::npos);
}

TEST_F(ControlTest, HandOverIsRefusedWithoutAStandbyAndTheEngineServesOn) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  ExpectEnd(Operate({"--hand-over", engine.socket()}), kExitRefused, "--standby");
  EXPECT_EQ(Status(engine).state, "serving");
}

// The standby is played by this test: it registers, waits for the hang-up, and starts the next engine then.
TEST_F(ControlTest, HandOverEndsTheEngineAndReturnsWhenTheNextOneAnswers) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  Result<StandbyLink> standby = StandbyLink::Register(engine.socket(), Fitting(engine), InSeconds(30));
  ASSERT_TRUE(standby.ok()) << standby.status().message();
  ASSERT_TRUE(WaitStandbys(engine, 1, 1));
  const std::string before = std::to_string(engine.process().pid());
  SpawnOptions spawn;
  spawn.args = {EngineProgram(), "--hand-over", engine.socket()};
  spawn.pipe_output = true;
  spawn.log_path = engine.directory() / "operator.log";
  ChildProcess handing_over(spawn);
  const ExitStatus ended = engine.WaitEnd();
  EXPECT_TRUE(ended.exited && ended.code == kExitClean) << ToText(ended);
  char byte;
  EXPECT_EQ(recv(standby->fd(), &byte, 1, 0), 0) << "the standby sees the hang-up";
  ASSERT_TRUE(engine.Start());
  const std::optional<ExitStatus> status = handing_over.Wait(kWaitMs);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->exited && status->code == kExitClean) << ToText(*status) << handing_over.Log();
  const std::string said = handing_over.ReadOutput(kWaitMs);
  const std::string expected =
      "pid " + before + " handed over to pid " + std::to_string(engine.process().pid()) + " in ";
  EXPECT_EQ(said.substr(0, expected.size()), expected);
}

TEST_F(ControlTest, AHandOverThatNobodyTakesIsReported) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  const Result<StandbyLink> standby = StandbyLink::Register(engine.socket(), Fitting(engine), InSeconds(30));
  ASSERT_TRUE(standby.ok()) << standby.status().message();
  ExpectEnd(Operate({"--hand-over", engine.socket(), "--wait-s", "1"}), kExitNoAnswer, std::to_string(getpid()));
  EXPECT_EQ(engine.WaitEnd().code, kExitClean);
}

TEST_F(ControlTest, ADrainingEngineStillShowsItsStatus) {
  EngineOptions options;
  options.environment = {"SUTRA_FAKE_DELAY_US=3000000"};
  EngineProcess engine(std::move(options));
  ASSERT_TRUE(engine.Start());
  const auto client = StartClient(engine, "stream");
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& now) { return now.gauge("in_flight_texts") > 0; }));
  engine.process().Signal(SIGTERM);
  ASSERT_TRUE(engine.WaitStats([](const StatsSnapshot& now) { return now.gauge("state") == 2; }));
  EXPECT_EQ(Status(engine).state, "draining");
  ExpectEnd(Operate({"--hand-over", engine.socket()}), kExitRefused, "shutting down");
  ClientHandle late;
  EXPECT_EQ(late.Attach(engine.socket()), SUTRA_SHUTTING_DOWN) << "clients are refused as before";
  EXPECT_TRUE(engine.WaitEnd().exited);
}

TEST_F(ControlTest, AnOperatorThatDiesLeavesTheEngineAsItWas) {
  EngineProcess engine;
  ASSERT_TRUE(engine.Start());
  for (int i = 0; i < 20; ++i) {
    Result<ControlLink> link = ControlLink::Connect(engine.socket(), InSeconds(30));
    ASSERT_TRUE(link.ok());
    if (i % 2 == 0) continue;  // says nothing at all
    const UniqueFd socket = link->TakeSocket();
    const std::string half = MakeControlMessage({.request_id = 1, .command = 3}, "half");
    EXPECT_EQ(send(socket.get(), half.data(), half.size(), MSG_NOSIGNAL), static_cast<ssize_t>(half.size()));
  }
  const EngineStatus now = Status(engine);
  EXPECT_EQ(now.state, "serving");
  EXPECT_EQ(now.log_level, "info");
}

}  // namespace
}  // namespace sutra::test
