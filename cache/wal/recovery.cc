// The order of work: headers, then the chain backwards from the newest segment, then the records forwards
// (recovery_replay.cc).
#include "cache/wal/recovery.h"

#include <algorithm>
#include <cassert>

#include "cache/disk/disk_io.h"
#include "cache/wal/believed_time.h"
#include "cache/wal/recovery_run.h"
#include "cache/wal/recovery_table.h"
#include "shm/base/checkpoint.h"

namespace sutra {

Result<RecoveryPlan> Recovery::Run() {
  if (Status status = ListSegments(); !status.ok()) return status;
  if (Status status = DecideChain(); !status.ok()) return status;
  if (!chain_.empty()) sink_->Begin(chain_.back().hash_seed);
  for (size_t i = 0; i < chain_.size(); ++i) {
    if (Status status = Replay(i); !status.ok()) return status;
  }
  if (Status status = RefuseDeadDisk(); !status.ok()) return status;
  Conclude();
  // Nothing could be appended behind them: numbers would start over, and the next recovery could not read on.
  if (plan_.number_next > kSegmentNumberMax || plan_.valid_through > kNumberMax) {
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

Status Recovery::RefuseDeadDisk() const {
  if (reads_records_ || !unreadable_) return {};
  bool asked = false;
  for (const uint64_t number : found_) {
    const std::optional<bool> reads = WalReader::AnyBlockReads(io_, PathOf(number));
    if (reads == true) return {};
    asked = asked || reads.has_value();
  }
  if (!asked) return {};  // what was cut off is damage, whatever the disk makes of the rest
  return Status(StatusCode::kStorageError, request_.directory + ": not one record block of its " +
                                               Counted(found_.size(), "segment", "segments") +
                                               " can be read; they are left as they are" + kCheckTheDisk +
                                               " and start again, or move the directory away to begin an empty cache");
}

Status Recovery::ListSegments() {
  // Never decide on names or data that exist only in the page cache (P2).
  if (Status status = io_->SyncDirectory(request_.directory); !status.ok()) return status;
  Result<std::vector<std::string>> names = io_->List(request_.directory);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (const uint64_t number = SegmentNumber(name); number != 0) numbers_.push_back(number);
  }
  std::sort(numbers_.begin(), numbers_.end());
  found_ = numbers_;
  if (!numbers_.empty()) plan_.number_next = std::min(numbers_.back(), kSegmentNumberMax) + 1;
  return {};
}

Result<std::unique_ptr<WalReader>> Recovery::OpenSegment(uint64_t number, const std::optional<SegmentId>& id) {
  return WalReader::Open(io_, PathOf(number), SegmentExpectation{number, request_.model, request_.width, id});
}

void Recovery::Note(const WalReader* reader) {
  unreadable_ = unreadable_ || reader == nullptr || reader->unreadable_blocks() > 0;
  reads_records_ = reads_records_ || (reader != nullptr && reader->reads_records());
}

Status Recovery::DecideChain() {
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

Status Recovery::RefuseSegment(uint64_t number, HeaderState state) const {
  const std::string why =
      state == HeaderState::kNewer
          ? " was written by a later version of this program; start that version, or move the file away"
          : " belongs to another log (model, width, number or predecessor differ); move it away";
  return Status(StatusCode::kRefused, PathOf(number) + why);
}

void Recovery::RetireFirst(size_t count) {
  for (size_t i = 0; i < count; ++i) Retire(numbers_[i], true);
  voided_through_ = numbers_[count - 1];
}

void Recovery::SetAside(size_t count) {
  RetireFirst(count);
  plan_.messages.push_back({LogLevel::kWarn, request_.directory + ": " + Counted(count, "segment", "segments") +
                                                 " of an earlier version's format 1.0 cannot be carried over and " +
                                                 (count == 1 ? "is" : "are") + " kept as *.quarantined; to remove " +
                                                 (count == 1 ? "it" : "them") + ": rm '" + request_.directory +
                                                 "'/*.quarantined"});
}

void Recovery::VoidFrom(size_t count) {
  RetireFirst(count);
  plan_.damaged_segments = std::max<uint64_t>(plan_.damaged_segments, 1);
}

void Recovery::Damage(uint64_t number, const std::string& message) {
  if (damaged_.empty() || damaged_.back() != number) {
    damaged_.push_back(number);
    ++plan_.damaged_segments;
  }
  damage_ = message;
  plan_.messages.push_back({LogLevel::kError, message});
}

void Recovery::Conclude() {
  if (!chain_.empty()) {
    plan_.previous_number = chain_.back().number;
    plan_.previous_id = chain_.back().id;
  }
  // A newest segment in which nothing counts is left out of the chain, so that restarts alone do not grow the log.
  // One that the disk cannot read stays (nobody knows what is in it), and one that alone bounds how long entries from
  // before the clock was set live.
  const bool sets_clock = !chain_.empty() && plan_.clock_set_ns != 0 && chain_.front().wall_highest_ns < kClockSetNs &&
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

Result<RecoveryPlan> RecoverLog(DiskIo* io, const RecoveryRequest& request, RecoverySink* sink) {
  Result<RecoveryPlan> plan = Recovery(io, request, sink).Run();
  if (SUTRA_CHECKPOINT("recovery.scanned")) {
    return Status(StatusCode::kStorageError, "checkpoint recovery.scanned failed");
  }
  return plan;
}

}  // namespace sutra
