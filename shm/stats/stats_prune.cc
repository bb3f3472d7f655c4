// Judged by the same evidence as sutra-stat's display.
#include "shm/stats/stats_prune.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

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

// Stricter than the display: an engine under another program's name would look crashed once its lock file is gone, so
// any process with its pid keeps the segment.
bool EngineHasEnded(const StatsSnapshot& snapshot) {
  const EngineEvidence evidence = GatherEvidence(snapshot);
  if (evidence.lock == EngineEvidence::Lock::kHeld) return false;
  const EngineLife life = JudgeEngine(snapshot, evidence);
  if (life == EngineLife::kStopped) return true;
  const std::string process = "/proc/" + std::to_string(snapshot.gauge(Gauge::kPid));
  return life == EngineLife::kCrashed && access(process.c_str(), F_OK) != 0;
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
