#include "shm/stats/engine_life.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "shm/base/unique_fd.h"
#include "shm/layout.h"

namespace sutra {

const char* EngineLifeName(EngineLife life) {
  switch (life) {
    case EngineLife::kStarting: return "starting";
    case EngineLife::kAlive: return "alive";
    case EngineLife::kDraining: return "draining";
    case EngineLife::kStale: return "stale";
    case EngineLife::kStopped: return "stopped";
    case EngineLife::kCrashed: return "crashed";
  }
  return "unknown";
}

namespace {

// By the name that the kernel keeps for it: a process that merely has the engine's pid, because the engine ended or
// lived in another pid namespace (there it was number 1, here that is init), is none.
bool IsEngine(uint64_t pid) {
  const UniqueFd file(open(("/proc/" + std::to_string(pid) + "/comm").c_str(), O_RDONLY | O_CLOEXEC));
  char name[32];
  const ssize_t bytes = file ? read(file.get(), name, sizeof(name)) : -1;
  return bytes > 0 && std::string_view(name, static_cast<size_t>(bytes)) == "sutra-engine\n";
}

}  // namespace

EngineEvidence GatherEvidence(const StatsSnapshot& snapshot) {
  EngineEvidence evidence;
  evidence.same_boot = snapshot.boot_id == HostBootId();
  const uint64_t pid = snapshot.gauge(Gauge::kPid);
  evidence.pid_exists = pid != 0 && IsEngine(pid);
  const UniqueFd file(open((snapshot.socket + ".lock").c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
  if (!file) return evidence;
  struct flock query {};
  query.l_type = F_WRLCK;
  query.l_whence = SEEK_SET;
  if (fcntl(file.get(), F_OFD_GETLK, &query) == 0) {
    evidence.lock = query.l_type == F_UNLCK ? EngineEvidence::Lock::kFree : EngineEvidence::Lock::kHeld;
  }
  return evidence;
}

uint64_t HeartbeatAgeNs(const StatsSnapshot& snapshot, const EngineEvidence& evidence) {
  const uint64_t beat = snapshot.gauge(Gauge::kHeartbeatNs);
  if (evidence.same_boot && beat != 0 && beat <= snapshot.taken_monotonic_ns) return snapshot.taken_monotonic_ns - beat;
  const uint64_t wall = snapshot.gauge(Gauge::kHeartbeatWallNs);
  return wall != 0 && wall <= snapshot.taken_wall_ns ? snapshot.taken_wall_ns - wall : 0;
}

EngineLife JudgeEngine(const StatsSnapshot& snapshot, const EngineEvidence& evidence) {
  const uint64_t state = snapshot.gauge(Gauge::kState);
  if (state == kEngineClosed) return EngineLife::kStopped;
  if (!evidence.same_boot) return EngineLife::kCrashed;
  const bool fresh = HeartbeatAgeNs(snapshot, evidence) < kHeartbeatStaleNs;
  if (!fresh) {
    // A free lock proves that the engine is dead; a held one that an engine lives, so this one is stopped or slow.
    if (evidence.lock == EngineEvidence::Lock::kFree) return EngineLife::kCrashed;
    if (evidence.lock == EngineEvidence::Lock::kUnknown && !evidence.pid_exists) return EngineLife::kCrashed;
    return state == kEngineStarting ? EngineLife::kStarting : EngineLife::kStale;
  }
  if (evidence.lock == EngineEvidence::Lock::kFree && !evidence.pid_exists) return EngineLife::kCrashed;
  if (state == kEngineStarting) return EngineLife::kStarting;
  return state == kEngineDraining ? EngineLife::kDraining : EngineLife::kAlive;
}

}  // namespace sutra
