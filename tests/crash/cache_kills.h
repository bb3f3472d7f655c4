// Kills of processes that use a cache shard on a real directory: each child inserts, hits, removes and evicts while
// segments go round, until SIGKILL at a random time or, in builds with checkpoints, at one. Each next start is checked
// against all that the dead child told (kill_journal.h). A kill leaves the log's records up to some place, so what a
// start finds must be the set of entries as it was after some call, and after the last that was written, no older.
//
// Counted, and 0 unless something is wrong:
//   wrong     a vector that was never stored for its text
//   returned  an entry that had been removed; revived: that had been evicted
//   missing   an entry that was written (known to be, or confirmed by Sync or a removal) and not evicted, or a newer
//             version of it
//   mixed     each entry is as it was at some time, but no such set was ever there
//   refused   a start that was refused, or that reported damage; a child that ended by itself
//
// Thread rule: one thread, the main one (child_process.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace sutra::test {

struct CacheKillOptions {
  uint64_t kills = 200;
  uint64_t seed = 1;
  bool full = true;  // more keys than entries, and a log of twice the memory
  uint64_t progress_s = 0;
  bool end_at_first = false;
  std::string directory;  // of the run's files; empty: a temporary one
  // Canaries.
  bool lie = false;     // children say that they synced and have not: missing
  bool revive = false;  // children put back what they have removed: returned
};

struct CacheKillTotals {
  uint64_t kills = 0, wrong = 0, returned = 0, revived = 0, missing = 0, mixed = 0, refused = 0;
  uint64_t at_checkpoints = 0;  // of `kills`
  uint64_t during_starts = 0;   // of `kills`: before the child had told what it found
  uint64_t changes = 0;         // inserts and removals that were attempted
  uint64_t evictions = 0, removals = 0;
  uint64_t log_evictions = 0;  // evictions after the log had begun to evict; there should be none
  uint64_t found = 0;          // entries that starts found
  uint64_t late = 0;           // starts that missed a change older than 60 ms (a busy machine): no failure here
  uint64_t ms = 0;
  std::string failure;  // the first one
  bool good() const { return wrong + returned + revived + missing + mixed + refused == 0; }
};

CacheKillTotals RunCacheKills(const CacheKillOptions& options, const std::atomic<bool>* stop = nullptr);

}  // namespace sutra::test
