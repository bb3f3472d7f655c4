// BelievedTime: which time it is, as far as the wall clock can be trusted. What is believed goes to the disk with every
// record, so it outlives the process and one wrong reading must not get into it.
//
// Between two readings the believed time goes on with the boot clock, which nobody sets. The wall clock is believed at
// once while it agrees with that (within kClockNearNs), and after a jump forwards once it has kept the new time for
// kClockHoldNs. A clock that is behind is never believed: time does not go back.
//
// Thread rule: Start before any other call; then every call may come from any thread. Invariants:
//  - Highest never decreases. It stands still only while the wall clock is set back by less than kClockNearNs.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm/base/mutex.h"
#include "shm/base/time.h"

namespace sutra {

class Clock;

inline constexpr uint64_t kClockNearNs = 60 * kNsPerSecond;
inline constexpr uint64_t kClockHoldNs = 300 * kNsPerSecond;
// An earlier wall clock was never set (2020-01-01).
inline constexpr uint64_t kClockSetNs = 1'577'836'800 * kNsPerSecond;

class BelievedTime {
 public:
  // `highest_ns`: the highest time that the log says was believed; 0: the log is empty. The clock is believed at once
  // where the log knows nothing: it is empty, or was written without a clock and this one is set.
  void Start(const Clock& clock, uint64_t highest_ns);

  // The highest time believed so far, for the stamps of records and segments.
  uint64_t Highest(const Clock& clock) { return Read(clock).highest_ns; }

  // The time from which the lifetime of a new entry counts. An engine that has not believed its clock since it started
  // has no better time than that clock, if it is ahead: it may well have stood still for days.
  uint64_t ForExpiry(const Clock& clock);

  // Whether the clock shows a time that is not believed, so that the next start could not tell how much time passed.
  bool Disagrees(const Clock& clock) { return !Read(clock).agrees; }

 private:
  struct Reading {
    uint64_t wall_ns = 0;
    uint64_t highest_ns = 0;
    bool agrees = false;
  };
  Reading Read(const Clock& clock);
  // False: what the clock shows is not believed (yet).
  bool JudgeJump(uint64_t boot_ns, uint64_t wall_ns);
  uint64_t Raise(uint64_t ns);

  // Relaxed: each value stands for itself, and a reading that mixes two of them is off by less than kClockNearNs.
  std::atomic<uint64_t> highest_ns_{0};
  std::atomic<uint64_t> offset_ns_{0};  // believed time minus boot clock, modulo 2^64
  std::atomic<bool> trusted_{false};    // a reading of the clock was believed since Start
  std::atomic<bool> jumped_{false};     // a jump forwards is being watched
  Mutex mutex_;
  uint64_t jump_offset_ns_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t jump_since_ns_ SUTRA_GUARDED_BY(mutex_) = 0;  // on the boot clock
};

}  // namespace sutra
