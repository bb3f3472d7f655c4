// The recovery decision table: what was read -> what is done. Total and unambiguous; a test tries every combination and
// expects exactly one row for each.
//
// Thread rule: constants and pure functions.
#pragma once

#include <span>

#include "cache/wal/wal_reader.h"

namespace sutra {

// How far the segment is known to have been valid, according to the header of the next segment.
enum class Bound {
  kOpen,     // it is the last one: not known
  kBelow,    // the expected record was valid when the next segment was begun
  kReached,  // everything that was ever valid in it has been read
};
inline constexpr int kBoundCount = 3;

enum class SegmentDecision {
  kRead,
  kRemove,    // never begun: remove the file
  kVoid,      // damaged: what it or any older segment held is dropped, because it may have held a removal
  kSetAside,  // of a format that is no longer read: this segment and all older ones
  kRefuse,    // not for this program: written by a later version, or another store's file
};

enum class RecordDecision {
  kReplay,
  kSkip,           // ignorable record of a later version
  kEnd,            // the segment is finished; whatever lies behind is ignored forever
  kCleanEnd,       // the log ends here
  kCutTorn,        // a write that was never acknowledged is incomplete: the log ends here
  kCutUnordered,   // later unacknowledged writes reached the disk but an earlier one did not: the log ends here
  kDropInsert,     // one insert is damaged: it is lost, nothing else, and it is passed over at every replay
  kSkipWatermark,  // a watermark is damaged: nothing is lost
  kVoid,    // damage that may hide a removal: older entries are dropped, reading goes on at the next valid record
  kRefuse,  // written by a later version
};

// A row matches when each mask has the bit of the value that was read.
struct SegmentRow {
  unsigned header_mask;
  unsigned position_mask;  // bit 0: the last segment, bit 1: an earlier one
  SegmentDecision decision;
};

struct RecordRow {
  unsigned bound_mask;
  unsigned record_mask;
  unsigned follow_mask;
  RecordDecision decision;
};

std::span<const SegmentRow> SegmentRows();
std::span<const RecordRow> RecordRows();

SegmentDecision DecideSegment(HeaderState header, bool last);
RecordDecision DecideRecord(Bound bound, RecordState record, Follow follow);
// Whether the decision depends on what follows; if not, the search for it can be skipped.
bool NeedsLookAhead(Bound bound, RecordState record);

}  // namespace sutra
