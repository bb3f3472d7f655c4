// A Clock that moves only when a test moves it. Moving it wakes every thread that waits for a deadline.
// Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <set>

#include "shm/base/clock.h"

namespace sutra::sim {

class ManualClock final : public Clock {
 public:
  explicit ManualClock(uint64_t wall_ns = 1'700'000'000'000'000'000u) : wall_ns_(wall_ns) {}
  uint64_t MonotonicNs() const override { return mono_ns_.load(std::memory_order_acquire); }
  uint64_t WallNs() const override { return wall_ns_.load(std::memory_order_acquire); }

  void Advance(uint64_t ns) {
    mono_ns_.fetch_add(ns, std::memory_order_acq_rel);
    wall_ns_.fetch_add(ns, std::memory_order_acq_rel);
    std::lock_guard<std::mutex> lock(mutex_);
    for (std::condition_variable* waiter : waiters_) waiter->notify_all();
  }
  void SetWall(uint64_t ns) { wall_ns_.store(ns, std::memory_order_release); }

  void WaitUntil(std::condition_variable* condition, std::unique_lock<std::mutex>* lock,
                 uint64_t deadline_ns) override {
    Register(condition, true);
    // The real time limit covers an Advance between the caller's look at the clock and the wait.
    if (MonotonicNs() < deadline_ns) condition->wait_for(*lock, std::chrono::milliseconds(5));
    Register(condition, false);
  }

 private:
  void Register(std::condition_variable* condition, bool add) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (add) {
      waiters_.insert(condition);
    } else {
      waiters_.erase(waiters_.find(condition));
    }
  }

  std::atomic<uint64_t> mono_ns_{1'000'000'000};
  std::atomic<uint64_t> wall_ns_;
  std::mutex mutex_;
  std::multiset<std::condition_variable*> waiters_;
};

}  // namespace sutra::sim
