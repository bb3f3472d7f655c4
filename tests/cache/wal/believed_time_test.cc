// What is believed of a wall clock that jumps, drifts, returns or was never set.
#include "cache/wal/believed_time.h"

#include <gtest/gtest.h>

#include "tests/sim/manual_clock.h"

namespace sutra {
namespace {

constexpr uint64_t kS = kNsPerSecond;
constexpr uint64_t kDay = 86'400 * kS;

class BelievedTimeTest : public testing::Test {
 protected:
  uint64_t Highest() { return time_.Highest(clock_); }
  uint64_t ForExpiry() { return time_.ForExpiry(clock_); }

  sim::ManualClock clock_;
  const uint64_t wall_ = clock_.WallNs();
  BelievedTime time_;
};

TEST_F(BelievedTimeTest, FollowsAClockThatAgreesAndNeverGoesBack) {
  time_.Start(clock_, wall_ - 5 * kS);
  EXPECT_EQ(Highest(), wall_);
  EXPECT_FALSE(time_.Disagrees(clock_));
  clock_.SetWall(wall_ - 1000);
  EXPECT_EQ(Highest(), wall_);
  EXPECT_EQ(ForExpiry(), wall_);
  clock_.SetWall(wall_ + 50 * kS);
  EXPECT_EQ(Highest(), wall_ + 50 * kS);
}

TEST_F(BelievedTimeTest, AJumpForwardIsBelievedOnceItHeld) {
  time_.Start(clock_, wall_);
  clock_.SetWall(wall_ + kDay);
  EXPECT_EQ(Highest(), wall_);
  EXPECT_EQ(ForExpiry(), wall_) << "an engine that knew the time has a better one than this";
  EXPECT_TRUE(time_.Disagrees(clock_));
  clock_.Advance(kClockHoldNs - 1);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs - 1) << "meanwhile time goes on";
  clock_.Advance(1);
  EXPECT_EQ(Highest(), wall_ + kDay + kClockHoldNs);
  EXPECT_FALSE(time_.Disagrees(clock_));
}

TEST_F(BelievedTimeTest, AJumpThatReturnsOrMovesStartsAnew) {
  time_.Start(clock_, wall_);
  clock_.SetWall(wall_ + kDay);
  EXPECT_EQ(Highest(), wall_);
  clock_.Advance(kClockHoldNs / 2);
  const uint64_t ahead = clock_.WallNs();
  clock_.SetWall(ahead - kDay);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs / 2);
  clock_.SetWall(ahead);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs / 2);
  clock_.Advance(kClockHoldNs / 2);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs) << "the first half does not count";
  clock_.SetWall(clock_.WallNs() + kDay);
  clock_.Advance(kClockHoldNs / 2);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs * 3 / 2) << "another jump: it starts anew";
}

TEST_F(BelievedTimeTest, AClockThatIsBehindIsNeverBelievedAndStopsNothing) {
  time_.Start(clock_, wall_);
  clock_.SetWall(wall_ - 30 * kDay);
  for (int day = 1; day <= 20; ++day) {
    clock_.Advance(kDay);
    EXPECT_EQ(Highest(), wall_ + static_cast<uint64_t>(day) * kDay);
    EXPECT_EQ(ForExpiry(), Highest());
  }
}

TEST_F(BelievedTimeTest, AStartBehindTheClockTakesItForNewEntriesOnly) {
  time_.Start(clock_, wall_ - 3 * kDay);
  EXPECT_EQ(Highest(), wall_ - 3 * kDay);
  EXPECT_EQ(ForExpiry(), wall_) << "it may well have stood still for three days";
  clock_.Advance(kClockHoldNs);
  EXPECT_EQ(Highest(), wall_ + kClockHoldNs) << "watched since the start, without a call in between";
}

TEST_F(BelievedTimeTest, AClockThatWasNeverSetIsNotTrusted) {
  clock_.SetWall(1000 * kS);
  time_.Start(clock_, 0);
  EXPECT_EQ(Highest(), 1000 * kS);
  clock_.SetWall(wall_);
  EXPECT_EQ(ForExpiry(), wall_) << "the first time that is one";
  EXPECT_EQ(Highest(), 1000 * kS);
}

TEST_F(BelievedTimeTest, ALogThatWasWrittenWithoutAClockIsNoReasonToDoubtOneThatIsSet) {
  time_.Start(clock_, 1000 * kS);
  EXPECT_EQ(Highest(), wall_);
  clock_.SetWall(wall_ + kDay);
  EXPECT_EQ(ForExpiry(), wall_) << "and from then on it is trusted like any other";
}

TEST_F(BelievedTimeTest, WithoutAClockTheLogsOwnTimeGoesOn) {
  clock_.SetWall(kS);
  time_.Start(clock_, 1000 * kS);
  EXPECT_EQ(Highest(), 1000 * kS);
}

TEST_F(BelievedTimeTest, SlowDriftIsFollowedForEver) {
  time_.Start(clock_, wall_);
  for (int day = 0; day < 300; ++day) {
    clock_.Advance(kDay);
    clock_.SetWall(clock_.WallNs() + 2 * kS);
    ASSERT_EQ(Highest(), clock_.WallNs()) << "day " << day;
  }
}

}  // namespace
}  // namespace sutra
