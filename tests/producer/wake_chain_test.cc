// Many threads of one client asleep on one lane: the engine wakes a few, and whoever is woken wakes the rest. The
// linker sends the futex calls here (--wrap), which tells a waiter that slept through a bump of its word from one whose
// answer came late, and lets a canary cut the chain.
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "producer/lane_wait.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

constexpr uint64_t kGraceNs = 100 * kNsPerMs;  // between a bump and the system call that wakes; half a slice

thread_local bool counted = false;  // the waiters' calls; the engine's are left alone
std::atomic<bool> cut_chain{false};
std::atomic<uint64_t> last_bump_ns{UINT64_MAX};
std::atomic<uint32_t> slept_through{0};  // waits that timed out although their word had moved long before
std::atomic<uint32_t> waits{0}, wakes{0};

}  // namespace
}  // namespace sutra::test

extern "C" {
long __real_syscall(long number, long a, long b, long c, long d, long e, long f);

long __wrap_syscall(long number, ...) {
  using namespace sutra::test;
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const bool futex = counted && number == SYS_futex;
  if (futex && a[1] == FUTEX_WAKE_BITSET) {
    wakes.fetch_add(1);
    if (cut_chain.load()) return 0;
  }
  if (futex && a[1] == FUTEX_WAIT_BITSET) waits.fetch_add(1);
  const long result = __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (futex && a[1] == FUTEX_WAIT_BITSET && result != 0 && errno == ETIMEDOUT) {
    const auto* word = reinterpret_cast<const std::atomic<uint32_t>*>(a[0]);
    const uint64_t bump_ns = last_bump_ns.load();
    const uint64_t now_ns = sutra::MonotonicNs();
    if (word->load() != static_cast<uint32_t>(a[2]) && now_ns > bump_ns && now_ns - bump_ns > kGraceNs) {
      slept_through.fetch_add(1);
    }
    errno = ETIMEDOUT;
  }
  return result;
}
}

namespace sutra::test {
namespace {

using client::WaitEnd;

class WakeChainTest : public testing::Test {
 protected:
  static constexpr uint32_t kThreads = 300;

  void SetUp() override {
    alarm(100);
    cut_chain.store(false);
    slept_through.store(0);
    waits.store(0);
    wakes.store(0);
    last_bump_ns.store(UINT64_MAX);
    lane_ = client::MakeClientLane(&signals_, 3, engine_.memory().reply().geometry.slots);
    std::atomic<uint64_t> moved = 0;
    ASSERT_EQ(client::MoveLane(lane_, engine_.Connect(), MonotonicNs(), &moved), SUTRA_OK);
  }
  void TearDown() override {
    client::DestroyClientLane(lane_, false);
    alarm(0);
  }

  uint32_t Sleepers() { return engine_.memory().request().client().sleepers.load(std::memory_order_seq_cst); }
  void Wake() {
    const uint32_t slept_on = BumpFutexWord(engine_.memory().reply());
    last_bump_ns.store(MonotonicNs());
    WakeFirstSleepers(engine_.memory().reply(), slept_on);
  }
  // Each thread submits a text and waits for its answer; `engine` runs when all of them sleep.
  void AllWait(uint32_t count, const std::function<void()>& engine, WaitEnd expected) {
    last_bump_ns.store(UINT64_MAX);
    left_.store(0);
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < count; ++i) {
      threads.emplace_back([&] {
        counted = true;
        uint32_t slot = 0;
        {
          const MutexLock lock(lane_->mutex);
          ASSERT_EQ(client::SubmitLocked(lane_, "x", 1, {}, MonotonicNs(), client::SlotPhase::kCall, &slot), SUTRA_OK);
        }
        const auto done = [&] { return client::IsAnswered(lane_, slot); };
        EXPECT_EQ(client::WaitUntil(lane_, client::HomeOf(lane_, slot), UINT64_MAX, 0, done), expected);
        left_.fetch_add(1);
        const MutexLock lock(lane_->mutex);
        client::ReleaseLocked(lane_, slot);
      });
    }
    while (Sleepers() != count) std::this_thread::yield();
    engine();
    for (std::thread& thread : threads) thread.join();
  }
  void AnswerAll() {
    for (int slot = engine_.Take(); slot >= 0; slot = engine_.Take()) engine_.Answer(static_cast<uint32_t>(slot));
  }
  void AllWaitForOneWake() {
    AllWait(
        kThreads,
        [&] {
          AnswerAll();
          Wake();
        },
        WaitEnd::kDone);
  }

  EngineEnd engine_{512};
  client::ClientSignals signals_;
  client::ClientLane* lane_ = nullptr;
  std::atomic<uint32_t> left_{0};  // threads whose wait is over
};

TEST_F(WakeChainTest, OneWakeOfTheEngineReachesAllSleepingThreads) {
  for (int round = 0; round < 10; ++round) {
    AllWaitForOneWake();
  }
  EXPECT_EQ(slept_through.load(), 0u);
  EXPECT_EQ(Sleepers(), 0u);
}

TEST_F(WakeChainTest, NoneSleepsOnWhenAnswersComeOneByOne) {
  AllWait(
      kThreads,
      [&] {
        for (int slot = engine_.Take(); slot >= 0; slot = engine_.Take()) {
          engine_.Answer(static_cast<uint32_t>(slot));
          if (slot % 3 == 0) Wake();
        }
        Wake();
      },
      WaitEnd::kDone);
  EXPECT_EQ(slept_through.load(), 0u);
}

TEST_F(WakeChainTest, ThreadsOfAClosedLaneAllLearnOfItsEnd) {
  AllWait(
      kThreads,
      [&] {
        engine_.SetState(kLaneClosed, StatusCode::kShuttingDown);
        Wake();
      },
      WaitEnd::kGone);
  EXPECT_EQ(slept_through.load(), 0u);
}

// Threads whose answers have not come fall asleep again, and must not keep each other awake.
TEST_F(WakeChainTest, ThreadsThatSleepAgainDoNotWakeEachOtherForEver) {
  constexpr uint32_t kBumps = 20, kFew = 40;
  AllWait(
      kFew,
      [&] {
        for (uint32_t bump = 1; bump <= kBumps; ++bump) {
          const uint32_t before = waits.load();
          Wake();
          while (waits.load() < before + kFew) std::this_thread::yield();
        }
        EXPECT_LE(wakes.load(), kBumps * kFew);
        AnswerAll();
        Wake();
      },
      WaitEnd::kDone);
  EXPECT_EQ(slept_through.load(), 0u);
}

// The kernel wakes real-time threads first. A bounded wake must not be spent on those that fell asleep after the bump.
// On a busy machine some of the patient ones end their slice before all urgent ones sleep: then it is done again.
class WakeChainUrgent : public WakeChainTest {
 protected:
  static constexpr uint32_t kPatient = 8, kUrgent = 2 * kWakesPerCall;

  // RETURNS whether all patient ones slept when the wake came.
  bool Round() {
    std::vector<std::thread> urgent;
    std::atomic<bool> end{false};
    bool all_slept = false;
    uint32_t slept_on = 0;
    client::Attachment* const attachment = client::Pin(lane_);
    const ReplyLane& reply = engine_.memory().reply();
    AllWait(
        kPatient,
        [&] {
          AnswerAll();
          slept_on = BumpFutexWord(reply);
          for (uint32_t i = 0; i < kUrgent; ++i) {
            urgent.emplace_back([&] {
              const sched_param priority = {1};
              if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) refused_.store(true);
              EXPECT_EQ(client::WaitUntil(lane_, attachment, UINT64_MAX, 0, [&] { return end.load(); }),
                        WaitEnd::kDone);
            });
          }
          while (Sleepers() + left_.load() < kPatient + kUrgent) std::this_thread::yield();
          all_slept = left_.load() == 0;
          last_bump_ns.store(MonotonicNs());  // whoever ended its slice before was never to be woken
          WakeFirstSleepers(reply, slept_on);
        },
        WaitEnd::kDone);
    EXPECT_EQ(reply.engine().futex_word.load(std::memory_order_relaxed), slept_on + 1);
    end.store(true);
    Wake();
    for (std::thread& thread : urgent) thread.join();
    client::Unpin(lane_, attachment);
    return all_slept;
  }
  std::atomic<bool> refused_{false};
};

TEST_F(WakeChainUrgent, AThreadWithAnAnswerIsWokenThoughUrgentOnesFellAsleepAfterTheBump) {
  while (!Round()) {
  }
  EXPECT_EQ(slept_through.load(), 0u);
  if (refused_.load()) GTEST_SKIP() << "no real-time priority (ulimit -r): the kernel's order was first in, first out";
}

// The canary: without the chain the threads that the engine did not wake sleep on.
TEST_F(WakeChainTest, WithoutTheChainThreadsSleepOnAnsweredRequests) {
  cut_chain.store(true);
  AllWaitForOneWake();
  EXPECT_GT(slept_through.load(), 0u);
}

}  // namespace
}  // namespace sutra::test
