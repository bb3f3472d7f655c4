// The protocol of a worker that looks for work, announces itself, looks again and sleeps, against a loop that adds work
// and notifies. After a lost wake-up the worker sleeps although there is work, and nothing moves any more.
#include "engine/serving/wake_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "shm/sleep_wake.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

// One worker over a counter of work items, as RequestBatcher::NextBatch does it without the spin.
template <typename Gate>
class Worker {
 public:
  Worker() : thread_([this] { Run(); }) {}
  ~Worker() {
    stopped_.store(true, std::memory_order_seq_cst);
    gate_.WakeForTheEnd();
    thread_.join();
  }

  void Add() {
    added_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the gate's fence orders it before the look at sleepers
    gate_.Notify();
  }
  uint64_t done() const { return done_.load(std::memory_order_acquire); }
  uint64_t sleeps() const { return sleeps_.load(std::memory_order_acquire); }

 private:
  bool Take() {
    if (added_.load(std::memory_order_relaxed) == done_.load(std::memory_order_relaxed)) return false;
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }
  void Run() {
    while (!stopped_.load(std::memory_order_seq_cst)) {
      if (Take()) continue;
      const uint32_t epoch = gate_.Prepare();
      if (stopped_.load(std::memory_order_seq_cst) || Take()) {
        gate_.Cancel();
        continue;
      }
      sleeps_.fetch_add(1, std::memory_order_release);
      gate_.Sleep(epoch);
    }
  }

  Gate gate_;
  std::atomic<uint64_t> added_{0}, done_{0}, sleeps_{0};
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

struct RealGate : WakeGate {
  void WakeForTheEnd() { Notify(); }
};

// The gate without the announcement: the loop never learns that the worker sleeps.
class SilentGate {
 public:
  uint32_t Prepare() { return epoch_.load(std::memory_order_seq_cst); }
  void Cancel() {}
  void Sleep(uint32_t epoch) { epoch_.wait(epoch, std::memory_order_seq_cst); }
  void Notify() {
    if (sleepers_.load(std::memory_order_seq_cst) != 0) WakeForTheEnd();
  }
  void WakeForTheEnd() {
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    epoch_.notify_all();
  }

 private:
  std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> sleepers_{0};
};

// True if `rounds` items were done one by one; false when one of them was not done within `limit_ns`, which is what a
// lost wake-up looks like. The pause between two items varies, so that the next one meets the worker at each step of
// its path to sleep.
template <typename Gate>
bool RunsToItsEnd(uint32_t rounds, uint64_t limit_ns) {
  Worker<Gate> worker;
  while (worker.sleeps() == 0) std::this_thread::yield();
  for (uint32_t round = 1; round <= rounds; ++round) {
    worker.Add();
    const uint64_t until_ns = MonotonicNs() + limit_ns;
    while (worker.done() < round) {
      if (MonotonicNs() > until_ns) return false;
      std::this_thread::yield();
    }
    for (uint32_t pause = 0; pause < round % 97; ++pause) CpuPause();
  }
  EXPECT_GT(worker.sleeps(), rounds / 100);  // otherwise the rounds prove nothing
  return true;
}

TEST(WakeGate, NoWakeUpIsLost) {
  const test::Watchdog watchdog(std::chrono::seconds(100));
  EXPECT_TRUE(RunsToItsEnd<RealGate>(20'000, 60 * kNsPerSecond));
}

TEST(WakeGate, CanaryAGateThatAnnouncesNobodyHangs) {
  const test::Watchdog watchdog(std::chrono::seconds(100));
  EXPECT_FALSE(RunsToItsEnd<SilentGate>(20'000, 100 * kNsPerMs));
}

TEST(WakeGate, ANotifyBetweenPrepareAndSleepEndsTheSleep) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  WakeGate gate;
  const uint32_t epoch = gate.Prepare();
  gate.Notify();
  gate.Sleep(epoch);  // returns at once: the epoch has moved
}

// Two workers that sleep once.
struct TwoSleepers {
  TwoSleepers() {
    while (prepared.load(std::memory_order_acquire) != 2) std::this_thread::yield();
  }
  void Sleep() {
    const uint32_t epoch = gate.Prepare();
    prepared.fetch_add(1, std::memory_order_release);
    gate.Sleep(epoch);
    woken.fetch_add(1, std::memory_order_release);
  }
  WakeGate gate;
  std::atomic<int> prepared{0}, woken{0};
  std::thread first{&TwoSleepers::Sleep, this}, second{&TwoSleepers::Sleep, this};
};

TEST(WakeGate, OneNotifyAllWakesAllSleepers) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  TwoSleepers sleepers;
  sleepers.gate.NotifyAll();
  sleepers.first.join();
  sleepers.second.join();
}

// Both, where they had only announced themselves.
TEST(WakeGate, EachNotifyWakesAtLeastOneSleeper) {
  const test::Watchdog watchdog(std::chrono::seconds(60));
  TwoSleepers sleepers;
  sleepers.gate.Notify();
  while (sleepers.woken.load(std::memory_order_acquire) < 1) std::this_thread::yield();
  sleepers.gate.Notify();
  sleepers.first.join();
  sleepers.second.join();
}

}  // namespace
}  // namespace sutra
