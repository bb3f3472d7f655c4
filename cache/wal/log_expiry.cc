// Damaged records are passed over: recovery serves none of them. What cannot be read now may be readable at the next
// start, so it makes the result unknown.
#include "cache/wal/log_expiry.h"

#include <algorithm>
#include <memory>

#include "cache/wal/believed_time.h"
#include "cache/wal/wal_reader.h"

namespace sutra {
namespace {

void AddInsert(uint64_t stamp_ns, uint64_t wall_expiry_ns, LogExpiry* expiry) {
  ++expiry->records;
  expiry->record_newest_ns = std::max(expiry->record_newest_ns, stamp_ns);
  expiry->expiry_newest_ns = std::max(expiry->expiry_newest_ns, wall_expiry_ns);
  // Written before the clock was set: how long it lives is decided by what the clock said later.
  if (wall_expiry_ns < kClockSetNs) expiry->known = false;
}

// False: it cannot be told what else the segment holds.
bool AddRecords(WalReader* reader, LogExpiry* expiry) {
  SegmentIndex index;
  const Result<IndexState> indexed = reader->ReadIndex(&index);
  if (!indexed.ok()) return false;
  if (indexed.value() == IndexState::kGood) {
    for (const IndexEntry& entry : index.entries) {
      if (entry.type > kRecordTypeMax) return false;
      if (entry.record_type() == RecordType::kInsert) AddInsert(entry.wall_highest_ns, entry.wall_expiry_ns, expiry);
    }
    return true;
  }
  uint64_t expected = reader->header().previous_valid_through + 1;
  const uint64_t records_before = expiry->records;
  bool damaged = false;
  for (;;) {
    WalRecord record;
    const Result<RecordState> state = reader->Classify(expected, &record);
    if (!state.ok()) return false;
    switch (state.value()) {
      case RecordState::kGood:
        if (record.type() == RecordType::kInsert) {
          AddInsert(record.header.wall_highest_ns, record.insert.wall_expiry_ns, expiry);
        }
        [[fallthrough]];
      case RecordState::kUnknownIgnorable:
        reader->Skip(record);
        ++expected;
        continue;
      case RecordState::kUnknown:
      case RecordState::kUnreadable: return false;
      case RecordState::kEndOfSegment:
      case RecordState::kMissing: break;
      default: {
        damaged = damaged || state.value() != RecordState::kUnwritten;
        const Result<uint64_t> resumed = reader->Resync(expected);
        if (!resumed.ok()) return false;
        if (resumed.value() == 0) break;
        expected = resumed.value();
        continue;
      }
    }
    // Damage and not one entry: rather a format that this reader takes for its own than an empty log.
    if (damaged && expiry->records == records_before) return false;
    return reader->unreadable_blocks() == 0;
  }
}

}  // namespace

void AddSegmentExpiry(DiskIo* io, const std::string& path, const SegmentExpectation& expected, LogExpiry* expiry) {
  Result<std::unique_ptr<WalReader>> reader = WalReader::Open(io, path, expected);
  if (reader.ok() && (*reader)->header_state() == HeaderState::kZero) return;  // it was never begun
  const bool readable = reader.ok() && (*reader)->header_state() == HeaderState::kGood;
  if (!readable || !AddRecords(reader->get(), expiry)) expiry->known = false;
}

}  // namespace sutra
