// The rows of the decision table; WAL_FORMAT.md shows the same table for readers.
#include "cache/wal/recovery_table.h"

#include <cassert>

namespace sutra {
namespace {

template <typename... Values>
constexpr unsigned Any(Values... values) {
  return ((1u << static_cast<unsigned>(values)) | ...);
}
constexpr unsigned kAll = ~0u;
constexpr unsigned kLast = 1;
constexpr unsigned kEarlier = 2;

using H = HeaderState;
using R = RecordState;
using F = Follow;
using B = Bound;

constexpr SegmentRow kSegmentRows[] = {
    {Any(H::kGood), kAll, SegmentDecision::kRead},      {Any(H::kZero), kLast, SegmentDecision::kRemove},
    {Any(H::kZero), kEarlier, SegmentDecision::kVoid},  {Any(H::kBad, H::kUnreadable), kAll, SegmentDecision::kVoid},
    {Any(H::kOlder), kAll, SegmentDecision::kSetAside}, {Any(H::kNewer, H::kMisplaced), kAll, SegmentDecision::kRefuse},
};

constexpr RecordRow kRecordRows[] = {
    {Any(B::kReached), kAll, kAll, RecordDecision::kEnd},
    {Any(B::kOpen, B::kBelow), Any(R::kGood), kAll, RecordDecision::kReplay},
    {Any(B::kOpen, B::kBelow), Any(R::kUnknownIgnorable), kAll, RecordDecision::kSkip},
    {Any(B::kOpen, B::kBelow), Any(R::kUnknown), kAll, RecordDecision::kRefuse},
    {Any(B::kOpen), Any(R::kEndOfSegment), kAll, RecordDecision::kCleanEnd},
    {Any(B::kOpen), Any(R::kUnwritten), Any(F::kNone), RecordDecision::kCleanEnd},
    {Any(B::kOpen),
     Any(R::kUnreadable, R::kBadHeader, R::kBadInsertBody, R::kBadWatermark, R::kBadBody, R::kWrongSequence),
     Any(F::kNone), RecordDecision::kCutTorn},
    {Any(B::kOpen),
     Any(R::kUnwritten, R::kUnreadable, R::kBadHeader, R::kBadInsertBody, R::kBadWatermark, R::kBadBody,
         R::kWrongSequence),
     Any(F::kUnacked), RecordDecision::kCutUnordered},
    {Any(B::kOpen), Any(R::kBadInsertBody), Any(F::kAcked), RecordDecision::kDropInsert},
    {Any(B::kOpen), Any(R::kBadWatermark), Any(F::kAcked), RecordDecision::kSkipWatermark},
    {Any(B::kOpen), Any(R::kUnwritten, R::kUnreadable, R::kBadHeader, R::kBadBody, R::kWrongSequence), Any(F::kAcked),
     RecordDecision::kVoid},
    {Any(B::kBelow), Any(R::kBadInsertBody), kAll, RecordDecision::kDropInsert},
    {Any(B::kBelow), Any(R::kBadWatermark), kAll, RecordDecision::kSkipWatermark},
    {Any(B::kBelow),
     Any(R::kEndOfSegment, R::kMissing, R::kUnwritten, R::kUnreadable, R::kBadHeader, R::kBadBody, R::kWrongSequence),
     kAll, RecordDecision::kVoid},
    {Any(B::kOpen), Any(R::kMissing), kAll, RecordDecision::kVoid},
};

}  // namespace

std::span<const SegmentRow> SegmentRows() { return kSegmentRows; }
std::span<const RecordRow> RecordRows() { return kRecordRows; }

SegmentDecision DecideSegment(HeaderState header, bool last) {
  for (const SegmentRow& row : kSegmentRows) {
    if ((row.header_mask & Any(header)) != 0 && (row.position_mask & (last ? kLast : kEarlier)) != 0) {
      return row.decision;
    }
  }
  assert(false && "the table is total");
  return SegmentDecision::kRefuse;
}

RecordDecision DecideRecord(Bound bound, RecordState record, Follow follow) {
  for (const RecordRow& row : kRecordRows) {
    if ((row.bound_mask & Any(bound)) != 0 && (row.record_mask & Any(record)) != 0 &&
        (row.follow_mask & Any(follow)) != 0) {
      return row.decision;
    }
  }
  assert(false && "the table is total");
  return RecordDecision::kRefuse;
}

bool NeedsLookAhead(Bound bound, RecordState record) {
  const RecordDecision decision = DecideRecord(bound, record, Follow::kNone);
  return decision != DecideRecord(bound, record, Follow::kUnacked) ||
         decision != DecideRecord(bound, record, Follow::kAcked);
}

}  // namespace sutra
