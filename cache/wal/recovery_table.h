// The recovery decision table: what was read -> what is done. Total and unambiguous; a test walks every combination and
// wants exactly one row for each.
//
// Thread rule: constants and pure functions.
#pragma once

#include <span>

#include "cache/wal/wal_reader.h"

namespace sutra {

// How far the segment is known to have been valid: the header of the segment after it says so.
enum class Bound {
  kOpen,     // it is the last one: nobody has said yet
  kBelow,    // the expected record was valid when the next segment was begun
  kReached,  // everything that was ever valid in it has been read
};
inline constexpr int kBoundCount = 3;

enum class SegmentDecision {
  kRead,
  kRemove,  // never begun: remove the file
  kVoid,    // damaged: what it or any older segment held is dropped, because a delete in it cannot be excluded
  kRefuse,  // not ours to judge: written by a later version, or another store's file
};

enum class RecordDecision {
  kReplay,
  kSkip,          // ignorable record of a later version
  kEnd,           // the segment is finished; whatever lies behind is ignored for ever
  kCleanEnd,      // the log ends here
  kCutTorn,       // a write that was never acknowledged is incomplete: the log ends here
  kCutUnordered,  // later unacknowledged writes arrived without an earlier one: the log ends here
  kDropInsert,    // damage of one insert: it is lost, nothing else
  kVoid,          // damage that may hide a delete: everything older is dropped, go on at the next valid record
  kRefuse,        // written by a later version
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
// Whether the decision depends on what follows, so that the search for it can be left out.
bool NeedsLookAhead(Bound bound, RecordState record);

}  // namespace sutra
