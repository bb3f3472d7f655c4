// A standby registers with the sessions of a running engine, over a real socket.
#include "engine/control/standby_link.h"

#include <gtest/gtest.h>
#include <poll.h>

#include "engine/control/control_client.h"
#include "tests/engine/control/control_world.h"

namespace sutra::test {
namespace {

std::vector<EngineStatus::Standby> Standbys(const ControlWorld& world) {
  const Result<EngineStatus> status = AskStatus(world.path(), InSeconds(30));
  EXPECT_TRUE(status.ok()) << status.status().message();
  return status.ok() ? status.value().standbys : std::vector<EngineStatus::Standby>();
}

// Until the engine's roster says so: a hang-up and an update reach it in time, not at once.
bool WaitRoster(const ControlWorld& world, const std::vector<std::string>& states) {
  const uint64_t deadline_ns = InSeconds(30);
  while (MonotonicNs() < deadline_ns) {
    std::vector<std::string> now;
    for (const EngineStatus::Standby& standby : Standbys(world)) now.push_back(standby.state);
    if (now == states) return true;
  }
  return false;
}

bool HungUp(int fd) {
  pollfd item = {fd, POLLIN, 0};
  return poll(&item, 1, 30'000) == 1 && (item.revents & (POLLHUP | POLLERR)) != 0;
}

TEST(StandbyLink, ARegisteredStandbyIsOnTheRosterUntilItHangsUp) {
  ControlWorld world;
  {
    Result<StandbyLink> link =
        StandbyLink::Register(world.path(), FittingStandby(StandbyState::kPreparing), InSeconds(30));
    ASSERT_TRUE(link.ok()) << link.status().message();
    const std::vector<EngineStatus::Standby> standbys = Standbys(world);
    ASSERT_EQ(standbys.size(), 1U);
    EXPECT_EQ(standbys[0].pid, static_cast<uint64_t>(getpid()));
    EXPECT_EQ(standbys[0].state, "preparing");
    EXPECT_TRUE(link->Update(StandbyState::kReady).ok());
    EXPECT_TRUE(WaitRoster(world, {"ready"}));
  }
  EXPECT_TRUE(WaitRoster(world, {}));
}

TEST(StandbyLink, NothingIsReadableUntilTheEngineEnds) {
  ControlWorld world;
  Result<StandbyLink> link = StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30));
  ASSERT_TRUE(link.ok());
  EXPECT_TRUE(link->Update(StandbyState::kPreparing).ok());
  EXPECT_TRUE(WaitRoster(world, {"preparing"}));
  pollfd item = {link->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&item, 1, 0), 0);
  world.Stop();
  EXPECT_TRUE(HungUp(link->fd()));
  EXPECT_EQ(link->Update(StandbyState::kReady).code(), StatusCode::kEngineGone);
}

TEST(StandbyLink, AnotherIdentityPrecisionOrWidthIsRefusedWithBoth) {
  ControlWorld world;
  StandbyHello identity = FittingStandby(), precision = FittingStandby(), width = FittingStandby();
  identity.identity = std::string(64, 'b');
  precision.precision = "bf16";
  width.width = 16;
  const std::pair<StandbyHello, const char*> others[] = {
      {identity, identity.identity.c_str()}, {precision, "bf16"}, {width, "width 16"}};
  for (const auto& [hello, words] : others) {
    const Result<StandbyLink> link = StandbyLink::Register(world.path(), hello, InSeconds(30));
    ASSERT_EQ(link.code(), StatusCode::kRefused);
    const std::string& message = link.status().message();
    EXPECT_NE(message.find(words), std::string::npos) << message;
    EXPECT_NE(message.find(std::string(64, 'a') + ", width 8, fp32"), std::string::npos) << message;
  }
  EXPECT_TRUE(Standbys(world).empty());
  EXPECT_EQ(world.Count(Counter::kControlRefused), 3U);
}

TEST(StandbyLink, TheRosterIsFullAtItsBound) {
  ControlWorld world;
  std::vector<StandbyLink> links;
  for (uint32_t i = 0; i < kStandbysMax; ++i) {
    Result<StandbyLink> link = StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30));
    ASSERT_TRUE(link.ok()) << i << ": " << link.status().message();
    links.push_back(std::move(link).value());
  }
  EXPECT_EQ(StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30)).code(), StatusCode::kOverloaded);
  EXPECT_EQ(Standbys(world).size(), kStandbysMax);
  links.pop_back();
  EXPECT_TRUE(WaitRoster(world, std::vector<std::string>(kStandbysMax - 1, "ready")));
  EXPECT_TRUE(StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30)).ok());
}

TEST(StandbyLink, ADrainingEngineIsGoneToAStandby) {
  ControlWorld world;
  world.SetState(kEngineDraining);
  EXPECT_EQ(StandbyLink::Register(world.path(), FittingStandby(), InSeconds(30)).code(), StatusCode::kEngineGone);
}

TEST(StandbyLink, NobodyThereIsEngineGone) {
  TempDir directory;
  EXPECT_EQ(StandbyLink::Register(directory / "s", FittingStandby(), InSeconds(30)).code(), StatusCode::kEngineGone);
}

TEST(StandbyLink, AnEngineThatDoesNotAnswerCostsTheDeadline) {
  TempDir directory;
  const Result<ListeningSocket> stopped = ListeningSocket::Open(directory / "s", 0600);
  ASSERT_TRUE(stopped.ok());
  const Result<StandbyLink> link =
      StandbyLink::Register(directory / "s", FittingStandby(), MonotonicNs() + 20 * kNsPerMs);
  EXPECT_EQ(link.code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(link.status().message().find("SIGSTOP"), std::string::npos) << link.status().message();
}

}  // namespace
}  // namespace sutra::test
