// The cycle clock against the system's clock, and against counters that break their promise.
#include "shm/base/cycle_clock.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sutra {
namespace {

// A counter and a clock that the test moves.
struct ScriptedCycles {
  static inline uint64_t ns, ticks, clock_reads, ns_per_read;
  static inline bool constant_rate;
  static uint64_t NowNs() {
    ++clock_reads;
    ns += ns_per_read;
    ticks += 3 * ns_per_read;
    return ns;
  }
  static uint64_t Ticks() { return ticks; }
  static bool ConstantRate() { return constant_rate; }
};
using ScriptedClock = CycleClock<ScriptedCycles>;

class CycleClockTest : public ::testing::Test {
 protected:
  CycleClockTest() {
    ScriptedCycles::ns = 1'000'000'000;
    ScriptedCycles::ticks = 77;
    ScriptedCycles::clock_reads = 0;
    ScriptedCycles::ns_per_read = 20;
    ScriptedCycles::constant_rate = true;
  }
  // Time passes, and 3 ticks per nanosecond, as `ppm` makes them differ.
  static void Pass(uint64_t ns, int64_t ppm = 0) {
    ScriptedCycles::ns += ns;
    ScriptedCycles::ticks += static_cast<uint64_t>(static_cast<int64_t>(3 * ns) * (1'000'000 + ppm) / 1'000'000);
  }
  uint64_t Error() {
    const uint64_t now = clock_.NowNs();
    return std::max(now, ScriptedCycles::ns) - std::min(now, ScriptedCycles::ns);
  }
  void Calibrated() {
    clock_.NowNs();
    Pass(2 * ScriptedClock::kIntervalNs);
    clock_.NowNs();
  }

  ScriptedClock clock_;
};

TEST_F(CycleClockTest, OnceCalibratedItAsksTheSystemOncePerInterval) {
  Calibrated();
  ScriptedCycles::clock_reads = 0;
  for (int i = 0; i < 1000; ++i) {
    Pass(1'000);
    ASSERT_LE(Error(), 100u);
  }
  EXPECT_LE(ScriptedCycles::clock_reads, 3u * 2);
}

TEST_F(CycleClockTest, WithoutAConstantRateItIsTheSystemsClock) {
  ScriptedCycles::constant_rate = false;
  for (uint64_t reads = 1; reads < 100; ++reads) {
    Pass(100'000);
    EXPECT_EQ(clock_.NowNs(), ScriptedCycles::ns);
    EXPECT_EQ(ScriptedCycles::clock_reads, reads);
  }
}

TEST_F(CycleClockTest, AClockThatIsSlewedAsFastAsTheKernelMayIsFollowed) {
  Calibrated();
  for (int i = 0; i < 20'000; ++i) {
    Pass(777, i / 5000 % 2 == 0 ? 500 : -500);
    ASSERT_LE(Error(), ScriptedClock::kErrorNsMax) << i;
  }
}

TEST_F(CycleClockTest, AfterALongSleepTheReadingIsTrue) {
  Calibrated();
  for (const uint64_t slept : {3 * kNsPerMs, 900 * kNsPerMs, 20 * kNsPerSecond, 40'000 * kNsPerSecond}) {
    Pass(slept);
    EXPECT_LE(Error(), 100u) << slept;
    Pass(500'000);
    EXPECT_LE(Error(), 100u) << slept;
  }
}

// The machine moved: the counter jumps, or stops, or has another rate from now on.
TEST_F(CycleClockTest, ABrokenPromiseCostsOneInterval) {
  const auto recovers = [&](const char* what) {
    uint64_t worst = 0;
    for (int i = 0; i < 4000; ++i) {
      Pass(1'000);
      const uint64_t error = Error();
      worst = std::max(worst, error);
      if (i >= 2500) {
        ASSERT_LE(error, ScriptedClock::kErrorNsMax) << what << ' ' << i;
      }
    }
    EXPECT_LE(worst, ScriptedClock::kIntervalNs + ScriptedClock::kErrorNsMax) << what;
  };
  for (const uint64_t jump : {uint64_t{1'500'000}, uint64_t{1} << 50, -uint64_t{500'000}, -(uint64_t{1} << 50)}) {
    Calibrated();
    Pass(100'000);
    ScriptedCycles::ticks += jump;
    recovers("a jump");
  }
  Calibrated();
  Pass(100'000, -900'000);
  recovers("a slow stretch");
}

TEST_F(CycleClockTest, ItNeverGoesBackwards) {
  Calibrated();
  uint64_t last = 0;
  for (int i = 0; i < 10'000; ++i) {
    Pass(300, i % 7 == 0 ? 400 : -300);
    if (i % 1000 == 999) ScriptedCycles::ticks -= 20'000;
    const uint64_t now = clock_.NowNs();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST_F(CycleClockTest, ACounterThatIsSlowToReadIsGivenUp) {
  ScriptedCycles::ns_per_read = 2 * ScriptedClock::kBracketNsMax;
  clock_.NowNs();
  for (int i = 0; i < 200; ++i) {
    Pass(2 * ScriptedClock::kIntervalNs);
    clock_.NowNs();
  }
  ScriptedCycles::clock_reads = 0;
  Pass(1'000);
  EXPECT_EQ(Error(), 0u);
  EXPECT_EQ(ScriptedCycles::clock_reads, 1u);
}

TEST(CycleNs, StaysWithinItsBoundOfTheSystemsClockForASecond) {
  uint64_t last = 0, readings = 0, outside = 0;
  const uint64_t end_ns = MonotonicNs() + kNsPerSecond;
  while (last < end_ns) {
    const uint64_t before = MonotonicNs();
    const uint64_t now = CycleNs();
    const uint64_t after = MonotonicNs();
    ASSERT_GE(now, last);
    last = now;
    ++readings;
    constexpr uint64_t kBound = CycleClock<MachineCycles>::kErrorNsMax;
    if (now + kBound < before || now > after + kBound) ++outside;
  }
  // None on a machine of one's own; a virtual one may be stopped between the counter and the clock.
  EXPECT_LE(outside, readings / 1000) << readings;
}

}  // namespace
}  // namespace sutra
