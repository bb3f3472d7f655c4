// The observer's side of the stats segment: find, map, copy, parse.
//
// The segment belongs to an engine that may be of another version or, for a tool run by root, of another user. It is
// copied word by word into private memory within fstat's size and only the copy is parsed.
//
// Thread rule: a StatsReader belongs to one thread.
// Invariants: an observer trusts nothing in the segment; every offset, count and stride is checked against fstat's
// size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm/base/host.h"
#include "shm/base/status.h"
#include "shm/stats/histogram.h"
#include "shm/stats/labels.h"

namespace sutra {

// A copy for display: each word is read whole, but not all at the same instant.
struct StatsSnapshot {
  uint16_t major = 0, minor = 0;
  uint64_t engine_generation = 0;
  BootId boot_id{};
  std::string model, identity, precision, device, socket, disk_io, version_text;
  std::map<std::string, uint64_t> counters, gauges;
  std::map<std::string, HistogramSnapshot> histograms;
  uint64_t taken_monotonic_ns = 0, taken_wall_ns = 0;  // when the copy was made

  // 0 or an empty histogram if the engine's version does not have that label. Code that knows the value it wants passes
  // the enumerator, so that a renamed label cannot read as 0.
  uint64_t counter(Counter which) const { return counter(LabelOf(which)); }
  uint64_t gauge(Gauge which) const { return gauge(LabelOf(which)); }
  const HistogramSnapshot& histogram(Histogram which) const { return histogram(LabelOf(which)); }
  uint64_t counter(const std::string& label) const;
  uint64_t gauge(const std::string& label) const;
  const HistogramSnapshot& histogram(const std::string& label) const;
};

// Parses a private copy of a segment's bytes. Never reads outside `bytes`, whatever they hold. The clock fields stay 0.
Result<StatsSnapshot> ParseStats(std::span<const std::byte> bytes);

class StatsReader {
 public:
  // By the engine's socket path (an engine of this user first, else of any user), or by a segment's name.
  static Result<StatsReader> OpenSocket(const std::string& socket_path);
  static Result<StatsReader> OpenName(const std::string& name);
  // Names of the segments on this host that this user may read, newest first; of those that it may not.
  static std::vector<std::string> List();
  static std::vector<std::string> ListUnreadable();

  StatsReader(StatsReader&&) noexcept;
  StatsReader& operator=(StatsReader&&) noexcept;
  ~StatsReader();

  const std::string& name() const { return name_; }
  // kNotReady: the creator has not finished. kRefused: another major, or not a stats segment.
  Result<StatsSnapshot> Snapshot() const;
  // True when the name now leads to another segment (the engine was started again): Reopen follows it.
  bool Replaced() const;
  Status Reopen();

 private:
  struct Mapping;
  StatsReader();
  std::unique_ptr<Mapping> mapping_;
  std::string name_;
};

}  // namespace sutra
