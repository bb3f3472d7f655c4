#include "shm/base/clock.h"

#include <gtest/gtest.h>

#include <thread>

#include "shm/base/cycle_clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

TEST(Clock, TheRealOneReadsTheClocksOfTheHost) {
  const uint64_t before_ns = MonotonicNs();
  const uint64_t read_ns = Clock::Real()->MonotonicNs();
  EXPECT_LE(before_ns, read_ns);
  EXPECT_LE(read_ns, MonotonicNs());
  const uint64_t boot_before_ns = BootNs(), boot_ns = Clock::Real()->BootNs();
  constexpr uint64_t kErrorNsMax = CycleClock<MachineBootCycles>::kErrorNsMax;
  EXPECT_LE(boot_before_ns, boot_ns + kErrorNsMax);
  EXPECT_LE(boot_ns, BootNs() + kErrorNsMax);
  EXPECT_GE(boot_ns, before_ns) << "it counts all that the monotonic clock counts";
  const uint64_t wall_ns = WallNs(), seam_ns = Clock::Real()->WallNs();
  EXPECT_LT(seam_ns > wall_ns ? seam_ns - wall_ns : wall_ns - seam_ns, 3600 * kNsPerSecond);  // not another clock
}

TEST(Clock, AWaitEndsAtItsDeadline) {
  Mutex mutex;
  CondVar condition;
  const uint64_t deadline_ns = MonotonicNs() + 3 * kNsPerMs;
  const MutexLock lock(mutex);
  while (Clock::Real()->MonotonicNs() < deadline_ns) Clock::Real()->WaitUntil(&condition, &mutex, deadline_ns);
  EXPECT_GE(MonotonicNs(), deadline_ns);
}

TEST(Clock, AWaitEndsWhenItIsNotifiedLongBeforeItsDeadline) {
  Mutex mutex;
  CondVar condition;
  bool changed = false;
  std::thread changer([&] {
    const MutexLock lock(mutex);
    changed = true;
    condition.NotifyAll();
  });
  {
    const MutexLock lock(mutex);  // the test's timeout is the watchdog: without the notification it waits for an hour
    while (!changed) Clock::Real()->WaitUntil(&condition, &mutex, MonotonicNs() + 3600 * kNsPerSecond);
  }
  changer.join();
}

}  // namespace
}  // namespace sutra
