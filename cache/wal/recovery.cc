// The order of work: headers, then the chain backwards from the newest segment, then the records forwards.
#include "cache/wal/recovery.h"

#include <algorithm>
#include <cassert>
#include <memory>
#include <optional>

#include "cache/disk/disk_io.h"
#include "cache/wal/believed_time.h"
#include "cache/wal/recovery_losses.h"
#include "cache/wal/recovery_table.h"
#include "cache/wal/wal_reader.h"
#include "shm/base/checkpoint.h"

namespace sutra {
namespace {

// Far enough for a line of memory to arrive: a start with a million entries takes half as long as without.
constexpr size_t kExpectAhead = 16;
constexpr const char* kCheckTheDisk = "; check the disk (kernel messages, SMART)";

class Recovery {
 public:
  Recovery(DiskIo* io, const RecoveryRequest& request, RecoverySink* sink) : io_(io), request_(request), sink_(sink) {}

  Result<RecoveryPlan> Run() {
    if (Status status = ListSegments(); !status.ok()) return status;
    if (Status status = DecideChain(); !status.ok()) return status;
    if (!chain_.empty()) sink_->Begin(chain_.back().hash_seed);
    for (size_t i = 0; i < chain_.size(); ++i) {
      if (Status status = Replay(i); !status.ok()) return status;
    }
    if (Status status = RefuseDeadDisk(); !status.ok()) return status;
    Conclude();
    // Nothing could be appended behind them: numbers would start over, and the next recovery could not read on.
    if (plan_.number_next > kNumberMax || plan_.valid_through > kNumberMax) {
      return Status(StatusCode::kRefused, request_.directory +
                                              " holds segment or record numbers that this program's logs cannot reach; "
                                              "move it away");
    }
    const bool lossless = plan_.records_dropped == 0 && plan_.append_again_through == 0;
    assert(lossless || plan_.damaged_segments > 0);
    assert((lossless && plan_.quarantine.empty()) || !plan_.messages.empty());
    if (request_.strict && plan_.damaged_segments > 0) {
      return Status(StatusCode::kRefused,
                    request_.directory + " is damaged and strict recovery is on: " + damage_ +
                        "; start without strict recovery to go on without what is lost, or restore the directory");
    }
    return std::move(plan_);
  }

 private:
  std::string PathOf(uint64_t number) const { return request_.directory + "/" + SegmentName(number); }

  // A disk that reads nothing says nothing about the log: its files are left alone. Headers do not count as read, they
  // may be in the page cache still.
  Status RefuseDeadDisk() const {
    if (reads_records_ || !unreadable_) return {};
    bool asked = false;
    for (const uint64_t number : found_) {
      const std::optional<bool> reads = WalReader::AnyBlockReads(io_, PathOf(number));
      if (reads == true) return {};
      asked = asked || reads.has_value();
    }
    if (!asked) return {};  // what was cut off is damage, whatever the disk makes of the rest
    return Status(StatusCode::kStorageError,
                  request_.directory + ": not one record block of its " +
                      Counted(found_.size(), "segment", "segments") + " can be read; they are left as they are" +
                      kCheckTheDisk + " and start again, or move the directory away to begin an empty cache");
  }

  Status ListSegments() {
    // Never decide on names or data that exist only in the page cache (P2).
    if (Status status = io_->SyncDirectory(request_.directory); !status.ok()) return status;
    Result<std::vector<std::string>> names = io_->List(request_.directory);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      if (const uint64_t number = SegmentNumber(name); number != 0) numbers_.push_back(number);
    }
    std::sort(numbers_.begin(), numbers_.end());
    found_ = numbers_;
    if (!numbers_.empty()) plan_.number_next = std::min(numbers_.back(), kNumberMax) + 1;
    return {};
  }

  Result<std::unique_ptr<WalReader>> OpenSegment(uint64_t number, const std::optional<SegmentId>& id) {
    return WalReader::Open(io_, PathOf(number), SegmentExpectation{number, request_.model, request_.width, id});
  }

  // What the disk could read of a segment; null: not even its file.
  void Note(const WalReader* reader) {
    unreadable_ = unreadable_ || reader == nullptr || reader->unreadable_blocks() > 0;
    reads_records_ = reads_records_ || (reader != nullptr && reader->reads_records());
  }

  // Walks from the newest segment to the oldest by `previous_number`. Segments whose number a later header leaves out
  // were abandoned before anything in them counted; those below a gap have lost their successors and count as damaged.
  Status DecideChain() {
    size_t left = numbers_.size();
    while (left > 0) {
      const uint64_t number = numbers_[left - 1];
      const bool last = left == numbers_.size();
      std::optional<SegmentId> id;
      if (!chain_.empty()) id = chain_.front().previous_id;
      Result<std::unique_ptr<WalReader>> opened = OpenSegment(number, id);
      if (!opened.ok() && !WalReader::IsUnreadable(opened.status())) return opened.status();
      const std::unique_ptr<WalReader> reader = opened.ok() ? std::move(opened).value() : nullptr;
      const HeaderState state = reader != nullptr ? reader->header_state() : HeaderState::kUnreadable;
      Note(reader.get());
      switch (DecideSegment(state, last)) {
        case SegmentDecision::kRefuse: return RefuseSegment(number, state);
        case SegmentDecision::kRemove:
          plan_.remove.push_back(number);
          numbers_.pop_back();
          left = numbers_.size();
          continue;
        case SegmentDecision::kVoid:
          Damage(number, "the header of " + PathOf(number) +
                             (state == HeaderState::kUnreadable ? " cannot be read" : " is damaged") +
                             ": what it and all older segments held is dropped (they are kept as "
                             "*.quarantined)" +
                             kCheckTheDisk);
          VoidFrom(left);
          return {};
        case SegmentDecision::kSetAside: SetAside(left); return {};
        case SegmentDecision::kRead: break;
      }
      // After a kill, data of the newest segment may exist in the page cache only (P2).
      if (last) {
        if (Status status = reader->SyncAndDropCache(); !status.ok()) return status;
      }
      chain_.insert(chain_.begin(), reader->header());
      file_bytes_.insert(file_bytes_.begin(), reader->file_bytes());
      const uint64_t previous = reader->header().previous_number;
      --left;
      while (left > 0 && numbers_[left - 1] > previous) plan_.remove.push_back(numbers_[--left]);
      if (left > 0 && numbers_[left - 1] < previous) {
        Damage(numbers_[left - 1], PathOf(previous) +
                                       " is missing: what it and all older segments held is dropped (they are kept as "
                                       "*.quarantined); if the file was moved away, stop and move it back");
        VoidFrom(left);
        return {};
      }
    }
    return {};
  }

  Status RefuseSegment(uint64_t number, HeaderState state) const {
    const std::string why =
        state == HeaderState::kNewer
            ? " was written by a later version of this program; start that version, or move the file away"
            : " belongs to another log (model, width, number or predecessor differ); move it away";
    return Status(StatusCode::kRefused, PathOf(number) + why);
  }

  void RetireFirst(size_t count) {
    for (size_t i = 0; i < count; ++i) Retire(numbers_[i], true);
    voided_through_ = numbers_[count - 1];
  }

  // The first `count` segments are of an earlier version, whose identities of models are no longer made either.
  void SetAside(size_t count) {
    RetireFirst(count);
    plan_.messages.push_back({LogLevel::kWarn, request_.directory + ": " + Counted(count, "segment", "segments") +
                                                   " of an earlier version's format 1.0 cannot be carried over and " +
                                                   (count == 1 ? "is" : "are") + " kept as *.quarantined; to remove " +
                                                   (count == 1 ? "it" : "them") + ": rm '" + request_.directory +
                                                   "'/*.quarantined"});
  }

  // Takes the first `count` segments out of service; their entries are never read.
  void VoidFrom(size_t count) {
    RetireFirst(count);
    plan_.damaged_segments = std::max<uint64_t>(plan_.damaged_segments, 1);
  }

  void Damage(uint64_t number, const std::string& message) {
    if (damaged_.empty() || damaged_.back() != number) {
      damaged_.push_back(number);
      ++plan_.damaged_segments;
    }
    damage_ = message;
    plan_.messages.push_back({LogLevel::kError, message});
  }

  void Warn(const std::string& message) { plan_.messages.push_back({LogLevel::kWarn, message}); }

  void Retire(uint64_t number, bool quarantine) {
    std::vector<uint64_t>& list = quarantine ? plan_.quarantine : plan_.remove;
    list.push_back(number);
  }

  Status Replay(size_t index) {
    const SegmentHeader& header = chain_[index];
    const bool last = index + 1 == chain_.size();
    const uint64_t valid_through = last ? 0 : chain_[index + 1].previous_valid_through;
    uint64_t expected = header.previous_valid_through + 1;
    if (!last && valid_through + 1 < expected) {
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
    if (indexed.value() == IndexState::kDamaged) {
      Warn("the index of " + PathOf(header.number) + " is damaged: its records are read instead" + kCheckTheDisk);
    } else if (indexed.value() == IndexState::kGood && Suffices(index)) {
      ApplyIndex(header.number);
      reads_records_ = true;
      newest_unreadable_ = false;
      return last ? reader->Sync() : Status();
    }
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
          Pass(record, reader.get(), &expected);
          continue;
        case RecordDecision::kSkip: Pass(record, reader.get(), &expected); continue;
        case RecordDecision::kDropInsert:
          losses.At(reader->position());
          ++losses.inserts;
          Pass(record, reader.get(), &expected);
          continue;
        case RecordDecision::kSkipWatermark:
          losses.At(reader->position());
          ++losses.watermarks;
          Pass(record, reader.get(), &expected);
          continue;
        case RecordDecision::kVoid: {
          losses.At(reader->position());
          const Result<bool> resumed = Resume(index, reader.get(), valid_through, &expected, &losses);
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
    Note(reader.get());
    if (losses.first_offset == 0 && losses.unreadable > 0) losses.first_offset = reader->unreadable_first();
    if (losses.first_offset != 0) {
      const std::string message = PathOf(header.number) + " is damaged: " + losses.Text() + ", first at byte " +
                                  std::to_string(losses.first_offset) + kCheckTheDisk;
      losses.nothing_lost() ? Warn(message) : Damage(header.number, message);
    }
    plan_.valid_through = expected - 1;
    // A write of the dead engine may have landed since the first sync and been read from the page cache alone. The next
    // header vouches for it, so it must be durable first (P2).
    return last ? reader->Sync() : Status();
  }

  // Whether the index tells all that counts in its segment.
  bool Suffices(size_t position) const {
    const bool last = position + 1 == chain_.size();
    const auto known = [](const IndexEntry& entry) { return entry.type != 0 && entry.type <= kRecordTypeMax; };
    return !request_.every_record && index_.trailer.hash_seed == chain_.back().hash_seed &&
           (last || index_.trailer.sequence_last == chain_[position + 1].previous_valid_through) &&
           std::all_of(index_.entries.begin(), index_.entries.end(), known);
  }

  void ApplyIndex(uint64_t segment) {
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
    const IndexTrailer& trailer = index_.trailer;
    plan_.wall_highest_ns = std::max(plan_.wall_highest_ns, trailer.wall_highest_ns);
    if (plan_.clock_set_ns == 0) plan_.clock_set_ns = trailer.clock_set_ns;
    plan_.removals = removals_ = trailer.removals;
    plan_.valid_through = trailer.sequence_last;
    plan_.records += index_.entries.size();
    ++plan_.indexed;
  }

  void Pass(const WalRecord& record, WalReader* reader, uint64_t* expected) {
    Believed(record.header.wall_highest_ns);
    removals_ = record.header.removals;
    reader->Skip(record);
    ++*expected;
  }

  // Records are lost here. Goes to the next place where there are some; false if there is none in this segment. If the
  // numbers of removals on both sides differ, or what follows is not known, everything read so far is dropped.
  Result<bool> Resume(size_t index, WalReader* reader, uint64_t valid_through, uint64_t* expected, Losses* losses) {
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

  void Believed(uint64_t ns) {
    plan_.wall_highest_ns = std::max(plan_.wall_highest_ns, ns);
    if (plan_.clock_set_ns == 0 && ns >= kClockSetNs) plan_.clock_set_ns = ns;
  }

  void Apply(const WalRecord& record, uint64_t segment) {
    ++plan_.records;
    if (record.type() == RecordType::kInsert) sink_->Insert(record, segment);
    if (record.type() == RecordType::kClear) sink_->Clear(record.header.slot);
    if (record.type() == RecordType::kErase) sink_->Erase(record.erase);
    if (record.type() == RecordType::kDropAll) sink_->DropAll();
  }

  // A segment that may have lost a removal is set aside, and all older ones with it: without it they could bring back
  // what it had removed. One that lost inserts or padding only stays: it reads the same at every start.
  void Conclude() {
    if (!chain_.empty()) {
      plan_.previous_number = chain_.back().number;
      plan_.previous_id = chain_.back().id;
    }
    // A newest segment in which nothing counts is left out of the chain, so that restarts alone do not grow the log.
    // One that the disk cannot read stays (nobody knows what is in it), and one that alone bounds how long entries from
    // before the clock was set live.
    const bool sets_clock = !chain_.empty() && plan_.clock_set_ns != 0 &&
                            chain_.front().wall_highest_ns < kClockSetNs &&
                            plan_.clock_set_ns == chain_.back().wall_highest_ns;
    const bool removable = !chain_.empty() && voided_through_ == 0 && !newest_unreadable_ && !sets_clock;
    if (removable && chain_.back().previous_valid_through == plan_.valid_through) {
      plan_.previous_number = chain_.back().previous_number;
      plan_.previous_id = chain_.back().previous_id;
      plan_.remove.push_back(chain_.back().number);
      chain_.pop_back();
    }
    for (size_t i = 0; i < chain_.size(); ++i) {
      const SegmentHeader& header = chain_[i];
      plan_.chain.push_back(RecoveredSegment{header.number, header.id, file_bytes_[i]});
      if (header.number > voided_through_) continue;
      plan_.append_again_through = header.number;
      Retire(header.number, std::find(damaged_.begin(), damaged_.end(), header.number) != damaged_.end());
    }
    std::sort(plan_.quarantine.begin(), plan_.quarantine.end());
    std::sort(plan_.remove.begin(), plan_.remove.end());
  }

  DiskIo* const io_;
  const RecoveryRequest& request_;
  RecoverySink* const sink_;
  RecoveryPlan plan_;
  std::vector<uint64_t> numbers_;
  std::vector<uint64_t> found_;     // all of them
  bool unreadable_ = false;         // the disk could not read something
  bool reads_records_ = false;      // it read a block of records
  bool newest_unreadable_ = false;  // likewise, in the segment replayed last
  std::vector<uint64_t> damaged_;
  uint64_t removals_ = 0;             // up to the last record read
  uint64_t voided_through_ = 0;       // the newest segment that may have lost a removal
  std::string damage_;                // the latest message about damage
  std::vector<SegmentHeader> chain_;  // oldest first
  SegmentIndex index_;                // of the segment replayed last
  std::vector<uint64_t> file_bytes_;
};

}  // namespace

Result<RecoveryPlan> RecoverLog(DiskIo* io, const RecoveryRequest& request, RecoverySink* sink) {
  Result<RecoveryPlan> plan = Recovery(io, request, sink).Run();
  if (SUTRA_CHECKPOINT("recovery.scanned")) {
    return Status(StatusCode::kStorageError, "checkpoint recovery.scanned failed");
  }
  return plan;
}

}  // namespace sutra
