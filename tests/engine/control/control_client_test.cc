// An operator's questions to real sessions, and what becomes of answers that no engine gives.
#include "engine/control/control_client.h"

#include <gtest/gtest.h>

#include "engine/control/control_link.h"
#include "engine/control/standby_link.h"
#include "tests/engine/control/control_world.h"

namespace sutra::test {
namespace {

TEST(ControlClient, StatusShowsTheEngineAndItsStandbys) {
  ControlWorld world;
  const Result<StandbyLink> standby = StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30));
  ASSERT_TRUE(standby.ok());
  const Result<EngineStatus> status = AskStatus(world.path(), InSeconds(30));
  ASSERT_TRUE(status.ok()) << status.status().message();
  const EngineStatus& now = status.value();
  EXPECT_EQ(now.pid, static_cast<uint64_t>(getpid()));
  EXPECT_EQ(now.engine_generation, "0000000000000007");
  EXPECT_EQ(now.version, "1.2.3");
  EXPECT_EQ(now.socket, world.path());
  EXPECT_EQ(now.state, "serving");
  EXPECT_EQ(now.lanes, 3U);
  EXPECT_EQ(now.clients, 2U);
  EXPECT_EQ(now.log_level, "info");
  ASSERT_EQ(now.standbys.size(), 1U);
  const std::string text = EngineStatusText(now);
  EXPECT_NE(text.find("serving, pid " + std::to_string(getpid())), std::string::npos) << text;
  EXPECT_NE(text.find("standby   pid " + std::to_string(getpid()) + ", ready"), std::string::npos) << text;
}

TEST(ControlClient, LogLevelIsSetAndTheOldOneReturned) {
  ControlWorld world;
  const Result<LogVerbosity> before = AskLogLevel(world.path(), LogVerbosity::kTrace, InSeconds(30));
  ASSERT_TRUE(before.ok()) << before.status().message();
  EXPECT_EQ(before.value(), LogVerbosity::kInfo);
  EXPECT_EQ(AskLogLevel(world.path(), LogVerbosity::kError, InSeconds(30)).value(), LogVerbosity::kTrace);
  world.Stop();
  EXPECT_EQ(world.verbosity(), LogVerbosity::kError);
}

TEST(ControlClient, HandOverIsRefusedWithoutAStandbyAndConfirmedWithOne) {
  ControlWorld world;
  const Result<HandOverBody> refused = AskHandOver(world.path(), InSeconds(30));
  EXPECT_EQ(refused.code(), StatusCode::kRefused);
  EXPECT_NE(refused.status().message().find("--standby"), std::string::npos) << refused.status().message();
  const Result<StandbyLink> standby = StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30));
  ASSERT_TRUE(standby.ok());
  const Result<HandOverBody> confirmed = AskHandOver(world.path(), InSeconds(30));
  ASSERT_TRUE(confirmed.ok()) << confirmed.status().message();
  EXPECT_EQ(confirmed.value().engine_generation, 7U);
  world.Stop();
  EXPECT_EQ(world.hand_overs(), 1);
}

TEST(ControlClient, TheNextEngineIsOneOfAnotherGeneration) {
  ControlWorld world;  // of generation 7
  const HandOverBody other = {.engine_generation = 6, .engine_pid = 1, .standby_pid = 2};
  EXPECT_TRUE(WaitForNextEngine(world.path(), other, InSeconds(30)).ok());
  const HandOverBody same = {.engine_generation = 7, .engine_pid = 1, .standby_pid = 2};
  const Result<EngineStatus> none = WaitForNextEngine(world.path(), same, MonotonicNs() + 50 * kNsPerMs);
  EXPECT_EQ(none.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(none.status().message().find("still draining"), std::string::npos) << none.status().message();
}

TEST(ControlClient, AHeldPlaceIsWaitedFor) {
  ControlWorld world;
  Result<ControlLink> holder = ControlLink::Connect(world.path(), InSeconds(30));
  ASSERT_TRUE(holder.ok());
  ASSERT_TRUE(holder->Ask(ControlCommand::kStatus, {}, InSeconds(30)).ok());
  EXPECT_EQ(AskStatus(world.path(), MonotonicNs() + 20 * kNsPerMs).code(), StatusCode::kOverloaded);
  EXPECT_TRUE(AskStatus(world.path(), InSeconds(30)).ok()) << "the holder is silent, which ends its session";
}

TEST(ControlClient, AStatusThatIsNoneIsAViolation) {
  for (const char* json : {"", "{", "[]", "7", "{}", R"({"pid":"1","engine_generation":"x"})", R"({"pid":1})",
                           R"({"pid":1,"engine_generation":"x","standbys":[3]})"}) {
    EXPECT_EQ(ParseEngineStatus(json).code(), StatusCode::kProtocolViolation) << json;
  }
}

TEST(ControlClient, AStatusWithOtherFieldsIsReadAsFarAsItGoes) {
  const Result<EngineStatus> status =
      ParseEngineStatus(R"({"pid":1,"engine_generation":"x","later":[],"lanes":"many","model":"a\nb"})");
  ASSERT_TRUE(status.ok()) << status.status().message();
  EXPECT_EQ(status.value().lanes, 0U);
  EXPECT_EQ(status.value().model, "a?b");
  EXPECT_TRUE(status.value().standbys.empty());
  EXPECT_NE(EngineStatusText(status.value()).find("standbys  none"), std::string::npos);
}

}  // namespace
}  // namespace sutra::test
