// CLOCK_MONOTONIC read off the processor's cycle counter: a tenth of the cost of the system's clock, for code that
// reads it per request. Where the processor does not promise a counter of constant rate, it is the system's clock.
//
// A reading is base + (counter - base counter) * rate. Base and rate are taken from the system's clock again whenever
// kIntervalNs have passed since the last time, in the reading that finds so: nobody has to remember it, and a thread
// that slept starts from the true time.
//
// How far a reading may be from CLOCK_MONOTONIC: a base is exact to half the time that its three reads took (at most
// kBracketNsMax / 2), the rate to two such halves per interval, and the kernel may change the speed of its clock by
// 1,000 ppm between one interval and the next: 3 * 0.5 us + 1 us = kErrorNsMax. Usually it is below 0.1 us. A counter
// that stops, jumps or changes its rate against its promise (a virtual machine that moves) makes the readings of one
// interval wrong, by an interval at most; then it is measured anew.
//
// Thread rule: a clock belongs to one thread, on which it never goes backwards; CycleNs() reads the calling thread's.
// Two threads' readings may differ by twice the bound: compare them as one compares the times of two machines.
// Header-only and free of the C++ runtime.
#pragma once

#include <stdint.h>

#include "shm/base/time.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace sutra {

// The counter and the clock that it stands for; tests have others.
struct MachineCycles {
  static uint64_t NowNs() { return MonotonicNs(); }
#if defined(__x86_64__)
  // The processor may read it some ten nanoseconds before earlier loads are done.
  static uint64_t Ticks() { return __rdtsc(); }
  // CPUID: "invariant TSC".
  static bool ConstantRate() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d >> 8 & 1) != 0;
  }
#else
  static uint64_t Ticks() { return 0; }
  static bool ConstantRate() { return false; }
#endif
};

template <typename Cycles>
class CycleClock {
 public:
  static constexpr uint64_t kIntervalNs = kNsPerMs;
  static constexpr uint64_t kBracketNsMax = 1'000;
  static constexpr uint64_t kErrorNsMax = 2'500;

  constexpr CycleClock() = default;

  uint64_t NowNs() {
    const uint64_t passed = Cycles::Ticks() - base_.ticks;
    if (passed >= interval_ticks_) return Measure();
    return NotBefore(base_.ns + (passed * rate_ >> kRateShift));
  }

 private:
  enum class Counter : uint8_t { kUnknown, kUsable, kUnusable };
  static constexpr int kRateShift = 32;
  static constexpr uint64_t kSpanNsMax = kNsPerSecond;  // of a rate: longer ones would not fit 64 bits
  static constexpr uint64_t kSpanTicksMax = uint64_t{1} << 40;
  static constexpr uint64_t kRateChangeMax = 256;  // 1 / so much; an honest counter's is 0.3 % (see above)
  static constexpr int kTries = 3;
  static constexpr int kFailuresMax = 64;  // in a row; then reading the counter is as slow as the clock itself

  struct Pair {
    uint64_t ns = 0, ticks = 0, bracket_ticks = UINT64_MAX;
  };

  uint64_t NotBefore(uint64_t ns) {
    if (ns > last_ns_) last_ns_ = ns;
    return last_ns_;
  }

  // The best of some tries: an interrupt between two reads makes a pair useless.
  static Pair ReadPair() {
    Pair best;
    for (int i = 0; i < kTries; ++i) {
      const uint64_t before = Cycles::Ticks();
      const uint64_t ns = Cycles::NowNs();
      const uint64_t bracket = Cycles::Ticks() - before;
      if (i == 0 || bracket < best.bracket_ticks) best = {ns, before + bracket / 2, bracket};
    }
    return best;
  }

  // The system's clock; and base and rate from it.
  uint64_t Measure() {
    if (counter_ == Counter::kUnknown) counter_ = Cycles::ConstantRate() ? Counter::kUsable : Counter::kUnusable;
    if (counter_ == Counter::kUnusable) return NotBefore(Cycles::NowNs());
    const Pair now = ReadPair();
    const uint64_t span_ns = now.ns - base_.ns;
    const uint64_t span_ticks = now.ticks - base_.ticks;
    const bool rate_known = interval_ticks_ != 0;
    if (base_.ns == 0 || span_ns > kSpanNsMax || span_ticks == 0 || span_ticks > kSpanTicksMax) {
      ForgetRate(now);
    } else if (rate_known || span_ns >= kIntervalNs) {
      Calibrate(now, (span_ns << kRateShift) / span_ticks);
    }
    return NotBefore(now.ns);
  }

  void Calibrate(const Pair& now, uint64_t rate) {
    const uint64_t bracket_ticks_max = (kBracketNsMax << kRateShift) / (rate + 1);
    if (now.bracket_ticks > bracket_ticks_max) {  // again at the next reading
      if (++failures_ == kFailuresMax) counter_ = Counter::kUnusable;
      return;
    }
    failures_ = 0;
    const uint64_t change = rate > rate_ ? rate - rate_ : rate_ - rate;
    const bool jumped = interval_ticks_ != 0 && change > rate_ / kRateChangeMax;
    if (jumped || base_.bracket_ticks > bracket_ticks_max) return ForgetRate(now);
    rate_ = rate;
    interval_ticks_ = (kIntervalNs << kRateShift) / (rate + 1);
    base_ = now;
  }

  void ForgetRate(const Pair& now) {
    base_ = now;
    interval_ticks_ = 0;
  }

  Pair base_;                    // ns 0: nothing is measured yet
  uint64_t rate_ = 0;            // nanoseconds per tick << kRateShift
  uint64_t interval_ticks_ = 0;  // 0: the rate is not known, every reading asks the system
  uint64_t last_ns_ = 0;
  int failures_ = 0;
  Counter counter_ = Counter::kUnknown;
};

// CLOCK_MONOTONIC to kErrorNsMax, never backwards on one thread.
inline uint64_t CycleNs() {
  static constinit thread_local CycleClock<MachineCycles> clock;
  return clock.NowNs();
}

// CLOCK_BOOTTIME in the same way. A suspend of the host may be missed by the readings of the first interval after it.
struct MachineBootCycles : MachineCycles {
  static uint64_t NowNs() { return BootNs(); }
};
inline uint64_t CycleBootNs() {
  static constinit thread_local CycleClock<MachineBootCycles> clock;
  return clock.NowNs();
}

}  // namespace sutra
