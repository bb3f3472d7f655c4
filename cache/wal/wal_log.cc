// In this order: segments and start; placing groups; failure. Syncs and what they acknowledge are in wal_log_sync.cc;
// the bound of the log, and how old segments are given back for it, in wal_log_bound.cc.
#include "cache/wal/wal_log.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <iterator>
#include <new>

#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kProbeNs = kNsPerSecond;
constexpr uint64_t kGroupBytesMax = 1u << 20;
constexpr auto kRelaxed = std::memory_order_relaxed;  // WalShared: each value is independent

}  // namespace

WalLog::WalLog(DiskIo* io, Clock* clock, LiveEntries* live, WalShared* shared, const Config& config)
    : io_(io),
      clock_(clock),
      live_(live),
      shared_(shared),
      config_(config),
      group_bytes_(std::min(kGroupBytesMax, config.segment_bytes / 4)),
      writer_(io, config.directory, config.model, config.width),
      preparer_(io, clock, config.directory, config.segment_bytes, config.threaded),
      sync_(config.threaded, [this] { return SyncStep(); }),
      bound_(config.wal_bytes_max) {}

void WalLog::Say(LogLevel level, const std::string& line) const {
  if (config_.log_line) config_.log_line(level, line);
}

uint64_t WalLog::Stamp() {
  stamped_ns_ = shared_->time.Highest(*clock_);
  const bool disagrees = shared_->time.Disagrees(*clock_);
  restamp_at_ns_ = disagrees ? clock_->MonotonicNs() + kClockHoldNs + kNsPerSecond : UINT64_MAX;
  return stamped_ns_;
}

bool WalLog::time_unwritten() const {
  const bool disagrees = shared_->time.Disagrees(*clock_) || restamp_at_ns_ != UINT64_MAX;
  return disagrees && shared_->time.Highest(*clock_) - stamped_ns_ > kClockNearNs;
}

uint64_t WalLog::TotalBytes() const {
  uint64_t total = config_.segment_bytes;  // the reserve
  for (const RecoveredSegment& segment : segments_) total += segment.bytes;
  return total;
}

uint64_t WalLog::RetiredBytes() const {
  uint64_t total = 0;
  for (size_t i = 0; i < retired_; ++i) total += segments_[i].bytes;
  return total;
}

Status WalLog::BeginSegment(uint64_t valid_through) {
  assert(!syncing());
  if (number_next_ > kSegmentNumberMax) {
    return Status(StatusCode::kStorageError, "the log has used up its segment numbers; move it away");
  }
  // P2, P24: the reserve may have been a segment, and must not be one on the disk any more when it is written over.
  if (Status status = SyncNames(); !status.ok()) return status;
  const Result<SegmentPreparer::Reserve> reserve = preparer_.Take();
  if (!reserve.ok()) return reserve.status();
  if (writer_.is_settled()) WriteIndex();  // now that nothing more will come to this segment
  WalWriter::Begin begin;
  begin.number = number_next_++;  // a number is never reused, not even after a failed attempt
  begin.segment_bytes = config_.segment_bytes;
  begin.previous_number = previous_number_;
  begin.previous_id = previous_id_;
  begin.previous_valid_through = valid_through;
  begin.wall_highest_ns = Stamp();
  begin.hash_seed = config_.hash_seed;
  begin.written_over = reserve->written_over;
  assert(segments_.empty() || segments_.back().number < begin.number);
  // If it fails, the next header leaves this number out; until that header is durable, recovery may find this one.
  Status status;
  try {
    abandoned_.push_back(begin.number);
    segments_.push_back({.number = begin.number, .bytes = config_.segment_bytes});
    status = writer_.BeginSegment(reserve->file, preparer_.path(), begin);
  } catch (const std::bad_alloc&) {
    status = Status(StatusCode::kOutOfMemory, "out of memory");
  }
  if (!status.ok()) {
    io_->Close(reserve->file);
    if (!segments_.empty() && segments_.back().number == begin.number) segments_.pop_back();
    return status;
  }
  abandoned_.pop_back();
  segments_.back().id = writer_.id();
  began_ = begin;
  previous_number_ = begin.number;
  previous_id_ = writer_.id();
  synced_through_ = valid_through;
  for (const uint64_t number : abandoned_) {
    const Status removed = io_->Unlink(config_.directory + "/" + SegmentName(number));
    static_cast<void>(removed);  // if it fails: the header just written leaves the segment out in any case
  }
  abandoned_.clear();
  names_unsynced_ = false;  // the directory was synced for the new name
  bound_ = std::min(config_.wal_bytes_max, bound_ + config_.segment_bytes);  // there was room for one more
  room_at_ns_ = 0;
  shared_->current_segment.store(begin.number, kRelaxed);
  shared_->segments.store(segments_.size(), kRelaxed);
  return {};
}

Status WalLog::Start(RecoveryPlan plan) {
  segments_.assign(plan.chain.begin(), plan.chain.end());
  shared_->segments.store(segments_.size(), kRelaxed);
  number_next_ = plan.number_next;
  previous_number_ = plan.previous_number;
  previous_id_ = plan.previous_id;
  synced_through_ = plan.valid_through;
  writer_.SetRemovals(plan.removals);
  shared_->time.Start(*clock_, plan.wall_highest_ns);
  unfinished_start_ = std::move(plan);
  if (SUTRA_CHECKPOINT("recovery.cut")) {
    return Status(StatusCode::kStorageError, "checkpoint recovery.cut failed");
  }
  Status status = TakeUp();
  if (status.ok()) {
    RequestReserve();
  } else if (IsDiskFull(status) || IsFileTooLarge(status)) {
    StopTaking(status);
    return {};
  }
  return status;
}

// Begins a segment and finishes what the start has left to do.
Status WalLog::TakeUp() {
  if (unfinished_start_.has_value() && config_.make_ready) {
    if (Status status = config_.make_ready(); !status.ok()) return status;
  }
  if (Status status = BeginGivingBack(); !status.ok()) return status;
  failed_ = false;
  if (unfinished_start_.has_value()) {
    if (SUTRA_CHECKPOINT("recovery.opened")) {
      return Status(StatusCode::kStorageError, "checkpoint recovery.opened failed");
    }
    if (unfinished_start_->append_again_through > 0) {
      if (Status status = AppendAgain(unfinished_start_->append_again_through); !status.ok()) return status;
    }
    if (Status status = Retire(*unfinished_start_); !status.ok()) return status;
    unfinished_start_.reset();
  }
  // This takes a whole segment, however little the last one holds: without a share for old entries, restarts alone
  // would bring the log to its bound, and live entries would be evicted although there is room for them.
  if (Status status = RecycleSome(config_.segment_bytes - config_.segment_bytes / 8, true); !status.ok()) return status;
  return KeepBound();
}

void WalLog::RequestReserve() {
  if (preparer_.has_room() && shared_->full.exchange(false, kRelaxed)) {
    Say(LogLevel::kWarn, "the disk has room for a reserve segment again: new entries are logged");
  }
  preparer_.Request();
}

Status WalLog::AppendAgain(uint64_t through) {
  recycle_cursor_ = {};
  for (bool done = false; !done;) {
    std::unique_ptr<WalGroup> group = CollectLive(through, group_bytes_, &done);
    if (group == nullptr) continue;
    if (Status status = Place(&group, false); !status.ok()) {
      unplaced_.push_back(std::move(group));
      return status;
    }
  }
  recycle_cursor_ = {};
  return SyncWriter();
}

Status WalLog::Retire(const RecoveryPlan& plan) {
  if (plan.quarantine.empty() && plan.remove.empty()) return {};
  for (const uint64_t number : plan.quarantine) {
    if (Status status = SetAside(number); !status.ok()) return status;
  }
  for (const uint64_t number : plan.remove) {
    Status removed = io_->Unlink(config_.directory + "/" + SegmentName(number));
    if (!removed.ok() && removed.os_error() != ENOENT) return removed;
  }
  const auto retired = [&](const RecoveredSegment& segment) {
    const auto in = [&](const std::vector<uint64_t>& list) {
      return std::find(list.begin(), list.end(), segment.number) != list.end();
    };
    return in(plan.quarantine) || in(plan.remove);
  };
  segments_.erase(std::remove_if(segments_.begin(), segments_.end(), retired), segments_.end());
  shared_->segments.store(segments_.size(), kRelaxed);
  return io_->SyncDirectory(config_.directory);
}

Status WalLog::Rotate() {
  if (writer_.is_open()) {
    if (Status status = SyncWriter(); !status.ok()) return status;
    assert(segments_.back().number == writer_.number());
    segments_.back().reusable = true;
  }
  return BeginSegment(synced_through_);
}

// A segment without an index costs the next start some time, and nothing else.
void WalLog::WriteIndex() {
  Status status;
  try {
    status = writer_.WriteIndex();
  } catch (const std::bad_alloc&) {
    status = Status(StatusCode::kOutOfMemory, "out of memory");
  }
  if (status.ok()) return;
  Say(LogLevel::kWarn, "segment " + std::to_string(writer_.number()) + " has no index (" + status.message() +
                           "): the next start reads its records instead");
}

void WalLog::Finish() {
  if (!writer_.is_settled()) return;  // a start reads the records
  WriteIndex();
  writer_.CloseFile();
}

Status WalLog::Place(std::unique_ptr<WalGroup>* group, bool then_sync) {
  assert(!failed_);
  const uint64_t bytes = (*group)->bytes().size();
  // Where no other segment is to be had, records go before the index.
  const bool fits = preparer_.has_room() ? writer_.Fits(bytes, (*group)->records()) : bytes <= writer_.room();
  if (!fits) {
    if (Status status = Rotate(); !status.ok()) return status;
  }
  // Before the write: a record on the disk must not be lost here for want of memory.
  if (unsynced_.size() == unsynced_.capacity()) unsynced_.reserve(2 * unsynced_.size() + 8);
  if (then_sync) {
    if (Status status = JoinSync(); !status.ok()) return status;
  }
  if (Status status = writer_.Write(group->get(), then_sync, Stamp()); !status.ok()) return status;
  shared_->appends.fetch_add((*group)->records(), kRelaxed);
  shared_->bytes.fetch_add(bytes, kRelaxed);
  unsynced_.push_back(std::move(*group));
  unsynced_bytes_ += bytes;
  if (then_sync) {
    shared_->syncs.fetch_add(1, kRelaxed);
    Acknowledge(unsynced_.size());
  } else {
    shared_->oldest_unsynced_ns.store(oldest_unsynced_ns(), kRelaxed);
  }
  return {};
}

void WalLog::Commit(std::vector<std::unique_ptr<WalGroup>> groups) {
  assert(unplaced_.empty());
  unplaced_.swap(groups);
  uint64_t bytes = 0;
  for (std::unique_ptr<WalGroup>& group : unplaced_) {
    group->Close();
    bytes += group->bytes().size();
  }
  if (failed_) {
    for (std::unique_ptr<WalGroup>& group : unplaced_) Refuse(std::move(group));
    return unplaced_.clear();
  }
  Status status = PlaceAll(false);
  if (status.ok()) status = KeepBound();
  // Twice as much as came in, so that a removal never waits behind a whole segment. Without a reserve the rest of this
  // one is kept for removals.
  if (status.ok() && preparer_.has_room()) status = RecycleSome(2 * bytes, false);
  if (!status.ok()) return Fail(status);
  RequestReserve();
}

Status WalLog::PlaceAll(bool sync_last) {
  Status status;
  for (size_t i = 0; i < unplaced_.size() && status.ok(); ++i) {
    status = Place(&unplaced_[i], config_.sync_each_group || (sync_last && i + 1 == unplaced_.size()));
  }
  unplaced_.erase(std::remove(unplaced_.begin(), unplaced_.end(), nullptr), unplaced_.end());
  return status;
}

void WalLog::Fail(const Status& reason) {
  SayFailed(reason);
  // What it covers is durable if it succeeds; if not, that is a second reason for the same.
  const Status joined = JoinSync();
  static_cast<void>(joined);
  writer_.CloseFile();
  unsynced_.reserve(unsynced_.size() + unplaced_.size());
  std::move(unplaced_.begin(), unplaced_.end(), std::back_inserter(unsynced_));
  unplaced_.clear();
  unplaced_.swap(unsynced_);
  unsynced_bytes_ = 0;
  LeaveOutEmpty();
  Status status = BeginGivingBack();
  if (status.ok()) status = PlaceAll(true);
  if (status.ok()) status = KeepBound();
  if (status.ok()) return RequestReserve();
  StopTaking(status);
}

void WalLog::OutOfMemory() { StopTaking(Status(StatusCode::kOutOfMemory, "out of memory")); }

void WalLog::SayStopped(const Status& reason) const {
  try {
    Say(LogLevel::kError,
        "the log refuses records (" + reason.message() +
            "): lookups work, removals fail, new entries are lost with this engine; trying again "
            "every second" +
            (IsDiskFull(reason) || IsFileTooLarge(reason) ? "; " + RoomAdvice(reason) : std::string()));
  } catch (const std::bad_alloc&) {
    return;  // storage_failed says it too
  }
}

// Needs no memory: a lack of it may be the reason.
void WalLog::StopTaking(const Status& reason) {
  if (!shared_->failed.load(kRelaxed)) SayStopped(reason);
  const Status joined = JoinSync();
  static_cast<void>(joined);
  writer_.CloseFile();
  LeaveOutEmpty();
  EndCompaction();
  failed_ = true;
  shared_->failed.store(true, kRelaxed);
  probe_at_ns_ = clock_->MonotonicNs() + kProbeNs;
  bool inserts = reason.code() == StatusCode::kOutOfMemory;  // a group may have been dropped on its way
  for (std::vector<std::unique_ptr<WalGroup>>* groups : {&unsynced_, &unplaced_}) {
    for (std::unique_ptr<WalGroup>& group : *groups) {
      if (group == nullptr) continue;
      inserts = inserts || group->inserts() > 0;
      Refuse(std::move(group));
    }
    groups->clear();
  }
  unsynced_bytes_ = 0;
  // Entries that were to be appended again may be among the refused records: until the next attempt their old copies
  // count.
  if (inserts && segments_.size() > retired_) live_->HoldBy(segments_[retired_].number);
  recycle_cursor_ = {};
  retire_after_.reset();
  wants_watermark_ = false;
  shared_->oldest_unsynced_ns.store(0, kRelaxed);
}

// A failed segment in which nothing was acknowledged is left out of the chain, so that failures alone do not grow the
// log.
void WalLog::LeaveOutEmpty() {
  const bool empty = !segments_.empty() && segments_.back().number == began_.number &&
                     synced_through_ == began_.previous_valid_through;
  if (!empty) return;
  previous_number_ = began_.previous_number;
  previous_id_ = began_.previous_id;
  segments_.pop_back();
  try {
    abandoned_.push_back(began_.number);
  } catch (const std::bad_alloc&) {
    return;  // the next start removes the file
  }
}

void WalLog::Refuse(std::unique_ptr<WalGroup> group) {
  if (!group->copies) shared_->lost_inserts.fetch_add(group->inserts(), kRelaxed);
  shared_->dropped_inserts.fetch_add(group->inserts(), kRelaxed);
  group->commit->Finish(false);
  Spend(std::move(group));
}

void WalLog::Spend(std::unique_ptr<WalGroup> group) {
  try {
    spent_.push_back(std::move(group));
  } catch (const std::bad_alloc&) {
    return;  // its memory is freed instead of used again
  }
}

void WalLog::Probe() {
  probe_at_ns_ = clock_->MonotonicNs() + kProbeNs;
  if (Status status = TakeUp(); !status.ok()) return StopTaking(status);
  shared_->failed.store(false, kRelaxed);
  Say(LogLevel::kWarn, "the log takes records again, in segment " + std::to_string(writer_.number()));
  RequestReserve();
}

}  // namespace sutra
