// Waits for locks in a thread of its own (`sutra-lock`), so that the main thread can wait for signals and sockets at
// the same time. The kernel grants a lock within microseconds of its holder's end, and the thread uses no time before.
//
// Thread rule: one thread; only this class sends SIGURG to its own thread, whose handler does nothing but interrupt.
// Invariant: the thread has ended when the waiter has: no lock is taken behind anybody's back.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/engine_lock.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class LockWaiter {
 public:
  LockWaiter() = default;
  ~LockWaiter() { Stop(); }
  LockWaiter(const LockWaiter&) = delete;
  LockWaiter& operator=(const LockWaiter&) = delete;

  // Begins to wait for the locks in this order. Once.
  Status Start(std::vector<std::string> paths);
  // Readable when all of them are taken, or one cannot be.
  int fd() const { return done_.get(); }
  // REQUIRES: fd() is readable. In the order of Start.
  Result<std::vector<EngineLock>> Take();
  // Gives up; what was taken is given back.
  void Stop();

 private:
  void Run(const std::vector<std::string>& paths);

  UniqueFd done_;
  std::atomic<bool> stop_{false};
  Status status_;  // this and the next: the thread's until it is joined
  std::vector<EngineLock> locks_;
  std::thread thread_;
};

}  // namespace sutra
