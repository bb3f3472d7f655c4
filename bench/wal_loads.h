// What the log goes through in `bench/run wal`: waiters, all cores computing, a slow disk, a full store whose log goes
// round. Thread rule: the bench's main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"

namespace sutra::bench {

// Ends the bench when it cannot be opened.
std::unique_ptr<CacheShard> OpenOrDie(const CacheConfig& config, DiskIo* io);

// Records per second from the first insert to the last sync; the queue is kept from overflowing.
double IntervalAppends(const std::string& base, DiskIo* io);

struct GroupFigures {
  double per_s = 0;   // durable inserts per second of all waiters
  double p50_us = 0;  // from the insert to the return of the wait
  double p99_ms = 0;
};
enum class Company {
  kNone,
  kComputing,       // as many computing threads as there are CPUs, at the priority of the engine's workers: everyone's
  kComputingBelow,  // the same, but the waiters run before them (where that is allowed), so that their own wait for a
                    // CPU is not in the figure
};
// Threads that each insert and wait until it is durable.
GroupFigures GroupCommits(const std::string& base, DiskIo* io, int waiters, Company company);

// Durable appends one at a time in microseconds, ours and bare ones in turns: the median of each.
struct AppendFigures {
  double ours_us = 0;
  std::vector<double> bare_us;  // in the order of kBareAppends
};
AppendFigures DurableAppends(const std::string& base, DiskIo* io);

// 20,000 inserts per second while each sync takes 400 ms more.
struct SlowSyncFigures {
  double unwritten_ms = 0;  // the oldest unwritten record that was seen
  double dropped = 0;       // inserts, from the log
};
SlowSyncFigures SlowSyncs(const std::string& base, int delay_ms, int per_ms);

// Bytes written to the disk per byte of vector and text inserted, once the log goes round with the store full. Nine
// tenths of the entries are looked up all the time and stay, while new ones come and go; log, segments and entries are
// in the ratio of the defaults.
double WriteAmplification(const std::string& base);

}  // namespace sutra::bench
