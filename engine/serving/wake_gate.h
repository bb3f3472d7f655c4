// How idle workers sleep and how one of them is woken: an event count on a private futex. No system call is made while
// all are awake. In-process only; what crosses processes is in shm/sleep_wake.h.
//
// The lost wake-up it prevents: the worker finds the queue empty, the loop adds work and sees no sleeper, the worker
// sleeps. Prepare announces the sleeper before the worker looks again, and both sides put a full fence between their
// store and their load, so one of them sees the other:
//   worker: sleepers += 1;  fence;  look at the queue;  sleep unless the epoch moved
//   loop:   add work;       fence;  look at sleepers;   move the epoch, wake
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <climits>
#include <cstdint>

#include "shm/sleep_wake.h"

namespace sutra {

class WakeGate {
 public:
  // Announces that the caller may sleep; look for work after it, then call Sleep or Cancel.
  uint32_t Prepare() {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    FullFence();
    return epoch_.load(std::memory_order_seq_cst);
  }
  void Cancel() {
    [[maybe_unused]] const uint32_t before = sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    assert(before > 0);
  }

  // Sleeps until a Notify after the Prepare that returned `epoch`; may also return spuriously.
  void Sleep(uint32_t epoch) {
    syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&epoch_), FUTEX_WAIT_PRIVATE, epoch, nullptr, nullptr, 0);
    Cancel();
  }

  // Wakes one sleeper, and whoever is about to sleep.
  void Notify() { Wake(1); }
  void NotifyAll() { Wake(INT_MAX); }

 private:
  void Wake(int sleepers) {
    FullFence();
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&epoch_), FUTEX_WAKE_PRIVATE, sleepers, nullptr, nullptr, 0);
  }

  std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace sutra
