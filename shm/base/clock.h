// Clock: the seam through which the cache reads time and waits for it, so that tests own both.
//
// Thread rule: every call may come from any thread.
// What an implementation promises and its callers keep:
//  - MonotonicNs never decreases; every deadline inside the process is measured on it.
//  - WallNs may jump either way; it is only written to disk (entry expiry) and compared with what was written there.
#pragma once

#include <cstdint>

#include "shm/base/mutex.h"

namespace sutra {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t MonotonicNs() const = 0;
  virtual uint64_t WallNs() const = 0;

  // Waits on `condition` until it is notified or MonotonicNs() reaches `deadline_ns`; may wake early without reason.
  // A manual clock notifies the waiters itself when it is moved.
  virtual void WaitUntil(CondVar* condition, Mutex* mutex, uint64_t deadline_ns) SUTRA_REQUIRES(mutex) = 0;

  // The machine's clocks.
  static Clock* Real();
};

}  // namespace sutra
