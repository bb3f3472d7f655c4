// Judged by the same evidence as sutra-stat's display.
#include "shm/stats/stats_prune.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "shm/stats/engine_life.h"
#include "shm/stats/stats_layout.h"
#include "shm/stats/stats_name.h"
#include "shm/stats/stats_reader.h"

namespace sutra {
namespace {

// False where that cannot be told: no permission, or a path that did not fit into the segment.
bool FolderIsGone(const std::string& socket) {
  const size_t slash = socket.rfind('/');
  if (slash == std::string::npos || slash == 0 || socket.size() + 1 >= sizeof(StatsHeader::socket)) return false;
  struct stat info = {};
  return lstat(socket.substr(0, slash).c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

// For a display the name of the process tells an engine from another program with its pid. What is removed must be
// certain: any process with the pid may be the engine, under another name.
bool EngineHasEnded(const StatsSnapshot& snapshot) {
  const EngineEvidence evidence = GatherEvidence(snapshot);
  if (evidence.lock == EngineEvidence::Lock::kHeld) return false;
  const EngineLife life = JudgeEngine(snapshot, evidence);
  const bool pid_in_use = access(("/proc/" + std::to_string(snapshot.gauge(Gauge::kPid))).c_str(), F_OK) == 0;
  return life == EngineLife::kStopped || (life == EngineLife::kCrashed && !pid_in_use);
}

}  // namespace

std::vector<PrunedSegment> PruneStats(uint32_t uid) {
  const std::string prefix = kStatsNamePrefix + std::to_string(uid) + ".";
  std::vector<PrunedSegment> pruned;
  for (const std::string& name : StatsReader::List()) {
    if (name.rfind(prefix, 0) != 0) continue;
    const Result<StatsReader> reader = StatsReader::OpenName(name);
    if (!reader.ok()) continue;
    const Result<StatsSnapshot> snapshot = reader.value().Snapshot();
    if (!snapshot.ok()) continue;
    if (!FolderIsGone(snapshot.value().socket) || !EngineHasEnded(snapshot.value())) continue;
    if (reader.value().Replaced()) continue;  // by an engine that has just begun in a new folder
    if (shm_unlink(("/" + name).c_str()) == 0) pruned.push_back({name, snapshot.value().socket});
  }
  return pruned;
}

}  // namespace sutra
