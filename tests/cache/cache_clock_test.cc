// What the machine's clocks may do to the lifetimes of entries: suspends, jumps of the wall clock that return or stay,
// machines that start without a clock; with and without restarts. WAL_FORMAT.md, "Clocks", has the promises.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/cache/wal/log_fixture.h"

namespace sutra {
namespace {

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kMinute = 60 * kS;
constexpr uint64_t kHour = 60 * kMinute;
constexpr uint64_t kDay = 24 * kHour;

class CacheClockTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }
  void Restart() {
    shard_.reset();
    Result<std::unique_ptr<LoggedShard>> shard =
        LoggedShard::Open(test::SmallConfig("/data"), &disk_, &clock_, test::Inline());
    ASSERT_TRUE(shard.ok()) << shard.status().message();
    shard_ = std::move(shard).value();
  }
  // Entries of the default lifetime, a day.
  void Put(const std::string& prefix, uint32_t count = 20, uint64_t ttl_s = 0) {
    for (uint32_t i = 0; i < count; ++i) test::Put(shard_.get(), prefix + std::to_string(i), i, ttl_s);
    ASSERT_TRUE(shard_->Sync().ok());
  }
  int Found(const std::string& prefix, uint32_t count = 20) {
    int found = 0;
    for (uint32_t i = 0; i < count; ++i) {
      found += test::VersionOf(shard_.get(), prefix + std::to_string(i)) == static_cast<int>(i);
    }
    return found;
  }
  void Jump(uint64_t ns) { clock_.SetWall(clock_.WallNs() + ns); }
  void JumpBack(uint64_t ns) { clock_.SetWall(clock_.WallNs() - ns); }
  void Pass(uint64_t ns) {
    clock_.Advance(ns);
    shard_->Turn();
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
  std::unique_ptr<LoggedShard> shard_;
};

TEST_F(CacheClockTest, TimeThatTheHostSleptCounts) {
  Put("t");
  clock_.Suspend(kDay - kS);
  EXPECT_EQ(Found("t"), 20);
  clock_.Suspend(kS);
  EXPECT_EQ(Found("t"), 0);
}

TEST_F(CacheClockTest, OneInsertWhileTheClockIsAheadEmptiesNothing) {
  Put("before");
  Jump(30 * kDay);
  Put("ahead", 1);
  JumpBack(30 * kDay);
  Restart();
  EXPECT_EQ(Found("before"), 20);
  EXPECT_EQ(Found("ahead", 1), 1);
  Put("after");
  Pass(kHour);
  Restart();
  EXPECT_EQ(Found("before"), 20);
  EXPECT_EQ(Found("after"), 20);
  Pass(23 * kHour);
  EXPECT_EQ(Found("before"), 0) << "and everything still ends when its day is over";
  EXPECT_EQ(Found("ahead", 1), 0);
  EXPECT_EQ(Found("after"), 0);
}

TEST_F(CacheClockTest, AfterAJumpThatReturnedLifetimesEndAsBefore) {
  Jump(30 * kDay);
  Put("ahead", 1);
  JumpBack(30 * kDay);
  Restart();
  for (int day = 0; day < 40; ++day) {
    const std::string name = "day " + std::to_string(day) + " ";
    Put(name, 5);
    Pass(kDay - kMinute);
    Restart();
    EXPECT_EQ(Found(name, 5), 5) << name;
    Pass(2 * kMinute);
    Restart();
    EXPECT_EQ(Found(name, 5), 0) << name;
    EXPECT_EQ(Found("ahead", 1), 0) << name << ": also when the clock reaches the time that it had shown";
  }
}

TEST_F(CacheClockTest, ARestartWhileTheClockIsAheadLosesNothingForGood) {
  Put("before");
  Jump(30 * kDay);
  Restart();
  EXPECT_EQ(Found("before"), 0) << "it cannot be told from a month of standstill";
  Put("ahead");
  Pass(2 * kMinute);
  Restart();
  EXPECT_EQ(Found("ahead"), 20);
  JumpBack(30 * kDay);
  Restart();
  EXPECT_EQ(Found("before"), 20);
  EXPECT_EQ(Found("ahead"), 20);
  Pass(kDay);
  Restart();
  EXPECT_EQ(Found("before"), 0);
  EXPECT_EQ(Found("ahead"), 0) << "it counts from the time that was believed";
}

TEST_F(CacheClockTest, AJumpThatHeldIsBelievedForGood) {
  Put("before");
  Jump(30 * kDay);
  Put("ahead", 1);
  Pass(6 * kMinute);
  Put("held");
  EXPECT_EQ(Found("before"), 20) << "in one process a lifetime is a span of its own";
  Restart();
  EXPECT_EQ(Found("before"), 0);
  EXPECT_EQ(Found("held"), 20);
  JumpBack(30 * kDay);
  Restart();
  EXPECT_EQ(Found("before"), 0) << "time that was believed stays";
  EXPECT_EQ(Found("held"), 20);
  // The clock is a month behind what is believed. Lifetimes end nevertheless, also in an engine that only reads.
  for (int i = 0; i < 24; ++i) {
    Pass(kHour);
    Restart();
  }
  Pass(10 * kMinute);
  Restart();
  EXPECT_EQ(Found("held"), 0);
}

TEST_F(CacheClockTest, AClockThatIsBehindStopsNoLifetimeOfAKilledEngine) {
  Put("t");
  JumpBack(365 * kDay);
  for (int i = 0; i < 25; ++i) {
    for (int part = 0; part < 10; ++part) Pass(6 * kMinute);
    sim::SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk_.SetFaults(dead);
    shard_.reset();
    disk_.ProcessKill();
    Restart();
  }
  Pass(3 * kHour);
  EXPECT_EQ(Found("t"), 0);
}

// No battery behind the clock: it starts in 1970 and jumps when the network has told the time.
TEST_F(CacheClockTest, AMachineWithoutAClockAtStartLosesNothing) {
  for (int hour = 0; hour < 30; ++hour) {
    Put("hour " + std::to_string(hour) + " ", 1);
    Pass(kHour);
  }
  const uint64_t right = clock_.WallNs();
  const auto found = [&] {
    int count = 0;
    for (int hour = 0; hour < 30; ++hour) count += Found("hour " + std::to_string(hour) + " ", 1);
    return count;
  };
  Restart();
  const int with_clock = found();
  EXPECT_GE(with_clock, 23);
  clock_.SetWall(1000 * kS);
  Restart();
  EXPECT_GE(found(), with_clock);
  EXPECT_LE(found(), with_clock + 1) << "time that nothing was stamped in cannot be known";
  Pass(kMinute);
  Put("early", 1);
  clock_.SetWall(right + kMinute);
  Put("right", 1);
  Pass(6 * kMinute);
  Put("later", 1);
  Restart();
  EXPECT_GE(found(), with_clock - 1);
  EXPECT_EQ(Found("early", 1), 1);
  EXPECT_EQ(Found("right", 1), 1);
  Pass(kDay);
  EXPECT_EQ(found(), 0);
  EXPECT_EQ(Found("early", 1) + Found("right", 1) + Found("later", 1), 0);
}

// An empty data directory on such a machine. Nothing tells how old these entries are: they live for their lifetime from
// the first right time that the log knows, and no number of restarts makes it more.
class CacheWithoutAClockTest : public CacheClockTest {
 protected:
  void SetUp() override {
    clock_.SetWall(1000 * kS);
    CacheClockTest::SetUp();
    Put("1970 ");
    Pass(kMinute);
  }
  void SetClock() { clock_.SetWall(kRight); }
  void Kill() {
    sim::SimDisk::Faults dead;
    dead.power_off_at = 1;
    disk_.SetFaults(dead);
    shard_.reset();
    disk_.ProcessKill();
  }
  static constexpr uint64_t kRight = 1'800'000'000 * kS;
};

TEST_F(CacheWithoutAClockTest, NothingIsLostWhenItIsKilledAfterTheClockWasSet) {
  SetClock();
  Put("right");
  Kill();
  Restart();
  EXPECT_EQ(Found("1970 "), 20);
  EXPECT_EQ(Found("right"), 20);
  Pass(kDay);
  EXPECT_EQ(Found("1970 ") + Found("right"), 0);
}

TEST_F(CacheWithoutAClockTest, NothingIsLostWhenItStopsAfterTheClockWasSet) {
  SetClock();
  Pass(kHour);
  Restart();
  EXPECT_EQ(Found("1970 "), 20);
  Pass(23 * kHour);
  Restart();
  EXPECT_EQ(Found("1970 "), 20) << "it counts from the first right time that was written: at the restart";
  Pass(kHour);
  Restart();
  EXPECT_EQ(Found("1970 "), 0);
}

TEST_F(CacheWithoutAClockTest, NothingIsLostWhenTheClockIsSetBetweenTwoLives) {
  for (const bool killed : {false, true}) {
    if (killed) Kill();
    shard_.reset();
    if (!killed) SetClock();
    Restart();
    EXPECT_EQ(Found("1970 "), 20) << killed;
    Put("right");
  }
  Restart();
  EXPECT_EQ(Found("1970 "), 20);
  EXPECT_EQ(Found("right"), 20);
}

// Also where nothing but the header of a new segment says what time it was.
TEST_F(CacheWithoutAClockTest, RestartsDoNotLengthenItsLifetime) {
  shard_.reset();
  SetClock();
  for (int hour = 0; hour < 24; ++hour) {
    Restart();
    EXPECT_EQ(Found("1970 "), 20) << hour;
    clock_.Advance(kHour);
  }
  Restart();
  EXPECT_EQ(Found("1970 "), 0);
}

TEST_F(CacheWithoutAClockTest, WhileItIsNeverSetRunningTimeCounts) {
  for (int hour = 0; hour < 24; ++hour) {
    EXPECT_EQ(Found("1970 "), 20) << hour;
    for (int part = 0; part < 10; ++part) Pass(6 * kMinute);
    clock_.SetWall(1000 * kS);
    Put("stamp", 1);
    Restart();
  }
  EXPECT_EQ(Found("1970 "), 0);
}

// A time that was never believed, after 1970: neither says when the insert was made.
TEST_F(CacheWithoutAClockTest, AnInsertFromTheFutureIsNotLostEither) {
  clock_.SetWall(kRight + 365 * kDay);
  Put("ahead");
  Kill();
  SetClock();
  Restart();
  EXPECT_EQ(Found("1970 "), 20);
  EXPECT_EQ(Found("ahead"), 20);
  Pass(kDay);
  Restart();
  EXPECT_EQ(Found("1970 ") + Found("ahead"), 0);
}

TEST_F(CacheClockTest, WhatIsInsertedRightAfterALongStandstillHasItsWholeLifetime) {
  Put("friday");
  shard_.reset();
  clock_.Advance(3 * kDay);
  Restart();
  EXPECT_EQ(Found("friday"), 0);
  Put("monday");
  Pass(kMinute);
  Restart();
  EXPECT_EQ(Found("monday"), 20);
  Pass(6 * kMinute);
  Put("later");
  Restart();
  EXPECT_EQ(Found("monday"), 20);
  Pass(kDay - 8 * kMinute);
  Restart();
  EXPECT_EQ(Found("monday"), 20);
  Pass(2 * kMinute);
  EXPECT_EQ(Found("monday"), 0);
  EXPECT_EQ(Found("friday"), 0);
}

// A standstill that was seen for minutes is on the disk, though nothing was inserted.
TEST_F(CacheClockTest, TimeThatHeldIsWrittenByAnIdleEngine) {
  Put("t", 20, 3600);
  shard_.reset();
  clock_.Advance(kDay);
  Restart();
  Pass(6 * kMinute);
  JumpBack(kDay);
  Restart();
  EXPECT_EQ(Found("t"), 0);
  const uint64_t operations = disk_.operations();
  clock_.SetWall(clock_.WallNs() + kDay);
  Pass(kMinute);
  Pass(kMinute);
  EXPECT_EQ(disk_.operations(), operations) << "once written, an idle engine leaves the disk alone";
}

}  // namespace
}  // namespace sutra
