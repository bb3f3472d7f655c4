// What tells event loops and waiting calls that something changed: nothing is missed, and nothing stays readable.
#include "producer/client_signals.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "shm/base/time.h"
#include "shm/base/unique_fd.h"

namespace sutra::test {
namespace {

using client::ClientSignals;
using client::kNever;

class ClientSignalsTest : public testing::Test {
 protected:
  void SetUp() override {
    alarm(100);  // the watchdog
    ASSERT_GE(client::OpenSignals(&signals_), 0);
  }
  void TearDown() override {
    client::CloseSignals(&signals_);
    alarm(0);
  }
  bool Readable(int timeout_ms = 0) {
    pollfd item = {signals_.loop_fd.load(), POLLIN, 0};
    return poll(&item, 1, timeout_ms) == 1;
  }
  uint32_t Waiters() {
    const MutexLock lock(signals_.mutex);
    return signals_.waiters;
  }

  ClientSignals signals_;
};

TEST_F(ClientSignalsTest, TheDescriptorIsMadeOnce) {
  const int fd = signals_.loop_fd.load();
  EXPECT_EQ(client::OpenSignals(&signals_), fd);
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(Readable());
}

TEST(ClientSignals, WithoutAnEventLoopNothingIsMadeOrWritten) {
  ClientSignals signals;
  EXPECT_FALSE(client::HasEventLoop(signals));
  client::Remind(&signals);
  client::LanesChanged(&signals, true);
  EXPECT_FALSE(client::TakeReminder(&signals));
  EXPECT_FALSE(client::WatchPipe(&signals, 0));
  EXPECT_FALSE(client::RoomFreed(&signals));
  EXPECT_EQ(signals.reminder_fd, -1);
  client::CloseSignals(&signals);
}

TEST_F(ClientSignalsTest, AReminderIsReadableUntilItIsTaken) {
  EXPECT_FALSE(client::TakeReminder(&signals_));
  client::Remind(&signals_);
  client::Remind(&signals_);
  EXPECT_TRUE(Readable());
  EXPECT_TRUE(client::TakeReminder(&signals_));
  EXPECT_FALSE(Readable());
  EXPECT_FALSE(client::TakeReminder(&signals_));
}

TEST_F(ClientSignalsTest, APipeIsReadableUntilItIsForgottenThoughAnotherProcessHasIt) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd copy(dup(ends[0]));  // as in a forked child: closing the other one would leave the pipe in
  ASSERT_TRUE(client::WatchPipe(&signals_, ends[0]));
  EXPECT_FALSE(Readable());
  close(ends[1]);
  EXPECT_TRUE(Readable());
  client::ForgetPipe(&signals_, ends[0]);
  close(ends[0]);
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, TheTimerIsSetForTheEarliestDeadlineAndTakenOnce) {
  const uint64_t now_ns = MonotonicNs();
  client::NoteDeadline(&signals_, now_ns + 3600 * kNsPerSecond);
  EXPECT_EQ(signals_.timer_ns.load(), now_ns + 3600 * kNsPerSecond);
  client::NoteDeadline(&signals_, now_ns + 10 * kNsPerMs);
  client::NoteDeadline(&signals_, now_ns + 3600 * kNsPerSecond);
  EXPECT_EQ(signals_.timer_ns.load(), now_ns + 10 * kNsPerMs);
  EXPECT_FALSE(client::TakeTimer(&signals_, now_ns));
  EXPECT_TRUE(Readable(60'000));
  EXPECT_TRUE(client::TakeTimer(&signals_, MonotonicNs()));
  EXPECT_FALSE(Readable());
  EXPECT_EQ(signals_.timer_ns.load(), kNever);
  EXPECT_FALSE(client::TakeTimer(&signals_, MonotonicNs()));
}

// Threads that set and take the timer at once: it is never left off, or late, for a deadline that was noted last.
TEST_F(ClientSignalsTest, TheTimerFollowsItsWordWhoeverSetsItAtOnce) {
  for (int round = 0; round < 50; ++round) {
    const uint64_t now_ns = MonotonicNs();
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t i = 0; i < 20; ++i) client::NoteDeadline(&signals_, now_ns + kNsPerSecond * (1000 - i * 4 - t));
      });
    }
    for (std::thread& thread : threads) thread.join();
    client::NoteDeadline(&signals_, now_ns + kNsPerMs);
    ASSERT_TRUE(Readable(60'000)) << round;
    ASSERT_TRUE(client::TakeTimer(&signals_, MonotonicNs()));
  }
}

TEST_F(ClientSignalsTest, RoomIsToldFromAWishUntilTheSubmitThatEndsIt) {
  EXPECT_FALSE(client::RoomFreed(&signals_));
  EXPECT_FALSE(Readable()) << "nobody wished";
  client::WishForRoom(&signals_);
  EXPECT_FALSE(Readable()) << "there is none";
  EXPECT_FALSE(client::RoomFreed(&signals_)) << "no call waits";
  EXPECT_TRUE(Readable());
  EXPECT_FALSE(client::TakeReminder(&signals_)) << "no business of a poll";
  client::RoomFreed(&signals_);
  EXPECT_TRUE(Readable());
  client::EndRoomWish(&signals_);
  EXPECT_FALSE(Readable());
  client::RoomFreed(&signals_);
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, ALaneIsRoomToo) {
  client::WishForRoom(&signals_);
  client::LanesChanged(&signals_, true);
  EXPECT_TRUE(client::TakeReminder(&signals_));
  EXPECT_TRUE(Readable());
  client::EndRoomWish(&signals_);
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, AReminderAndRoomAreReadableIndependently) {
  client::WishForRoom(&signals_);
  client::RoomFreed(&signals_);
  client::Remind(&signals_);
  client::EndRoomWish(&signals_);
  EXPECT_TRUE(Readable());
  EXPECT_TRUE(client::TakeReminder(&signals_));
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, OneThreadsWishOutlivesThatOfAnother) {
  client::WishForRoom(&signals_);
  std::thread([&] {
    client::WishForRoom(&signals_);
    client::EndRoomWish(&signals_);
    client::EndRoomWish(&signals_);
    client::WishForRoom(&signals_);
    client::TakeWishBack(&signals_);
  }).join();
  client::RoomFreed(&signals_);
  EXPECT_TRUE(Readable());
  std::thread([&] { client::EndRoomWish(&signals_); }).join();
  EXPECT_TRUE(Readable());
  std::thread([&] {
    client::WishForRoom(&signals_);
    EXPECT_FALSE(Readable()) << "it looks again itself";
    client::TakeWishBack(&signals_);
  }).join();
  EXPECT_TRUE(Readable()) << "it found the room after all, and the other one may find some too";
  client::EndRoomWish(&signals_);
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, AThreadThatPolledAfterTheRoomWasToldEndsTheWishOfAll) {
  for (int i = 0; i < 3; ++i) std::thread([&] { client::WishForRoom(&signals_); }).join();
  client::LearnRoomWish(&signals_);
  client::RoomFreed(&signals_);
  client::EndRoomWish(&signals_);
  EXPECT_TRUE(Readable()) << "it polled before";
  client::LearnRoomWish(&signals_);
  client::EndRoomWish(&signals_);
  EXPECT_FALSE(Readable());
}

TEST_F(ClientSignalsTest, AWaiterMissesNoChangeBetweenItsLookAndItsWait) {
  client::RoomWaiter waiter(&signals_, false);
  EXPECT_TRUE(client::RoomFreed(&signals_)) << "a call waits";
  waiter.Wait(kNever);
  client::LanesChanged(&signals_, false);
  waiter.Wait(kNever);
  waiter.Wait(MonotonicNs() + kNsPerMs);  // no change: until the time
}

TEST_F(ClientSignalsTest, EachReleaseWakesAWaiterAndAChangeOfLanesAll) {
  std::atomic<int> woken = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      client::RoomWaiter waiter(&signals_, false);
      waiter.Wait(kNever);
      ++woken;
    });
  }
  while (Waiters() < 4) std::this_thread::yield();
  client::RoomFreed(&signals_);
  while (woken < 1) std::this_thread::yield();
  client::LanesChanged(&signals_, false);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(woken, 4);
  EXPECT_EQ(Waiters(), 0u);
}

}  // namespace
}  // namespace sutra::test
