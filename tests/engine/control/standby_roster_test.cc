// Who is on the roster, in which order, and which of them is named in a hand-over.
#include "engine/control/standby_roster.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

ModelInfo Model() {
  ModelInfo model;
  model.identity = std::string(64, 'a');
  model.width = 8;
  model.precision = "fp32";
  return model;
}
StandbyHello Hello(uint32_t pid, StandbyState state) {
  return {.identity = std::string(64, 'a'), .precision = "fp32", .width = 8, .pid = pid, .state = state};
}

TEST(StandbyRoster, CountsThoseThatAreReady) {
  StandbyRoster roster(Model());
  EXPECT_EQ(roster.ReadyPid(5), 0U);
  ASSERT_TRUE(roster.Add(1, Hello(11, StandbyState::kPreparing), 5).ok());
  ASSERT_TRUE(roster.Add(2, Hello(12, StandbyState::kReady), 6).ok());
  EXPECT_EQ(roster.size(), 2U);
  EXPECT_EQ(roster.Ready(6), 1U);
  EXPECT_EQ(roster.ReadyPid(6), 12U);
  EXPECT_TRUE(roster.Update(1, StandbyState::kReady, 7));
  EXPECT_EQ(roster.Ready(7), 2U);
  EXPECT_EQ(roster.ReadyPid(7), 11U);
}

TEST(StandbyRoster, OneThatGivesNoSignOfLifeIsNotReadyUntilItDoes) {
  constexpr uint64_t kSilentNs = kStandbySilentMs * kNsPerMs;
  StandbyRoster roster(Model());
  ASSERT_TRUE(roster.Add(1, Hello(11, StandbyState::kReady), 5).ok());
  EXPECT_EQ(roster.Ready(5 + kSilentNs), 1U);
  EXPECT_EQ(roster.Ready(6 + kSilentNs), 0U);
  EXPECT_EQ(roster.ReadyPid(6 + kSilentNs), 0U);
  EXPECT_TRUE(roster.Has(1));
  ASSERT_TRUE(roster.Update(1, StandbyState::kReady, 7 + kSilentNs));
  EXPECT_EQ(roster.ReadyPid(8 + kSilentNs), 11U);
}

TEST(StandbyRoster, AnEndedConnectionIsGone) {
  StandbyRoster roster(Model());
  ASSERT_TRUE(roster.Add(1, Hello(11, StandbyState::kReady), 5).ok());
  roster.Remove(1);
  EXPECT_FALSE(roster.Has(1));
  EXPECT_FALSE(roster.Update(1, StandbyState::kReady, 6));
  EXPECT_EQ(roster.size(), 0U);
}

TEST(StandbyRoster, AStandbyOfAnotherModelChangesNothing) {
  StandbyRoster roster(Model());
  StandbyHello other = Hello(11, StandbyState::kReady);
  other.identity = std::string(64, 'b');
  const Status status = roster.Add(1, other, 5);
  EXPECT_EQ(status.code(), StatusCode::kRefused);
  EXPECT_NE(status.message().find(other.identity), std::string::npos);
  EXPECT_NE(status.message().find(Model().identity), std::string::npos);
  EXPECT_EQ(roster.size(), 0U);
}

}  // namespace
}  // namespace sutra
