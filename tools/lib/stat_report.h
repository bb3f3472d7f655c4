// What sutra-stat says about one snapshot of an engine's stats segment: text for people, JSON for programs.
// Pure functions of their arguments; thread-safe.
//
// Words, all counted per text:
//   hot      answered by its client from the hot table: what clients report, which the engine believes within bounds
//   hit      answered by the cache shard
//   joined   waited for an equal text that was already being computed
//   miss     computed by the model
//   lookups  hot + hits + joined + misses
//   hit rate hits / (hits + joined + misses); joined texts are never called hits. Only the hot rate is of all lookups:
//            what clients report changes no figure of the engine's own.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "shm/stats/engine_life.h"
#include "shm/stats/stats_reader.h"

namespace sutra {

struct StatView {
  StatsSnapshot now;
  EngineEvidence evidence;
  EngineLife life = EngineLife::kStopped;
  std::string segment;  // name in /dev/shm

  // Rates and recent percentiles, when an earlier snapshot of the same engine exists.
  const StatsSnapshot* before = nullptr;
};

StatView MakeStatView(StatsSnapshot snapshot, const std::string& segment);

struct TextShares {
  uint64_t hot = 0, hits = 0, joined = 0, misses = 0;
  uint64_t answered() const { return hits + joined + misses; }  // by the engine
  uint64_t lookups() const { return hot + answered(); }
  double hot_rate() const { return Of(lookups(), hot); }
  double Share(uint64_t part) const { return Of(answered(), part); }

 private:
  static double Of(uint64_t all, uint64_t part) {
    return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
  }
};
TextShares SharesOf(const StatsSnapshot& snapshot);

// The whole report, one fact per line, heartbeat first.
std::string StatText(const StatView& view);
// The report as one frame of a live view: when it was taken (UTC, as in the engine's log) and what its rates cover,
// then the report, its lines broken between words to fit `columns` (0: as they are).
std::string WatchFrame(const StatView& view, size_t columns);
nlohmann::json StatJson(const StatView& view);

// "3.2 us", "41 ms", "2 h 5 m".
std::string DurationText(double ns);
std::string BytesText(double bytes);

// Exit code of a one-shot call: 0 starting, alive or draining; 2 stopped; 3 crashed; 4 stale.
int StatExitCode(EngineLife life);

}  // namespace sutra
