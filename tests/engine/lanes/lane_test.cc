#include "engine/lanes/lane.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/time.h"
#include "shm/sleep_wake.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::ScriptedLane;

bool IsIn(long system_call, const std::atomic<pid_t>& thread) {
  std::ifstream now("/proc/self/task/" + std::to_string(thread.load(std::memory_order_acquire)) + "/syscall");
  long number = -1;
  return bool(now >> number) && number == system_call;
}

class LaneTest : public ::testing::Test {
 protected:
  Lane& lane() { return *scripted_.lane(); }
  EngineLine& line() { return lane().reply().engine(); }
  uint32_t state() { return line().state.load(std::memory_order_relaxed); }
  uint32_t futex_word() { return line().futex_word.load(std::memory_order_relaxed); }

  ScriptedLane scripted_;
};

TEST_F(LaneTest, ASlotIsHeldUntilItsAnswerIsPublished) {
  EXPECT_TRUE(lane().Hold(3));
  EXPECT_FALSE(lane().Hold(3));
  EXPECT_TRUE(lane().Hold(4));
  EXPECT_EQ(lane().held(), 2u);
  EXPECT_EQ(lane().Publish(3, 1, Answer()), Lane::Published::kDone);
  EXPECT_EQ(lane().held(), 1u);
  EXPECT_TRUE(lane().Hold(3));
}

TEST_F(LaneTest, AnAnswerIsWrittenWholeAndTheWordLast) {
  Answer answer;
  answer.source = kSourceModel;
  answer.token_count = 5;
  answer.truncated = true;
  answer.tag = 99;
  answer.stage_ns[kPublished] = 1234;
  ASSERT_TRUE(lane().Hold(2));
  ASSERT_EQ(lane().Publish(2, 17, answer), Lane::Published::kDone);
  EXPECT_EQ(scripted_.answered_sequence(2), 17u);
  EXPECT_EQ(scripted_.status(2), StatusCode::kOk);
  const ResultDescriptor& result = scripted_.result(2);
  EXPECT_EQ(result.source, uint32_t{kSourceModel});
  EXPECT_EQ(result.token_count, 5u);
  EXPECT_EQ(result.flags, uint32_t{kResultTruncated});
  EXPECT_EQ(result.tag, 99u);
  EXPECT_EQ(result.width, lane().geometry().width);
  EXPECT_EQ(result.stage_ns[kPublished], 1234u);
  uint32_t slot = 0;
  EXPECT_EQ(scripted_.completions().Next(&slot), CompletionReader::Read::kSlot);
  EXPECT_EQ(slot, 2u);
}

TEST_F(LaneTest, ARefusalHasNoVector) {
  Answer answer;
  answer.status = StatusCode::kOverloaded;
  ASSERT_TRUE(lane().Hold(0));
  ASSERT_EQ(lane().Publish(0, 1, answer), Lane::Published::kDone);
  EXPECT_EQ(scripted_.status(0), StatusCode::kOverloaded);
  EXPECT_EQ(scripted_.result(0).width, 0u);
}

TEST_F(LaneTest, AfterCloseNothingIsAnsweredAndTheReasonStands) {
  ASSERT_TRUE(lane().Hold(0));
  const uint32_t before = futex_word();
  lane().Close(StatusCode::kShuttingDown);
  EXPECT_FALSE(lane().open());
  EXPECT_EQ(state(), uint32_t{kLaneClosed});
  EXPECT_NE(futex_word(), before);  // sleeping clients see the end
  EXPECT_EQ(lane().Publish(0, 1, Answer()), Lane::Published::kClosed);
  EXPECT_EQ(scripted_.answered_sequence(0), 0u);
  lane().Close(StatusCode::kEngineGone);  // the first reason counts
  EXPECT_EQ(line().close_reason.load(std::memory_order_relaxed), static_cast<uint32_t>(StatusCode::kShuttingDown));
}

TEST_F(LaneTest, AClosedLaneDoesNotDrain) {
  lane().SetDraining();
  EXPECT_EQ(state(), uint32_t{kLaneDraining});
  lane().Close(StatusCode::kOk);
  lane().SetDraining();
  EXPECT_EQ(state(), uint32_t{kLaneClosed});
}

TEST_F(LaneTest, OnlySleepersAreWoken) {
  const uint32_t before = futex_word();
  EXPECT_FALSE(lane().Wake());
  EXPECT_EQ(futex_word(), before);
  scripted_.client().client().sleepers.store(1, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Wake());
  EXPECT_NE(futex_word(), before);
  char byte;
  EXPECT_EQ(read(scripted_.event_fd(), &byte, 1), -1);
}

TEST_F(LaneTest, ACloseWakesWhoSleeps) {
  std::atomic<pid_t> sleeper_id{0};
  const uint32_t before = futex_word();
  std::thread sleeper([&] {
    sleeper_id.store(gettid(), std::memory_order_release);
    EXPECT_TRUE(FutexWait(line().futex_word.futex_address(), before, MonotonicNs() + 10 * kNsPerSecond));
  });
  while (!IsIn(SYS_futex, sleeper_id)) std::this_thread::yield();
  lane().Close(StatusCode::kShuttingDown);
  sleeper.join();
}

TEST_F(LaneTest, AnArmedEventLoopGetsOneByte) {
  scripted_.client().client().event_armed.store(1, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Wake());
  char bytes[4];
  EXPECT_EQ(read(scripted_.event_fd(), bytes, sizeof(bytes)), 1);
}

TEST_F(LaneTest, CancellingMeansThisSequenceOnly) {
  scripted_.Fill(1, "text", {.sequence = 5});
  EXPECT_FALSE(lane().Cancelled(1, 5));
  scripted_.client().request(1).cancel_sequence.store(5, std::memory_order_relaxed);
  EXPECT_TRUE(lane().Cancelled(1, 5));
  EXPECT_FALSE(lane().Cancelled(1, 6));
}

// The loop answers hits without the mutex and hands every third request to a worker; the client resubmits at once.
TEST(LaneThreads, AnswersOfLoopAndWorkerStandInTheRingWithoutAGap) {
  ScriptedLane scripted({8, 4096, 4});
  Lane& lane = *scripted.lane();
  constexpr uint64_t kAnswers = 500'000;
  constexpr uint32_t kNone = 8;
  std::atomic<uint32_t> handed_on{kNone};  // a slot that waits for the worker
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint32_t slot = handed_on.load(std::memory_order_acquire);
      if (slot == kNone) {
        std::this_thread::yield();
        continue;
      }
      EXPECT_EQ(lane.Publish(slot, 1 + slot, Answer()), Lane::Published::kDone);
      handed_on.store(kNone, std::memory_order_release);
    }
  });
  uint64_t taken = 0, read = 0;
  bool held[8] = {};
  while (read < kAnswers) {
    const auto slot = static_cast<uint32_t>(taken % 8);
    if (taken < kAnswers && !held[slot]) {
      ASSERT_TRUE(lane.Hold(slot));
      held[slot] = true;
      if (taken++ % 3 == 0 && handed_on.load(std::memory_order_acquire) == kNone) {
        handed_on.store(slot, std::memory_order_release);
      } else {
        while (lane.Publish(slot, 1 + slot, Answer()) == Lane::Published::kBusy) std::this_thread::yield();
      }
    }
    uint32_t answered = 0;
    const CompletionReader::Read result = scripted.completions().Next(&answered);
    if (result == CompletionReader::Read::kNone) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(result, CompletionReader::Read::kSlot) << "a gap at answer " << read;
    ASSERT_TRUE(held[answered]) << "slot " << answered << " stands there twice";
    held[answered] = false;
    ++read;
  }
  stop.store(true, std::memory_order_relaxed);
  worker.join();
  EXPECT_EQ(lane.held(), 0u);
}

TEST(LaneThreads, NothingIsAnsweredAfterCloseWhateverTheWorkerIsDoing) {
  for (int round = 0; round < 100; ++round) {
    ScriptedLane scripted({64, 4096, 4});
    Lane& lane = *scripted.lane();
    for (uint32_t slot = 0; slot < 64; ++slot) ASSERT_TRUE(lane.Hold(slot));
    std::atomic<uint32_t> answered{0};
    std::thread worker([&] {
      for (uint32_t slot = 0; slot < 64; ++slot) {
        if (lane.Publish(slot, 7, Answer()) == Lane::Published::kDone) answered.fetch_add(1, std::memory_order_relaxed);
      }
    });
    while (round % 2 == 0 && answered.load(std::memory_order_relaxed) == 0) continue;
    lane.Close(StatusCode::kShuttingDown);
    uint32_t visible = 0;
    for (uint32_t slot = 0; slot < 64; ++slot) visible += scripted.answered_sequence(slot) == 7 ? 1 : 0;
    worker.join();
    EXPECT_EQ(answered.load(std::memory_order_relaxed), visible);
  }
}

// The call that wakes blocks (its pipe is full and waits, as none of an engine does): others answer meanwhile.
TEST(LaneThreads, NoSystemCallIsMadeUnderTheMutex) {
  Result<LaneMemory> memory = LaneMemory::Create({8, 4096, 4}, LaneIdentity{77, 1, {}});
  ASSERT_TRUE(memory.ok());
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd read_end(pipe_fds[0]);
  const size_t pipe_bytes = static_cast<size_t>(fcntl(pipe_fds[1], F_GETPIPE_SZ));
  std::vector<char> bytes(pipe_bytes);
  ASSERT_EQ(write(pipe_fds[1], bytes.data(), pipe_bytes), static_cast<ssize_t>(pipe_bytes));
  void* client = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory->request_fd(), 0);
  ASSERT_NE(client, MAP_FAILED);
  RequestLane{static_cast<std::byte*>(client), memory->request().geometry}.client().event_armed.store(
      1, std::memory_order_relaxed);
  Lane lane(1, std::make_shared<Client>(1, 1000, 1, "slow"), std::move(memory).value(), UniqueFd(pipe_fds[1]));
  ASSERT_TRUE(lane.Hold(0) && lane.Hold(1));
  std::atomic<pid_t> waker_id{0};
  std::thread waker([&] {
    waker_id.store(gettid(), std::memory_order_release);
    EXPECT_TRUE(lane.Wake());
  });
  while (!IsIn(SYS_write, waker_id)) std::this_thread::yield();
  EXPECT_EQ(lane.Publish(0, 1, Answer()), Lane::Published::kDone);  // two slots are held, so it takes the mutex
  lane.SetDraining();
  lane.Close(StatusCode::kShuttingDown);
  ASSERT_EQ(read(read_end.get(), bytes.data(), pipe_bytes), static_cast<ssize_t>(pipe_bytes));
  waker.join();
  munmap(client, 4096);
}

using LaneDeathTest = LaneTest;

TEST_F(LaneDeathTest, AnswersOfSlotsThatNobodyHoldsAreOurBug) {
  EXPECT_DEATH(static_cast<void>(lane().Publish(1, 1, Answer())), "slot_held_");
}

}  // namespace
}  // namespace sutra
