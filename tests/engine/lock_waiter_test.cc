// Locks that others hold, in this process and in another: an OFD lock belongs to its open file, not to a process.
#include "engine/lock_waiter.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "tests/kit/temp_dir.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

class LockWaiterTest : public ::testing::Test {
 protected:
  EngineLock Take(const std::string& path) { return std::move(EngineLock::Take(path)).value(); }
  static bool Readable(const LockWaiter& waiter, int timeout_ms) {
    pollfd item = {.fd = waiter.fd(), .events = POLLIN, .revents = 0};
    return poll(&item, 1, timeout_ms) == 1;
  }

  test::Watchdog watchdog_{std::chrono::seconds(60)};
  const test::TempDir directory_;
  const std::string first_ = directory_ / "LOCK", second_ = directory_ / "s.lock";
  LockWaiter waiter_;
};

TEST_F(LockWaiterTest, FreeLocksAreTakenAtOnce) {
  ASSERT_TRUE(waiter_.Start({first_, second_}).ok());
  ASSERT_TRUE(Readable(waiter_, -1));
  const Result<std::vector<EngineLock>> locks = waiter_.Take();
  ASSERT_TRUE(locks.ok()) << locks.status().message();
  ASSERT_EQ(locks->size(), 2u);
  EXPECT_EQ(EngineLock::Take(first_).status().code(), StatusCode::kRefused);
  EXPECT_EQ(EngineLock::Take(second_).status().code(), StatusCode::kRefused);
}

TEST_F(LockWaiterTest, HeldLocksAreTakenWhenTheyAreGivenBack) {
  std::optional<EngineLock> first(Take(first_)), second(Take(second_));
  ASSERT_TRUE(waiter_.Start({first_, second_}).ok());
  first.reset();
  EXPECT_FALSE(Readable(waiter_, 20)) << "the second one is held";
  second.reset();
  ASSERT_TRUE(Readable(waiter_, -1));
  EXPECT_EQ(waiter_.Take()->size(), 2u);
}

TEST_F(LockWaiterTest, StopEndsTheWaitAndGivesBackWhatWasTaken) {
  const EngineLock second = Take(second_);
  ASSERT_TRUE(waiter_.Start({first_, second_}).ok());
  waiter_.Stop();
  EXPECT_FALSE(std::filesystem::exists(first_)) << "it had made the file";
  EXPECT_TRUE(EngineLock::Take(first_).ok());
}

TEST_F(LockWaiterTest, StopRacesWithTheBeginningOfTheWait) {
  const EngineLock held = Take(first_);
  for (int i = 0; i < 200; ++i) {
    LockWaiter waiter;
    ASSERT_TRUE(waiter.Start({first_}).ok());
    waiter.Stop();
  }
}

// Another engine took the file away and made a new one: the lock on the old one is worth nothing.
TEST_F(LockWaiterTest, ALockFileThatWasReplacedIsWaitedForAgain) {
  std::optional<EngineLock> old(Take(first_));
  ASSERT_TRUE(waiter_.Start({first_}).ok());
  EXPECT_FALSE(Readable(waiter_, 20));
  std::filesystem::remove(first_);
  std::optional<EngineLock> now(Take(first_));
  old.reset();
  EXPECT_FALSE(Readable(waiter_, 20));
  now.reset();
  ASSERT_TRUE(Readable(waiter_, -1));
  EXPECT_TRUE(waiter_.Take()->front().InPlace());
}

TEST_F(LockWaiterTest, OfSeveralWaitersOneGetsTheLock) {
  std::optional<EngineLock> held(Take(first_));
  LockWaiter other;
  ASSERT_TRUE(waiter_.Start({first_}).ok());
  ASSERT_TRUE(other.Start({first_}).ok());
  EXPECT_FALSE(Readable(waiter_, 20));
  held.reset();
  pollfd items[] = {{.fd = waiter_.fd(), .events = POLLIN, .revents = 0},
                    {.fd = other.fd(), .events = POLLIN, .revents = 0}};
  EXPECT_EQ(poll(items, 2, -1), 1);
  EXPECT_EQ(poll(items, 2, 20), 1);
}

TEST_F(LockWaiterTest, WhatIsNoLockFileIsAnError) {
  std::filesystem::create_directory(first_);
  ASSERT_TRUE(waiter_.Start({first_}).ok());
  ASSERT_TRUE(Readable(waiter_, -1));
  EXPECT_EQ(waiter_.Take().status().code(), StatusCode::kStorageError);
}

}  // namespace
}  // namespace sutra
