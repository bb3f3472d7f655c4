// Whether the engine behind a snapshot is still alive, judged by the kernel's record of its lock and not by a timer.
// Stateless.
#pragma once

#include <cstdint>

#include "shm/base/time.h"
#include "shm/stats/stats_reader.h"

namespace sutra {

enum class EngineLife { kStarting, kAlive, kDraining, kStale, kStopped, kCrashed };
const char* EngineLifeName(EngineLife life);

// What an observer can find out apart from the segment.
struct EngineEvidence {
  // The lock file beside the socket, held as long as the engine lives: the kernel's answer, immune to pid reuse.
  enum class Lock { kUnknown, kHeld, kFree } lock = Lock::kUnknown;
  bool pid_exists = false;  // an engine with that pid runs; it may be another one
  bool same_boot = true;
};
EngineEvidence GatherEvidence(const StatsSnapshot& snapshot);

inline constexpr uint64_t kHeartbeatStaleNs = kNsPerSecond;  // ten missed beats

// Nanoseconds since the last heartbeat; by the monotonic clock where both share one, else by the wall clock.
uint64_t HeartbeatAgeNs(const StatsSnapshot& snapshot, const EngineEvidence& evidence);
EngineLife JudgeEngine(const StatsSnapshot& snapshot, const EngineEvidence& evidence);

}  // namespace sutra
