// The queue that inserting threads fill, the choice of what is due next, and the threads that do it.
#include "cache/wal/wal_committer.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

// For syncs of half a second at 20,000 records of 2 KiB per second, and a full segment on top of one.
constexpr uint64_t kPendingBytesMax = 64u << 20;
constexpr uint64_t kSyncBytes = 8u << 20;  // so much unsynced makes a sync due
// Kept in memory until the sync: more is not written.
constexpr uint64_t kUnsyncedBytesMax = 64u << 20;
constexpr uint64_t kWatermarkDelayNs = 20 * kNsPerMs;
constexpr size_t kFreeGroupsMax = 4;
constexpr auto kRelaxed = std::memory_order_relaxed;  // WalShared, and flags and counts without data behind them

}  // namespace

WalCommitter::WalCommitter(Clock* clock, WalLog* log, WalShared* shared, const Config& config)
    : clock_(clock), log_(log), shared_(shared), config_(config) {
  free_.reserve(kFreeGroupsMax);
  log_->SetPendingSource([this] {
    MutexLock lock(mutex_);
    return TakePendingLocked();
  });
  log_->SetWake([this] {
    MutexLock lock(mutex_);
    wake_.NotifyAll();
  });
}

void WalCommitter::Start() {
  if (!config_.threaded) return;
  for (std::thread& thread : threads_) thread = std::thread(&WalCommitter::Run, this);
}

void WalCommitter::Close() {
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    wake_.NotifyAll();
    while (helping_) wake_.Wait(mutex_);
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  if (config_.threaded) {
    // A caller who waited may have left the log in the middle of its work, when the threads had found nothing to do.
    MutexLock lock(mutex_);
    for (uint64_t deadline = 0; StepLocked(&deadline);) continue;
  } else {
    RunDue();
  }
  log_->SetWake({});
}

WalGroup* WalCommitter::GroupForLocked(uint64_t record_bytes, bool own_sync) {
  if (!pending_.empty() && !own_sync && pending_.back()->Fits(record_bytes)) return pending_.back().get();
  std::unique_ptr<WalGroup> group;
  if (record_bytes <= log_->group_bytes() && !free_.empty()) {
    group = std::move(free_.back());
    free_.pop_back();
    group->Reset();
  } else {
    group = std::make_unique<WalGroup>(std::max(record_bytes, log_->group_bytes()));
  }
  pending_.push_back(std::move(group));
  return pending_.back().get();
}

void WalCommitter::AppendLocked(const UnplacedRecord& record, const Append& how) {
  const bool was_empty = pending_.empty();
  const bool own_sync = config_.policy == DurabilityPolicy::kSync && !how.bulk;
  WalGroup* group = GroupForLocked(record.length, own_sync);
  if (group->empty()) group->first_accepted_ns = clock_->MonotonicNs();
  group->Append(record);
  group->urgent = group->urgent || how.urgent;
  last_commit_ = group->commit;
  const uint64_t before = pending_bytes_;
  pending_bytes_ += record.length;
  ++pending_records_;
  const bool full = before < config_.interval_bytes_max && pending_bytes_ >= config_.interval_bytes_max;
  // A waiting caller's group is seen to in Await.
  const bool at_once = how.urgent && !how.waits && !urgent_ && syncing_ == 0;
  const bool later =
      was_empty && !how.waits && group->first_accepted_ns + config_.interval_us_max * kNsPerUs < watched_ns_;
  if (full || at_once || later) WantWakeLocked();
  urgent_ = urgent_ || how.urgent;
}

bool WalCommitter::PushInsert(const UnplacedRecord& record) {
  MutexLock lock(mutex_);
  // What the last work evicts is still logged: a start would find it again otherwise.
  const bool too_late = stopping_ && record.type == RecordType::kInsert;
  const bool refused = too_late || shared_->failed.load(kRelaxed) || !log_->has_room() ||
                       record.length > kPendingBytesMax - std::min(kPendingBytesMax, pending_bytes_);
  bool taken = false;
  try {
    if (!refused) AppendLocked(record, {.urgent = config_.policy != DurabilityPolicy::kInterval});
    taken = !refused;
  } catch (const std::bad_alloc&) {
    taken = false;
  }
  if (!taken && record.type == RecordType::kInsert) shared_->dropped_inserts.fetch_add(1, kRelaxed);
  assert(pending_bytes_ <= kPendingBytesMax || refused);
  return taken;
}

std::shared_ptr<WalCommit> WalCommitter::PushErase(const UnplacedRecord& record) {
  MutexLock lock(mutex_);
  if (stopping_ || shared_->failed.load(kRelaxed)) return nullptr;
  try {
    AppendLocked(record, {.urgent = true, .waits = true});
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
  return last_commit_;
}

bool WalCommitter::PushRemovals(std::span<const UnplacedRecord> records,
                                std::vector<std::shared_ptr<WalCommit>>* commits) {
  MutexLock lock(mutex_);
  if (stopping_ || shared_->failed.load(kRelaxed)) return false;
  try {
    for (const UnplacedRecord& record : records) {
      if (commits->size() == commits->capacity()) commits->reserve(2 * commits->size() + 8);
      AppendLocked(record, {.bulk = true});
      if (commits->empty() || commits->back() != last_commit_) commits->push_back(last_commit_);
    }
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

std::shared_ptr<WalCommit> WalCommitter::RequestSync(bool* refused) {
  MutexLock lock(mutex_);
  *refused = stopping_ || shared_->failed.load(kRelaxed);
  if (*refused || last_commit_ == nullptr || last_commit_->finished()) return nullptr;
  if (!pending_.empty()) {
    pending_.back()->urgent = urgent_ = true;
  } else {
    sync_requested_ = true;
  }
  return last_commit_;
}

std::shared_ptr<WalCommit> WalCommitter::RequestCompaction() {
  MutexLock lock(mutex_);
  assert(compaction_ == nullptr);
  if (stopping_ || shared_->failed.load(kRelaxed)) return nullptr;
  compaction_ = std::make_shared<WalCommit>();
  compaction_begun_ = compaction_cancelled_ = false;
  WantWakeLocked();
  return compaction_;
}

void WalCommitter::CancelCompaction() {
  MutexLock lock(mutex_);
  compaction_cancelled_ = true;
  WantWakeLocked();
}

bool WalCommitter::Await(WalCommit* commit) {
  {
    MutexLock lock(mutex_);
    const bool alone = awaiting_.fetch_add(1, kRelaxed) == 0 && !helping_ && !busy_ && syncing_ == 0 && !stopping_;
    if (alone && config_.threaded) {
      helping_ = true;
      uint64_t deadline = 0;
      while (!commit->finished() && !busy_ && StepLocked(&deadline)) continue;
      helping_ = false;
    }
    WantWakeForWorkLocked();
    if (stopping_) wake_.NotifyAll();
  }
  Wake();
  const bool durable = commit->Wait();
  // Without the lock: all that waited for this commit come here at once.
  awaiting_.fetch_sub(1, kRelaxed);
  return durable;
}

WalCommitter::Work WalCommitter::NextWorkLocked(uint64_t now, uint64_t* deadline) const {
  *deadline = UINT64_MAX;
  const auto due = [&](uint64_t at) {
    *deadline = std::min(*deadline, at);
    return now >= at;
  };
  if (compaction_ != nullptr && log_->failed()) return Work::kCompact;  // which says so
  if (log_->failed() && pending_.empty()) {
    if (stopping_) return Work::kNone;
    return due(log_->probe_at_ns()) ? Work::kProbe : Work::kNone;
  }
  const bool syncing = log_->syncing();
  const bool awaited =
      !config_.threaded && (stopping_ || urgent_ || sync_requested_ || sync_awaited_ || compaction_ != nullptr);
  if (syncing && (awaited || log_->sync_done())) return Work::kEndSync;
  if (!stopping_ && !syncing && log_->wants_room() && due(log_->room_at_ns())) return Work::kMakeRoom;
  // What a caller waits for is synced before more is written: each further write would make it wait for another access.
  if (!syncing && sync_requested_ && log_->has_unsynced()) return Work::kSync;
  if (!pending_.empty() && (!syncing || log_->unsynced_bytes() < kUnsyncedBytesMax)) {
    if (stopping_ || (urgent_ && !syncing) || log_->failed() || pending_bytes_ >= config_.interval_bytes_max)
      return Work::kWrite;
    if (due(pending_.front()->first_accepted_ns + config_.interval_us_max * kNsPerUs)) return Work::kWrite;
  }
  // Beside a sync, too.
  const bool compact = !compaction_begun_
                           ? !syncing
                           : compaction_cancelled_ || (log_->compacts() && log_->unsynced_bytes() < kSyncBytes);
  if (compaction_ != nullptr && compact) return Work::kCompact;
  if (syncing) return Work::kNone;
  if (log_->has_unsynced()) {
    if (stopping_ || log_->wants_sync() || log_->unsynced_bytes() >= kSyncBytes) return Work::kSync;
    if (due(log_->oldest_unsynced_ns() + config_.sync_us_max * kNsPerUs)) return Work::kSync;
  } else if (pending_.empty()) {
    if (log_->wants_watermark() && (stopping_ || due(log_->synced_at_ns() + kWatermarkDelayNs))) {
      return Work::kWatermark;
    }
    if (stopping_ ? log_->time_unwritten() : due(log_->restamp_at_ns())) return Work::kWatermark;
  }
  return Work::kNone;
}

std::vector<std::unique_ptr<WalGroup>> WalCommitter::TakePendingLocked() {
  std::vector<std::unique_ptr<WalGroup>> groups;
  assert(pending_.empty() == (pending_records_ == 0) && pending_.empty() == (pending_bytes_ == 0));
  if (pending_.empty()) return groups;
  if (taken_first_accepted_ns_ == 0) taken_first_accepted_ns_ = pending_.front()->first_accepted_ns;
  groups.swap(pending_);
  taken_records_ += pending_records_;
  pending_bytes_ = pending_records_ = 0;
  sync_requested_ = sync_requested_ || urgent_;
  urgent_ = false;
  return groups;
}

void WalCommitter::DoLocked(Work work) {
  assert(!busy_);
  std::vector<std::unique_ptr<WalGroup>> groups;
  if (work == Work::kWrite) groups = TakePendingLocked();
  if (work == Work::kSync) sync_awaited_ = std::exchange(sync_requested_, false);
  if (work == Work::kWatermark) sync_requested_ = true;
  const bool begin = !compaction_begun_, cancel = compaction_cancelled_;
  if (work == Work::kCompact) compaction_begun_ = true;
  busy_ = true;
  mutex_.Unlock();
  try {
    switch (work) {
      case Work::kWrite: log_->Commit(std::move(groups)); break;
      case Work::kSync: log_->BeginSync(); break;
      case Work::kEndSync: log_->EndSync(); break;
      case Work::kWatermark: log_->WriteWatermark(); break;
      case Work::kProbe: log_->Probe(); break;
      case Work::kMakeRoom: log_->MakeRoom(); break;
      case Work::kCompact: Compact(begin, cancel); break;
      case Work::kNone: break;
    }
  } catch (const std::bad_alloc&) {
    log_->OutOfMemory();
  }
  mutex_.Lock();
  busy_ = false;
  taken_first_accepted_ns_ = taken_records_ = 0;
  if (!log_->has_unsynced()) sync_requested_ = false;
  if (compaction_ != nullptr && compaction_begun_ && !log_->compacting()) {
    std::exchange(compaction_, nullptr)->Finish(log_->compacted());
  }
  for (std::unique_ptr<WalGroup>& group : log_->TakeSpent()) {
    if (group->capacity() == RoundUp(log_->group_bytes(), kWalBlockBytes) && free_.size() < kFreeGroupsMax) {
      free_.push_back(std::move(group));
    }
  }
}

void WalCommitter::Compact(bool begin, bool cancel) {
  if (cancel) return log_->EndCompaction();
  begin ? log_->BeginCompaction() : log_->CompactSome();
}

// Waits for the disk without the log. Whichever thread then finds the log free ends the sync.
void WalCommitter::RunSyncLocked() {
  ++syncing_;
  WantWakeForWorkLocked();  // what is pending becomes due beside the sync
  mutex_.Unlock();
  Wake();
  log_->RunSync();
  mutex_.Lock();
  --syncing_;
}

// Who holds the log looks for more when it is ready, and so does who was woken before.
void WalCommitter::WantWakeLocked() {
  if (busy_ || woken_) return;
  woken_ = true;
  wake_wanted_.store(true, kRelaxed);
}

// For what is due now or earlier than a thread will look anyway.
void WalCommitter::WantWakeForWorkLocked() {
  if (busy_ || woken_) return;
  uint64_t deadline = 0;
  if (NextWorkLocked(clock_->MonotonicNs(), &deadline) != Work::kNone || deadline < watched_ns_) WantWakeLocked();
}

void WalCommitter::Wake() {
  if (wake_wanted_.load(kRelaxed) && wake_wanted_.exchange(false, kRelaxed)) wake_.NotifyOne();
}

bool WalCommitter::StepLocked(uint64_t* deadline) {
  const Work work = NextWorkLocked(clock_->MonotonicNs(), deadline);
  if (work == Work::kNone) return false;
  DoLocked(work);
  if (work == Work::kSync && log_->syncing()) RunSyncLocked();
  return true;
}

// The model computes on every CPU, and a waiting caller's group would wait for a time slice of it at each step: where
// this process may (CAP_SYS_NICE, or a limit of real-time priority), the log runs first. It needs a thousandth of the
// model's CPU time. Elsewhere it stays as it is.
void WalCommitter::RunFirst() {
  sched_param priority{};
  priority.sched_priority = kRealTimePriority;
  static_cast<void>(pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority));
}

void WalCommitter::Run() {
  RunFirst();
  pthread_setname_np(pthread_self(), "sutra-log");
  MutexLock lock(mutex_);
  while (true) {
    woken_ = false;
    if (busy_) {  // its holder looks for more to do when it is ready
      wake_.Wait(mutex_);
      continue;
    }
    uint64_t deadline = 0;
    if (StepLocked(&deadline)) continue;
    if (stopping_) {
      wake_.NotifyAll();  // the other thread may have waited for this one
      break;
    } else if (deadline == UINT64_MAX) {
      assert(log_->syncing() || (pending_.empty() && !log_->has_unsynced() && !log_->failed()));
      wake_.Wait(mutex_);
    } else {
      watched_ns_ = std::min(watched_ns_, deadline);
      clock_->WaitUntil(&wake_, &mutex_, deadline);
      if (watched_ns_ == deadline) watched_ns_ = UINT64_MAX;
    }
  }
}

void WalCommitter::RunDue() {
  log_->PollReserve();
  MutexLock lock(mutex_);
  uint64_t deadline = 0;
  for (Work work; (work = NextWorkLocked(clock_->MonotonicNs(), &deadline)) != Work::kNone;) DoLocked(work);
}

WalCommitter::Pending WalCommitter::GetPending() const {
  const uint64_t now = clock_->MonotonicNs();
  const auto age_us = [now](uint64_t since) { return since == 0 || since > now ? 0 : (now - since) / kNsPerUs; };
  Pending pending;
  pending.oldest_unsynced_us = age_us(shared_->oldest_unsynced_ns.load(kRelaxed));
  MutexLock lock(mutex_);
  pending.records = pending_records_ + taken_records_;
  const uint64_t oldest = taken_first_accepted_ns_ != 0 ? taken_first_accepted_ns_
                          : pending_.empty()            ? 0
                                                        : pending_.front()->first_accepted_ns;
  pending.oldest_unwritten_us = age_us(oldest);
  return pending;
}

}  // namespace sutra
