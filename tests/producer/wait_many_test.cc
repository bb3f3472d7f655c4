// Asleep on the words of several lanes at once: every lane's answer ends the sleep, wakes are passed on, and a kernel
// that cannot do it is done without. The linker sends the system calls here (--wrap).
#include "producer/wait_many.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "producer/include/sutra/embed.hpp"
#include "shm/sleep_wake.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

constexpr long kFutexWaitv = 449;
constexpr uint64_t kGraceNs = 100 * kNsPerMs;  // between a bump and the system call that wakes; half a slice

std::atomic<bool> no_waitv{false};   // an old kernel
std::atomic<bool> cut_chain{false};  // waiters pass no wake on
std::atomic<uint32_t> waitv_calls{0}, wakes_passed_on{0};
std::atomic<uint32_t> slept_through{0};  // waits that timed out although their word had moved long before
std::atomic<uint64_t> last_bump_ns{UINT64_MAX};
thread_local bool waiter = false;  // the engine's own calls are left alone

void NoteTimeout(uint64_t address, uint64_t expected) {
  const auto* word = reinterpret_cast<const std::atomic<uint32_t>*>(address);
  const uint64_t bump_ns = last_bump_ns.load();
  const uint64_t now_ns = MonotonicNs();
  if (word->load() != static_cast<uint32_t>(expected) && now_ns > bump_ns && now_ns - bump_ns > kGraceNs) {
    slept_through.fetch_add(1);
  }
}

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
  if (number == kFutexWaitv && no_waitv.load()) {
    errno = ENOSYS;
    return -1;
  }
  if (waiter && number == SYS_futex && (a[1] == FUTEX_WAKE_BITSET || a[1] == FUTEX_WAKE)) {
    wakes_passed_on.fetch_add(1);
    if (cut_chain.load()) return 0;
  }
  const long result = __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  const int error = errno;
  if (number == kFutexWaitv) {
    waitv_calls.fetch_add(1);
    const auto* words = reinterpret_cast<const sutra::FutexWaiter*>(a[0]);
    for (long i = 0; result < 0 && error == ETIMEDOUT && i < a[1]; ++i)
      NoteTimeout(words[i].address, words[i].expected);
  }
  if (waiter && number == SYS_futex && a[1] == FUTEX_WAIT_BITSET && result != 0 && error == ETIMEDOUT) {
    NoteTimeout(static_cast<uint64_t>(a[0]), static_cast<uint64_t>(a[2]));
  }
  errno = error;
  return result;
}
}

namespace sutra::test {
namespace {

// A client with two lanes, whose engines this test plays.
class WaitManyTest : public testing::Test {
 protected:
  void SetUp() override {
    alarm(100);
    no_waitv.store(false);
    cut_chain.store(false);
    waitv_calls.store(0);
    wakes_passed_on.store(0);
    slept_through.store(0);
    last_bump_ns.store(UINT64_MAX);
    for (uint32_t i = 0; i < 2; ++i) {
      lanes_[i] = client::MakeClientLane(&client_.signals, i, kSlots);
      client_.lanes[i] = lanes_[i];
      std::atomic<uint64_t> moved = 0;
      EXPECT_EQ(client::MoveLane(lanes_[i], engines_[i].Connect(), MonotonicNs(), &moved), SUTRA_OK);
    }
    client_.lane_count = 2;
  }
  void TearDown() override {
    for (client::ClientLane* lane : lanes_) client::DestroyClientLane(lane, false);
    client::CloseSignals(&client_.signals);
    alarm(0);
  }

  struct Held {
    uint32_t lane, slot;
    sutra_ticket ticket;
  };
  Held Submit(uint32_t lane) {
    Held held = {lane, 0, 0};
    const MutexLock lock(lanes_[lane]->mutex);
    EXPECT_EQ(client::SubmitLocked(lanes_[lane], "x", 1, {}, MonotonicNs(), client::SlotPhase::kTicket, &held.slot),
              SUTRA_OK);
    held.ticket = client::TicketOf(lanes_[lane], held.slot);
    return held;
  }
  void Release(const Held& held) {
    const MutexLock lock(lanes_[held.lane]->mutex);
    client::ReleaseLocked(lanes_[held.lane], held.slot);
  }
  uint32_t Sleepers(uint32_t lane) {
    return engines_[lane].memory().request().client().sleepers.load(std::memory_order_seq_cst);
  }
  void Wake(uint32_t lane) {
    const ReplyLane& reply = engines_[lane].memory().reply();
    const uint32_t slept_on = BumpFutexWord(reply);
    last_bump_ns.store(MonotonicNs());
    WakeFirstSleepers(reply, slept_on);
  }

  // A thread that waits for a ticket on each lane.
  std::thread WaitForBoth(const Held& first, const Held& second, size_t expected) {
    return std::thread([this, first, second, expected] {
      waiter = true;
      const sutra_ticket tickets[2] = {first.ticket, second.ticket};
      size_t index = 99;
      EXPECT_EQ(client::WaitAny(&client_, tickets, 2, 3'600'000 * kNsPerMs, &index), SUTRA_OK);
      EXPECT_EQ(index, expected);
    });
  }

  // A thread sleeps on both lanes, and an answer on this one ends its wait.
  void AnAnswerEndsTheSleep(uint32_t answered) {
    const Held held[2] = {Submit(0), Submit(1)};
    std::thread thread = WaitForBoth(held[0], held[1], answered);
    while (Sleepers(0) != 1 || Sleepers(1) != 1) std::this_thread::yield();
    engines_[answered].Answer(held[answered].slot);
    Wake(answered);
    thread.join();
    EXPECT_EQ(Sleepers(0) + Sleepers(1), 0u);
    for (const Held& one : held) Release(one);
  }

  static constexpr uint32_t kSlots = 512;
  EngineEnd engines_[2] = {EngineEnd(kSlots), EngineEnd(kSlots)};
  sutra_client client_;
  client::ClientLane* lanes_[2] = {};
};

TEST_F(WaitManyTest, AnAnswerOnEitherLaneEndsTheSleep) {
  for (const uint32_t answered : {0u, 1u, 0u, 1u}) AnAnswerEndsTheSleep(answered);
  EXPECT_GT(waitv_calls.load(), 0u);
  EXPECT_EQ(slept_through.load(), 0u);
}

TEST_F(WaitManyTest, ALaneThatClosesOrDiesEndsItsTicketAndTheWait) {
  const Held held[2] = {Submit(0), Submit(1)};
  std::thread thread = WaitForBoth(held[0], held[1], 1);
  while (Sleepers(0) != 1 || Sleepers(1) != 1) std::this_thread::yield();
  engines_[1].SetState(kLaneClosed, StatusCode::kProtocolViolation);  // no next engine takes its requests
  Wake(1);
  thread.join();
  EXPECT_EQ(slept_through.load(), 0u);
}

// Threads that sleep on one word, under the bit of its value, and threads that sleep on two words at once, under none.
// A bounded wake that is spent on the latter, which fell asleep after the bump, must still reach the former. On a busy
// machine some of the former end their slice before all of the latter sleep, or so soon after that a wake that never
// came would not show: then it is done again.
class WaitManyChain : public WaitManyTest {
 protected:
  static constexpr uint32_t kPatient = 8, kUrgent = 2 * kWakesPerCall;
  static constexpr uint64_t kLeftNs = kGraceNs + 20 * kNsPerMs;  // of the patient ones' slice, at the wake

  void RunUntilConclusive() {
    while (!Round()) {
    }
  }
  void SkipWhereRefused() {
    if (refused_.load())
      GTEST_SKIP() << "no real-time priority (ulimit -r): the kernel's order was first in, first out";
  }
  uint32_t slept_through_ = 0;

 private:
  void Wait(const sutra_ticket* tickets, size_t count) {
    waiter = true;
    size_t index = 99;
    EXPECT_EQ(client::WaitAny(&client_, tickets, count, 3'600'000 * kNsPerMs, &index), SUTRA_OK);
  }

  // RETURNS whether all patient ones slept when the wake came, and would have slept on for longer than the grace.
  bool Round() {
    wakes_passed_on.store(0);
    slept_through.store(0);
    last_bump_ns.store(UINT64_MAX);
    const uint64_t began_ns = MonotonicNs();
    std::vector<Held> held, late[2];
    std::vector<std::thread> patient, urgent;
    std::atomic<uint32_t> left{0};
    for (uint32_t i = 0; i < kPatient; ++i) {
      held.push_back(Submit(0));
      patient.emplace_back([&, ticket = held.back().ticket] {
        Wait(&ticket, 1);
        left.fetch_add(1);
      });
    }
    while (Sleepers(0) != kPatient) std::this_thread::yield();
    while (engines_[0].Take() >= 0) {
    }
    for (const Held& one : held) engines_[0].Answer(one.slot);
    const uint32_t slept_on = BumpFutexWord(engines_[0].memory().reply());
    for (uint32_t i = 0; i < kUrgent; ++i) {
      late[0].push_back(Submit(0));
      late[1].push_back(Submit(1));
      urgent.emplace_back([this, first = late[0].back().ticket, second = late[1].back().ticket] {
        const sched_param priority = {1};
        if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) refused_.store(true);
        const sutra_ticket tickets[2] = {first, second};
        Wait(tickets, 2);
      });
    }
    while (Sleepers(0) + left.load() < kPatient + kUrgent || Sleepers(1) < kUrgent) std::this_thread::yield();
    poll(nullptr, 0, 20);  // the last one is between its last look and the kernel
    const bool conclusive = left.load() == 0 && MonotonicNs() + kLeftNs < began_ns + client::kSleepSliceNs;
    last_bump_ns.store(MonotonicNs());  // whoever ended its slice before was never to be woken
    WakeFirstSleepers(engines_[0].memory().reply(), slept_on);
    for (std::thread& thread : patient) thread.join();
    if (conclusive) {
      EXPECT_LE(wakes_passed_on.load(), 2 * (kPatient + kUrgent) + 2 * kUrgent) << "they keep each other awake";
    }
    slept_through_ = slept_through.load();
    for (const Held& one : late[1]) engines_[1].Answer(one.slot);
    Wake(1);
    for (std::thread& thread : urgent) thread.join();
    for (const Held& one : late[0]) engines_[0].Answer(one.slot);
    for (const std::vector<Held>* some : {&held, &late[0], &late[1]}) {
      for (const Held& one : *some) Release(one);
    }
    return conclusive;
  }

  std::atomic<bool> refused_{false};
};

TEST_F(WaitManyChain, AWakeThatReachesThreadsOfSeveralLanesIsPassedOn) {
  RunUntilConclusive();
  EXPECT_EQ(slept_through_, 0u);
  SkipWhereRefused();
}

TEST_F(WaitManyChain, CanaryWithoutPassingOnThreadsSleepOnAnsweredRequests) {
  cut_chain.store(true);
  RunUntilConclusive();
  EXPECT_GT(slept_through_, 0u);
  SkipWhereRefused();
}

// A kernel before 5.16, or a filter that forbids the call. The library remembers it, so this has a process of its own.
class WaitManyOldKernel : public WaitManyTest {};

TEST_F(WaitManyOldKernel, WithoutTheKernelsHelpAnAnswerOnEitherLaneIsNoticedToo) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [this] {
    no_waitv.store(true);
    for (const uint32_t answered : {0u, 1u, 1u}) AnAnswerEndsTheSleep(answered);
    EXPECT_EQ(waitv_calls.load(), 0u);
    std::_Exit(HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace sutra::test
