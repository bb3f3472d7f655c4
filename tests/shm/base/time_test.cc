#include "shm/base/time.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(Time, MonotonicNeverDecreasesAndIsTheKernelsClock) {
  timespec before;
  clock_gettime(CLOCK_MONOTONIC, &before);
  const uint64_t first = MonotonicNs(), second = MonotonicNs();
  EXPECT_GE(first, ToNs(before));
  EXPECT_GE(second, first);
}

TEST(Time, WallClockIsRealTime) {
  timespec before, after;
  clock_gettime(CLOCK_REALTIME, &before);
  const uint64_t now = WallNs();
  clock_gettime(CLOCK_REALTIME, &after);
  if (ToNs(after) >= ToNs(before)) {  // nobody set the clock meanwhile
    EXPECT_GE(now, ToNs(before));
    EXPECT_LE(now, ToNs(after));
  }
}

TEST(Time, TimespecsAndNanosecondsConvertBothWays) {
  for (const uint64_t ns :
       {uint64_t{0}, uint64_t{1}, kNsPerSecond - 1, kNsPerSecond, 7 * kNsPerSecond + 3 * kNsPerMs}) {
    const timespec time = ToTimespec(ns);
    EXPECT_LT(time.tv_nsec, static_cast<long>(kNsPerSecond));
    EXPECT_EQ(ToNs(time), ns);
  }
}

}  // namespace
}  // namespace sutra
