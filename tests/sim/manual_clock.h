// A Clock that moves only when a test moves it. Moving it wakes every thread that waits for a deadline.
// Thread-safe.
#pragma once

#include <atomic>
#include <set>

#include "shm/base/clock.h"

namespace sutra::sim {

class ManualClock final : public Clock {
 public:
  explicit ManualClock(uint64_t wall_ns = 1'700'000'000'000'000'000u) : wall_ns_(wall_ns) {}
  uint64_t MonotonicNs() const override { return mono_ns_.load(std::memory_order_acquire); }
  uint64_t BootNs() const override { return MonotonicNs() + suspended_ns_.load(std::memory_order_acquire); }
  uint64_t WallNs() const override { return wall_ns_.load(std::memory_order_acquire); }

  void Advance(uint64_t ns) {
    mono_ns_.fetch_add(ns, std::memory_order_acq_rel);
    wall_ns_.fetch_add(ns, std::memory_order_acq_rel);
    MutexLock lock(mutex_);
    for (CondVar* waiter : waiters_) waiter->NotifyAll();
  }
  // The host sleeps: only the monotonic clock stands still.
  void Suspend(uint64_t ns) {
    suspended_ns_.fetch_add(ns, std::memory_order_acq_rel);
    wall_ns_.fetch_add(ns, std::memory_order_acq_rel);
  }
  void SetWall(uint64_t ns) { wall_ns_.store(ns, std::memory_order_release); }

  void WaitUntil(CondVar* condition, Mutex* mutex, uint64_t deadline_ns) override SUTRA_REQUIRES(mutex) {
    Register(condition, true);
    // The real time limit covers an Advance between the caller's look at the clock and the wait.
    if (MonotonicNs() < deadline_ns) condition->WaitUntil(*mutex, Clock::Real()->MonotonicNs() + kRealWaitNs);
    Register(condition, false);
  }

 private:
  static constexpr uint64_t kRealWaitNs = 5'000'000;

  void Register(CondVar* condition, bool add) {
    MutexLock lock(mutex_);
    if (add) {
      waiters_.insert(condition);
    } else {
      waiters_.erase(waiters_.find(condition));
    }
  }

  std::atomic<uint64_t> mono_ns_{1'000'000'000};
  std::atomic<uint64_t> suspended_ns_{0};
  std::atomic<uint64_t> wall_ns_;
  Mutex mutex_;
  std::multiset<CondVar*> waiters_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra::sim
