// Clock: the seam through which the cache reads time and waits for it, so that tests control both.
//
// Thread rule: every call may come from any thread.
// Rules for implementations and callers:
//  - MonotonicNs never decreases; every deadline inside the process is measured on it.
//  - BootNs never decreases on one thread (two threads may differ by microseconds), and counts the time that the host
//  was suspended; lifetimes are measured on it.
//  - WallNs may jump either way; it is only written to disk (entry expiry) and compared with what was written there.
#pragma once

#include <cstdint>

#include "shm/base/mutex.h"

namespace sutra {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t MonotonicNs() const = 0;
  virtual uint64_t BootNs() const = 0;
  virtual uint64_t WallNs() const = 0;

  // Waits on `condition` until it is notified or MonotonicNs() reaches `deadline_ns`; may also wake spuriously.
  // A manual clock notifies the waiters itself when it is advanced.
  virtual void WaitUntil(CondVar* condition, Mutex* mutex, uint64_t deadline_ns) SUTRA_REQUIRES(mutex) = 0;

  // The machine's clocks.
  static Clock* Real();
};

}  // namespace sutra
