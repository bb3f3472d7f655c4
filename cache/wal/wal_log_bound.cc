// The bound of the log: old segments are recycled before it is reached, and given back when it is.
#include <algorithm>
#include <cassert>
#include <utility>

#include "cache/wal/wal_log.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kSayNs = 60 * kNsPerSecond;        // between two lines of a kind
constexpr uint64_t kRoomNs = kNsPerSecond;            // until another segment is given back for the same reserve
constexpr auto kRelaxed = std::memory_order_relaxed;  // WalShared: each value is independent

}  // namespace

std::unique_ptr<WalGroup> WalLog::CollectLive(uint64_t through, uint64_t bytes, bool* done) {
  auto group = std::make_unique<WalGroup>(std::min(group_bytes_, bytes));
  *done = live_->CollectOlder(through, writer_.number(), &recycle_cursor_, &group);
  if (group->empty()) return nullptr;
  group->copies = true;
  group->Close();
  return group;
}

bool WalLog::WantsRecycling() const {
  if (segments_[retired_].number <= compact_through_) return true;
  const uint64_t headroom = std::max(bound_ / 4, config_.segment_bytes);
  return TotalBytes() - RetiredBytes() + config_.segment_bytes > bound_ - std::min(bound_, headroom);
}

// Live entries of the oldest segments are appended again, `budget` bytes of them, and the segments in which nothing
// lives any more are retired, when everything appended so far is synced; the headroom is a quarter of the bound.
Status WalLog::RecycleSome(uint64_t budget, bool sync_at_once) {
  if (Status status = RetireSynced(); !status.ok()) return status;
  while (budget > 0 && segments_.size() > retired_ + 1 && !retire_after_.has_value() && WantsRecycling()) {
    bool done = false;
    std::unique_ptr<WalGroup> group = CollectLive(segments_[retired_].number, budget, &done);
    const uint64_t used = group == nullptr ? 0 : group->bytes().size();
    const uint64_t before = writer_.number();
    if (group != nullptr) {
      if (Status status = Place(&group, false); !status.ok()) {
        unplaced_.push_back(std::move(group));
        return status;
      }
    }
    budget -= std::min(budget, std::max(used, kWalBlockBytes));
    if (done) {
      if (Status status = PlacePending(); !status.ok()) return status;
      retire_after_ = writer_.written_through();
      if (sync_at_once) {
        if (Status status = SyncWriter(); !status.ok()) return status;
      }
      if (Status status = RetireSynced(); !status.ok()) return status;
    }
    if (writer_.number() != before) {
      if (Status status = KeepBound(); !status.ok()) return status;
    }
  }
  return {};
}

Status WalLog::PlacePending() {
  if (!take_pending_) return {};
  assert(unplaced_.empty());
  unplaced_ = take_pending_();
  for (std::unique_ptr<WalGroup>& group : unplaced_) group->Close();
  return PlaceAll(false);
}

// P2, P24: what was appended again is durable before the only other copy is removed. A retired segment whose file can
// be used again stays where it is until there is no reserve.
Status WalLog::RetireSynced() {
  if (retire_after_.has_value() && synced_through_ >= *retire_after_) {
    ++retired_;
    retire_after_.reset();
    recycle_cursor_ = {};
  }
  while (retired_ > 0 && (MustVanish(segments_.front()) || preparer_.wants_file())) {
    const size_t before = segments_.size();
    if (Status status = GiveBackOldest(); !status.ok()) return status;
    if (segments_.size() == before) break;  // it could not be removed
  }
  return {};
}

Status WalLog::RemoveOldest() {
  if (Status status = PlacePending(); !status.ok()) return status;
  if (Status status = SyncWriter(); !status.ok()) return status;
  assert(unsynced_.empty() && segments_.front().number != writer_.number());
  return GiveBackOldest();
}

// The file becomes the next reserve, or is removed. Reused is only what this engine has written and closed in good
// order: no write of an engine that died can still land in it, and every number in it is lower than those of the
// records that will be written over it.
Status WalLog::GiveBackOldest() {
  assert(segments_.size() > 1 && segments_.front().number != writer_.number());
  if (Status status = SyncNames(); !status.ok()) return status;
  live_->LetGo(segments_.front().number);
  const std::string path = config_.directory + "/" + SegmentName(segments_.front().number);
  if (MustVanish(segments_.front()) || !preparer_.Reuse(path)) {
    if (Status status = io_->Unlink(path); !status.ok()) {
      Say(LogLevel::kWarn, status.message() + "; the log stays larger than its bound");
      return {};
    }
  }
  if (retired_ > 0) {
    --retired_;
  } else {
    recycle_cursor_ = {};
    retire_after_.reset();
  }
  segments_.pop_front();
  shared_->segments.store(segments_.size(), kRelaxed);
  if (SUTRA_CHECKPOINT("segment.unlinked")) {
    return Status(StatusCode::kStorageError, "checkpoint segment.unlinked failed");
  }
  names_unsynced_ = true;  // the next sync, or the next removal, makes it durable
  return {};
}

Status WalLog::SyncNames() {
  if (!std::exchange(names_unsynced_, false)) return {};
  Status status = io_->SyncDirectory(config_.directory);
  names_unsynced_ = !status.ok();
  // A sync that passes after this one would prove nothing about what this one has lost.
  if (!status.ok()) preparer_.Discard();
  return status;
}

Status WalLog::KeepBound() {
  // At most half of a segment is given to old entries, or a log full of live ones would never move on; less when they
  // begin another segment, since beside its index one may not hold two halves, but never less than four of which fit.
  uint64_t share = config_.segment_bytes / 2;
  // Nothing is evicted for a compaction, which needs room for a moment and then gives more back.
  const uint64_t bound = bound_ + (compacting() ? 2 * config_.segment_bytes : 0);
  while (segments_.size() > 1 && TotalBytes() > bound) {
    const uint64_t oldest = segments_.front().number;
    if (retired_ > 0) {
      if (Status status = GiveBackOldest(); !status.ok()) return status;
      if (segments_.front().number == oldest) break;
      continue;
    }
    // Where no other segment is to be had, a quarter of this one is left for removals.
    const uint64_t room = writer_.room() - std::min(writer_.room(), config_.segment_bytes / 4);
    const uint64_t writing = writer_.number();
    uint64_t budget = preparer_.has_room() ? share : std::min(share, room);
    for (bool done = false; !done && budget >= kWalBlockBytes;) {
      std::unique_ptr<WalGroup> group = CollectLive(segments_.front().number, budget, &done);
      if (group == nullptr) break;
      budget -= std::min(budget, uint64_t{group->bytes().size()});
      if (Status status = Place(&group, false); !status.ok()) {
        unplaced_.push_back(std::move(group));
        return status;
      }
    }
    if (writer_.number() != writing) share = std::max(share - share / 4, config_.segment_bytes / 8);
    Evict(segments_.front().number);
    if (Status status = RemoveOldest(); !status.ok()) return status;
    if (segments_.front().number == oldest) break;  // it could not be removed
  }
  SayEvictions();
  return {};
}

void WalLog::MakeRoom() {
  const uint64_t now = clock_->MonotonicNs();
  const Status reason = preparer_.failure();
  const uint64_t oldest = segments_.front().number;
  const bool due = now >= room_at_ns_;
  if (due) room_at_ns_ = now + kRoomNs;
  if (due && segments_.size() > 1 && IsDiskFull(reason)) {
    bound_ = TotalBytes() - config_.segment_bytes;  // the reserve is not there
    if (Status status = KeepBound(); !status.ok()) return Fail(status);
  }
  const bool gave_back = segments_.front().number != oldest;
  shared_->full.store(!gave_back, kRelaxed);
  SayFull(reason);
  if (gave_back) preparer_.Retry();  // if that fails too, somebody else took the room: inserts are dropped until then
}

// Begins a segment; where the disk is full, in the place of the oldest ones. Nothing can be appended again while there
// is no segment to write to: what lives in those stays in memory and counts as held by the next one.
Status WalLog::BeginGivingBack() {
  Status status = BeginSegment(synced_through_);
  if (!IsDiskFull(status) || segments_.size() < 2) return status;
  const Status reason = status;
  bound_ = TotalBytes() - config_.segment_bytes;
  for (uint64_t freed = 0; freed < config_.segment_bytes && segments_.size() > 1;) {
    const size_t before = segments_.size();
    live_->ReadOlder(segments_.front().number);
    freed += segments_.front().bytes;
    if (status = GiveBackOldest(); !status.ok()) return status;
    if (segments_.size() == before) return reason;
  }
  SayFull(reason);
  return BeginSegment(synced_through_);
}

uint64_t WalLog::Occasions::TakeIfDue(uint64_t now_ns) {
  if (unsaid == 0 || now_ns < next_ns) return 0;
  next_ns = now_ns + kSayNs;
  return std::exchange(unsaid, 0);
}

std::string WalLog::RoomAdvice(const Status& reason) const {
  const std::string bytes = std::to_string(config_.segment_bytes) + " bytes";
  if (!IsFileTooLarge(reason)) return "free " + bytes + " there";
  return "raise this process's limit of file sizes to " + bytes +
         " at least (ulimit -f, LimitFSIZE=) and restart it, or " + "lower --wal-segment-bytes";
}

// Where the disk is full, segment after segment fails: that is one fact.
void WalLog::SayFailed(const Status& reason) {
  ++failures_.unsaid;
  const uint64_t count = failures_.TakeIfDue(clock_->MonotonicNs());
  if (count == 0) return;
  Say(LogLevel::kError, "the log failed at segment " + std::to_string(writer_.number()) + " (" + reason.message() +
                            "): it is closed and a new one is started" +
                            (count > 1 ? "; " + std::to_string(count) + " failures since this was said last" : ""));
}

void WalLog::SayFull(const Status& reason) {
  const bool full = shared_->full.load(kRelaxed);
  Occasions& occasions = full ? dropping_ : giving_back_;
  ++occasions.unsaid;
  if (occasions.TakeIfDue(clock_->MonotonicNs()) == 0) return;
  if (full) {
    Say(LogLevel::kError,
        "no reserve segment: " + reason.message() +
            "; new entries are served from memory but not logged until there is room: " + RoomAdvice(reason));
  } else {
    Say(LogLevel::kWarn, "the disk has no room for another segment (" + reason.message() +
                             "): the log gives back its " + "oldest ones and keeps to " + std::to_string(bound_) +
                             " bytes; free " + std::to_string(config_.wal_bytes_max - bound_) +
                             " bytes there, or lower --wal-bytes-max (" + std::to_string(config_.wal_bytes_max) + ")");
  }
}

void WalLog::Evict(uint64_t through) {
  const uint64_t evicted = live_->EvictOlder(through);
  shared_->evictions.fetch_add(evicted, kRelaxed);
  evictions_.unsaid += evicted;
}

void WalLog::SayEvictions() {
  const uint64_t evicted = evictions_.TakeIfDue(clock_->MonotonicNs());
  if (evicted == 0) return;
  const std::string configured = "--wal-bytes-max (" + std::to_string(config_.wal_bytes_max) + ")";
  const bool disk_full = bound_ < config_.wal_bytes_max;
  Say(LogLevel::kWarn,
      std::to_string(evicted) + " entries were evicted because " +
          (disk_full
               ? "the disk is full: it holds " + std::to_string(bound_) + " bytes of the log; to keep more, free " +
                     std::to_string(config_.wal_bytes_max - bound_) + " bytes there, what " + configured + " lacks"
               : "the log is at its bound: raise " + configured + " to keep more"));
}

// Renames a damaged segment, to a name that no file has: an earlier one of this number may have been set aside before a
// person moved the log away.
Status WalLog::SetAside(uint64_t number) {
  const Result<std::vector<std::string>> names = io_->List(config_.directory);
  if (!names.ok()) return names.status();
  const std::string name = SegmentName(number);
  std::string aside = name + ".quarantined";
  for (int copy = 2; std::find(names->begin(), names->end(), aside) != names->end(); ++copy) {
    aside = name + "." + std::to_string(copy) + ".quarantined";
  }
  const std::string path = config_.directory + "/" + name;
  Status renamed = io_->Rename(path, config_.directory + "/" + aside);
  if (renamed.os_error() == ENOENT) return {};  // by an attempt before this one, or given back
  if (!renamed.ok()) return renamed;
  Say(LogLevel::kError, path + " is damaged and was renamed to " + config_.directory + "/" + aside);
  return {};
}

}  // namespace sutra
