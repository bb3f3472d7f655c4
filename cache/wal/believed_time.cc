// Agreement is the fast path, without the mutex; a jump is watched under it.
#include "cache/wal/believed_time.h"

#include <algorithm>
#include <cassert>

#include "shm/base/clock.h"

namespace sutra {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr uint64_t kDriftNs = kNsPerSecond;  // the clocks are set against each other anew when they drift this far

uint64_t Distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

}  // namespace

void BelievedTime::Start(const Clock& clock, uint64_t highest_ns) {
  const uint64_t wall_ns = clock.WallNs();
  const bool knows = highest_ns >= kClockSetNs || (highest_ns != 0 && wall_ns < kClockSetNs);
  const uint64_t start_ns = Raise(knows ? highest_ns : std::max(highest_ns, wall_ns));
  assert(start_ns >= highest_ns);
  offset_ns_.store(start_ns - clock.BootNs(), kRelaxed);
  Read(clock);  // a jump is watched from now on
}

uint64_t BelievedTime::ForExpiry(const Clock& clock) {
  const Reading reading = Read(clock);
  return trusted_.load(kRelaxed) ? reading.highest_ns : std::max(reading.highest_ns, reading.wall_ns);
}

BelievedTime::Reading BelievedTime::Read(const Clock& clock) {
  const uint64_t boot_ns = clock.BootNs();
  const uint64_t wall_ns = clock.WallNs();
  const uint64_t expected_ns = boot_ns + offset_ns_.load(kRelaxed);
  const uint64_t distance_ns = Distance(wall_ns, expected_ns);
  bool agrees = distance_ns <= kClockNearNs;
  if (!agrees) agrees = JudgeJump(boot_ns, wall_ns);
  if (!agrees) return Reading{wall_ns, Raise(expected_ns), false};
  if (distance_ns > kDriftNs) offset_ns_.store(wall_ns - boot_ns, kRelaxed);
  if (jumped_.load(kRelaxed)) jumped_.store(false, kRelaxed);
  if (wall_ns >= kClockSetNs && !trusted_.load(kRelaxed)) trusted_.store(true, kRelaxed);
  return Reading{wall_ns, Raise(wall_ns), true};
}

bool BelievedTime::JudgeJump(uint64_t boot_ns, uint64_t wall_ns) {
  MutexLock lock(mutex_);
  if (wall_ns < boot_ns + offset_ns_.load(kRelaxed)) {
    jumped_.store(false, kRelaxed);
    return false;
  }
  const uint64_t offset_ns = wall_ns - boot_ns;
  if (!jumped_.load(kRelaxed) || Distance(offset_ns, jump_offset_ns_) > kClockNearNs) {
    jump_offset_ns_ = offset_ns;
    jump_since_ns_ = boot_ns;
    jumped_.store(true, kRelaxed);
  }
  return boot_ns >= jump_since_ns_ && boot_ns - jump_since_ns_ >= kClockHoldNs;
}

uint64_t BelievedTime::Raise(uint64_t ns) {
  uint64_t highest = highest_ns_.load(kRelaxed);
  while (highest < ns && !highest_ns_.compare_exchange_weak(highest, ns, kRelaxed, kRelaxed)) {
  }
  return std::max(ns, highest);
}

}  // namespace sutra
