// What the segments of the chain hold: each by its index, where that tells all that counts, else record by record.
#include <algorithm>

#include "cache/disk/disk_io.h"
#include "cache/wal/believed_time.h"
#include "cache/wal/recovery_run.h"
#include "cache/wal/recovery_table.h"

namespace sutra {
namespace {

// Far enough for a line of memory to arrive.
constexpr size_t kExpectAhead = 16;

}  // namespace

Status Recovery::Replay(size_t index) {
  const SegmentHeader& header = chain_[index];
  const bool last = index + 1 == chain_.size();
  const uint64_t valid_through = last ? 0 : chain_[index + 1].previous_valid_through;
  if (!last && valid_through < header.previous_valid_through) {
    return Status(StatusCode::kRefused, PathOf(header.number) + " and the segment after it contradict each other");
  }
  Result<std::unique_ptr<WalReader>> opened = OpenSegment(header.number, header.id);
  if (!opened.ok()) return opened.status();
  const std::unique_ptr<WalReader> reader = std::move(opened).value();
  reader->Believe(header);
  Believed(header.wall_highest_ns);
  removals_ = header.removals;
  const Result<IndexState> indexed = reader->ReadIndex(&index_);
  if (!indexed.ok()) return indexed.status();
  if (indexed.value() == IndexState::kGood && Suffices(index)) {
    ApplyIndex(header.number);
  } else {
    if (indexed.value() == IndexState::kDamaged) {
      Warn("the index of " + PathOf(header.number) + " is damaged: its records are read instead" + kCheckTheDisk);
    }
    if (Status status = ReplayRecords(index, reader.get()); !status.ok()) return status;
  }
  // A write of the dead engine may have landed since the first sync and been read from the page cache alone. The next
  // header vouches for it, so it must be durable first (P2).
  return last ? reader->Sync() : Status();
}

Status Recovery::ReplayRecords(size_t index, WalReader* reader) {
  const SegmentHeader& header = chain_[index];
  const bool last = index + 1 == chain_.size();
  const uint64_t valid_through = last ? 0 : chain_[index + 1].previous_valid_through;
  uint64_t expected = header.previous_valid_through + 1;
  Losses losses;
  while (true) {
    const Bound bound = last ? Bound::kOpen : expected > valid_through ? Bound::kReached : Bound::kBelow;
    if (bound == Bound::kReached) break;
    WalRecord record;
    const Result<RecordState> state = reader->Classify(expected, &record);
    if (!state.ok()) return state.status();
    Follow follow = Follow::kNone;
    if (NeedsLookAhead(bound, state.value())) {
      const Result<Follow> seen = reader->LookAhead(expected);
      if (!seen.ok()) return seen.status();
      follow = seen.value();
    }
    const RecordDecision decision = DecideRecord(bound, state.value(), follow);
    const auto place = [&] { return PathOf(header.number) + " at byte " + std::to_string(reader->position()); };
    switch (decision) {
      case RecordDecision::kReplay:
        Apply(record, header.number);
        Pass(record, reader, &expected);
        continue;
      case RecordDecision::kSkip: Pass(record, reader, &expected); continue;
      case RecordDecision::kDropInsert:
        losses.At(reader->position());
        ++losses.inserts;
        Pass(record, reader, &expected);
        continue;
      case RecordDecision::kSkipWatermark:
        losses.At(reader->position());
        ++losses.watermarks;
        Pass(record, reader, &expected);
        continue;
      case RecordDecision::kVoid: {
        losses.At(reader->position());
        const Result<bool> resumed = Resume(index, reader, valid_through, &expected, &losses);
        if (!resumed.ok()) return resumed.status();
        if (resumed.value()) continue;
        break;
      }
      case RecordDecision::kRefuse:
        return Status(StatusCode::kRefused, place() +
                                                ": a record of a later version; start that version, or move the "
                                                "directory away");
      case RecordDecision::kCutTorn:
        Warn(place() + ": an unacknowledged write is incomplete, the log ends here");
        break;
      case RecordDecision::kCutUnordered:
        Warn(place() + ": unacknowledged writes arrived out of order, the log ends here");
        break;
      case RecordDecision::kEnd:
      case RecordDecision::kCleanEnd: break;
    }
    break;
  }
  plan_.records_dropped += losses.inserts + losses.missing + losses.dropped;
  plan_.removals = removals_;
  if (losses.voids > 0) voided_through_ = header.number;
  losses.unreadable = reader->unreadable_blocks();
  newest_unreadable_ = losses.unreadable > 0;
  Note(reader);
  if (losses.first_offset == 0 && losses.unreadable > 0) losses.first_offset = reader->unreadable_first();
  if (losses.first_offset != 0) {
    const std::string message = PathOf(header.number) + " is damaged: " + losses.Text() + ", first at byte " +
                                std::to_string(losses.first_offset) + kCheckTheDisk;
    losses.nothing_lost() ? Warn(message) : Damage(header.number, message);
  }
  plan_.valid_through = expected - 1;
  return {};
}

bool Recovery::Suffices(size_t position) const {
  const bool last = position + 1 == chain_.size();
  const auto known = [](const IndexEntry& entry) { return entry.type != 0 && entry.type <= kRecordTypeMax; };
  return !request_.every_record && index_.trailer.hash_seed == chain_.back().hash_seed &&
         (last || index_.trailer.sequence_last == chain_[position + 1].previous_valid_through) &&
         std::all_of(index_.entries.begin(), index_.entries.end(), known);
}

void Recovery::ApplyIndex(uint64_t segment) {
  for (size_t i = 0; i < index_.entries.size(); ++i) {
    const IndexEntry& entry = index_.entries[i];
    if (i + kExpectAhead < index_.entries.size()) sink_->Expect(index_.entries[i + kExpectAhead]);
    switch (entry.record_type()) {
      case RecordType::kInsert: sink_->InsertIndexed(entry, segment); break;
      case RecordType::kErase: sink_->Erase({entry.digest_low, entry.digest_high, entry.variant}); break;
      case RecordType::kClear: sink_->Clear(entry.slot); break;
      case RecordType::kDropAll: sink_->DropAll(); break;
      case RecordType::kNone:
      case RecordType::kWatermark: break;
    }
  }
  reads_records_ = true;
  newest_unreadable_ = false;
  const IndexTrailer& trailer = index_.trailer;
  plan_.wall_highest_ns = std::max(plan_.wall_highest_ns, trailer.wall_highest_ns);
  if (plan_.clock_set_ns == 0) plan_.clock_set_ns = trailer.clock_set_ns;
  plan_.removals = removals_ = trailer.removals;
  plan_.valid_through = trailer.sequence_last;
  plan_.records += index_.entries.size();
  ++plan_.indexed;
}

void Recovery::Pass(const WalRecord& record, WalReader* reader, uint64_t* expected) {
  Believed(record.header.wall_highest_ns);
  removals_ = record.header.removals;
  reader->Skip(record);
  ++*expected;
}

Result<bool> Recovery::Resume(size_t index, WalReader* reader, uint64_t valid_through, uint64_t* expected,
                              Losses* losses) {
  const bool last = index + 1 == chain_.size();
  const Result<uint64_t> resumed = reader->Resync(*expected);
  if (!resumed.ok()) return resumed.status();
  // If there is no place to continue, one number is left out, so that the next recovery finds the damage again.
  const uint64_t next = resumed.value() != 0 ? resumed.value() : last ? *expected + 1 : valid_through + 1;
  std::optional<uint64_t> removals;
  if (resumed.value() != 0) {
    WalRecord record;
    const Result<RecordState> state = reader->Classify(next, &record);
    if (!state.ok()) return state.status();
    removals = record.header.removals - (IsRemoval(record.type()) ? 1 : 0);
  } else if (!last) {
    removals = chain_[index + 1].removals;
  }
  if (removals == removals_) {
    ++losses->gaps;
    losses->missing += next - *expected;
  } else {
    ++losses->voids;
    losses->dropped += sink_->DropAll() + (next - *expected);
  }
  *expected = next;
  return resumed.value() != 0;
}

void Recovery::Believed(uint64_t ns) {
  plan_.wall_highest_ns = std::max(plan_.wall_highest_ns, ns);
  if (plan_.clock_set_ns == 0 && ns >= kClockSetNs) plan_.clock_set_ns = ns;
}

void Recovery::Apply(const WalRecord& record, uint64_t segment) {
  ++plan_.records;
  if (record.type() == RecordType::kInsert) sink_->Insert(record, segment);
  if (record.type() == RecordType::kClear) sink_->Clear(record.header.slot);
  if (record.type() == RecordType::kErase) sink_->Erase(record.erase);
  if (record.type() == RecordType::kDropAll) sink_->DropAll();
}

}  // namespace sutra
