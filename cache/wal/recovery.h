// Recovery: reads the segments of a dead engine, applies the decision table (recovery_table.h) and determines where the
// log ends. Of a segment with an index it reads that instead of the records, which the loader checks later. It writes
// nothing: writes of the dead engine still in flight can complete after its lock is free, so the caller begins a new
// segment whose header carries the cut, and only then removes what the plan names.
//
// Thread rule: one thread, before the shard serves.
// Invariants:
//  - Running it again on the same files, or after a crash at any point of what follows it, gives the same entries.
//    (Not asserted: only a second run could tell. tests/cache/wal/damage_test.cc and tests/sim do one.)
//  - Damage is never silent: it is counted and reported, and with `strict` set the log is refused.
//  - What it reads is at most a small multiple of the log, whatever is damaged. (Not asserted:
//    recovery_damage_test.cc counts the bytes.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache/wal/segment_index.h"
#include "cache/wal/wal_format.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

class DiskIo;

// Receives the log's contents, in order.
class RecoverySink {
 public:
  virtual ~RecoverySink() = default;
  // Once, before anything else: the seed of the digests.
  virtual void Begin(uint64_t hash_seed) = 0;
  // The record's slot has this entry from now on, and nothing else.
  virtual void Insert(const WalRecord& record, uint64_t segment) = 0;
  // The same, read from the segment's index: what the record holds beside it is not known to be right.
  virtual void InsertIndexed(const IndexEntry& entry, uint64_t segment) = 0;
  // It comes soon: what it needs may be fetched from memory meanwhile.
  virtual void Expect(const IndexEntry&) {}
  virtual void Clear(uint32_t slot) = 0;
  virtual void Erase(const EraseBody& key) = 0;
  // Forgets everything received so far and returns how many entries there were.
  virtual uint64_t DropAll() = 0;
};

struct RecoveryRequest {
  std::string directory;
  ModelIdentity model = {};
  uint32_t width = 0;
  bool strict = false;        // refuse a damaged log
  bool every_record = false;  // read the records though an index would do: only that finds all damage
};

struct RecoveredSegment {
  uint64_t number = 0;
  SegmentId id = {};
  uint64_t bytes = 0;
  bool reusable = false;  // this engine has written it, and closed it with every write and sync a success
};

struct RecoveryMessage {
  LogLevel level = LogLevel::kWarn;  // kError: something that counted is lost
  std::string text;
};

struct RecoveryPlan {
  std::vector<RecoveredSegment> chain;  // the segments that stay, oldest first
  uint64_t previous_number = 0;         // what the new segment's header names as its predecessor
  SegmentId previous_id = {};
  uint64_t valid_through = 0;  // the cut: the new segment begins behind this sequence
  uint64_t number_next = 1;    // first unused segment number
  uint64_t removals = 0;       // how many the log counts up to the cut
  uint64_t wall_highest_ns = 0;
  uint64_t clock_set_ns = 0;  // the first time in the log that a clock which was set has told; 0: there is none

  // Set if a removal may be lost: entries from segments up to here must be appended again before these files go.
  uint64_t append_again_through = 0;
  std::vector<uint64_t> quarantine;  // renamed to *.quarantined
  std::vector<uint64_t> remove;      // unlinked

  uint64_t records = 0;          // replayed
  uint64_t indexed = 0;          // of the chain: segments whose index was enough
  uint64_t records_dropped = 0;  // entries and records lost to damage
  uint64_t damaged_segments = 0;
  std::vector<RecoveryMessage> messages;  // for the engine's log; one for all damage of a segment
};

Result<RecoveryPlan> RecoverLog(DiskIo* io, const RecoveryRequest& request, RecoverySink* sink);

}  // namespace sutra
