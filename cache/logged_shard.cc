// Opening a shard (directory, recovery, log, committer), its five calls, and its counters.
#include "cache/logged_shard.h"

#include <algorithm>
#include <new>
#include <system_error>

#include "cache/config_check.h"
#include "cache/disk/disk_io.h"
#include "cache/shard_directory.h"
#include "cache/store_sink.h"
#include "cache/wal/recovery.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr const char* kNoMemory =
    "cache: not enough memory to open the store; lower --cache-entries-max or --cache-bytes-max";

}  // namespace

LoggedShard::LoggedShard(const CacheConfig& config, DiskIo* io, Clock* clock, const Options& options)
    : config_(config),
      io_(io),
      clock_(clock),
      options_(options),
      store_(SlotTable::Limits{config.width, config.entries_max, config.bytes_max, options.hash_mask}) {}

LoggedShard::~LoggedShard() { Close(); }

void LoggedShard::Close() {
  sweeper_.reset();
  if (loader_ != nullptr) loader_->Stop();
  if (committer_ != nullptr) {
    WriteHeat();
    committer_->Close();  // before it is gone: what it evicts meanwhile is logged through it
  }
  committer_.reset();
  if (log_ != nullptr) log_->Finish();
  log_.reset();
}

Result<std::unique_ptr<LoggedShard>> LoggedShard::Open(const CacheConfig& config, DiskIo* io, Clock* clock,
                                                       const Options& options) {
  if (Status status = CheckConfig(config); !status.ok()) return status;
  try {
    std::unique_ptr<LoggedShard> shard(new LoggedShard(config, io, clock, options));
    if (config.policy != DurabilityPolicy::kNone) {
      if (Status status = shard->OpenLog(); !status.ok()) return status;
    }
    shard->sweeper_ = std::make_unique<Sweeper>(&shard->store_, clock, options.threaded,
                                                [shard = shard.get()] { shard->WriteHeat(); });
    return shard;
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, kNoMemory);
  } catch (const std::system_error& error) {  // of a thread
    return Status(StatusCode::kOutOfMemory, std::string("cache: cannot start a thread: ") + error.what());
  }
}

Result<RecoveryPlan> LoggedShard::Recover(const RecoveryRequest& request) {
  const uint64_t wall_now = clock_->WallNs();
  StoreSink sink(&store_, clock_, wall_now);
  Result<RecoveryPlan> plan = RecoverLog(io_, request, &sink);
  if (!plan.ok()) return plan;
  uint64_t beyond_bounds = sink.beyond_bounds();
  // The clock is behind what the log knows, or entries are older than the first time that it knows: what has expired is
  // judged from these times, and only now are they known.
  const bool behind = plan->wall_highest_ns > wall_now;
  if (behind || (sink.undated() > 0 && plan->clock_set_ns != 0)) {
    store_.DropAll();
    StoreSink judge(&store_, clock_, std::max(wall_now, plan->wall_highest_ns), plan->clock_set_ns);
    plan = RecoverLog(io_, request, &judge);
    beyond_bounds = judge.beyond_bounds();
  }
  if (plan.ok() && beyond_bounds > 0) {
    plan->messages.push_back({LogLevel::kWarn, "cache: " + std::to_string(beyond_bounds) +
                                                   " records of the log are for places beyond the bounds of the store, "
                                                   "which were larger before; their entries are to be computed again"});
  }
  store_.FinishReplay();
  return plan;
}

Status LoggedShard::OpenLog() {
  ShardDirectory directory{config_.directory, config_.model_identity, config_.model_name, config_.width};
  Result<ShardFiles> files = PrepareShardDirectory(io_, directory, config_.log);
  if (!files.ok()) return files.status();

  RecoveryRequest request;
  request.directory = files->path;
  request.width = config_.width;
  request.strict = request.every_record = config_.strict_recovery;
  ParseIdentity(config_.model_identity, &request.model);

  const uint64_t started_ns = clock_->MonotonicNs();
  const bool ready = files->disk_full.ok();
  const Result<RecoveryPlan> plan = ready ? Recover(request) : RecoveryPlan();
  if (!plan.ok()) return plan.status();
  recovered_records_ = plan->records;
  recovered_dropped_ = plan->records_dropped;
  recovered_indexed_ = plan->indexed;
  quarantined_segments_ = files->quarantined + plan->quarantine.size();

  WalLog::Config log_config;
  log_config.directory = files->path;
  log_config.model = request.model;
  log_config.width = config_.width;
  log_config.segment_bytes = config_.wal_segment_bytes;
  log_config.wal_bytes_max = config_.wal_bytes_max;
  log_config.hash_seed = store_.seed();
  log_config.sync_each_group = config_.policy == DurabilityPolicy::kSync;
  log_config.threaded = options_.threaded;
  if (!ready) log_config.make_ready = [this, directory] { return MakeReady(directory); };
  log_config.log_line = config_.log;
  record_bytes_max_ = std::min(kRecordBytesMax, (config_.wal_segment_bytes - kSegmentDataStart) / 2);
  loader_ = std::make_unique<EntryLoader>(&store_, io_, clock_, request, plan->chain, config_.log);
  heat_ = std::make_unique<HeatFile>(&store_, io_, files->path);
  recycler_ =
      std::make_unique<Recycler>(&store_, loader_.get(), clock_, &shared_, config_.width, config_.wal_segment_bytes);
  log_ = std::make_unique<WalLog>(io_, clock_, recycler_.get(), &shared_, log_config);
  if (Status status = log_->Start(*plan); !status.ok()) {
    return Status(status.code(), "the log in " + files->path + " cannot be opened: " + status.message(),
                  status.os_error());
  }

  WalCommitter::Config committer_config;
  committer_config.policy = config_.policy;
  committer_config.interval_us_max = config_.interval_us_max;
  committer_config.interval_bytes_max = config_.interval_bytes_max;
  committer_config.sync_us_max = config_.sync_us_max;
  committer_config.threaded = options_.threaded;
  committer_ = std::make_unique<WalCommitter>(clock_, log_.get(), &shared_, committer_config);
  recycler_->SetClear([this](uint32_t slot) { committer_->PushInsert(UnplacedRecord::Clear(slot)); });
  committer_->Start();
  if (options_.threaded) {
    loader_->Start([this] { RestoreHeat(); });
  } else {
    RestoreHeat();
    if (options_.load_at_open) loader_->LoadAll();
  }
  if (config_.log) {
    for (const RecoveryMessage& message : plan->messages) config_.log(message.level, message.text);
    config_.log(LogLevel::kInfo,
                "cache: " + std::to_string(store_.GetCounts().entries) + " entries from " +
                    std::to_string(plan->records) + " records of " + std::to_string(plan->chain.size()) +
                    " segments (" + std::to_string(plan->indexed) + " by their index), " +
                    std::to_string(plan->records_dropped) + " dropped, in " +
                    std::to_string((clock_->MonotonicNs() - started_ns) / kNsPerMs) + " ms (" + io_->name() + ")");
  }
  return {};
}

// What a full disk prevented at the start. A log that appeared there meanwhile is not touched: it was not recovered.
Status LoggedShard::MakeReady(const ShardDirectory& directory) {
  const Result<ShardFiles> files = PrepareShardDirectory(io_, directory, {});
  if (!files.ok()) return files.status();
  if (files->segments == 0) return files->disk_full;
  return Status(StatusCode::kRefused, files->path + " holds a log that was not there at the start; start again");
}

bool LoggedShard::Lookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) {
  return store_.Lookup(store_.KeyOf(text, variant), clock_->BootNs(), vector, value,
                       [this](uint32_t slot) { loader_->Load(slot); });
}

std::optional<bool> LoggedShard::TryLookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) {
  uint32_t unread = SlotTable::kNoSlot;
  const EntryKey key = store_.KeyOf(text, variant);
  const std::optional<bool> found = store_.TryLookup(key, clock_->BootNs(), vector, value, &unread);
  if (unread == SlotTable::kNoSlot || loader_->Ask(unread)) return found;
  return false;
}

void LoggedShard::Insert(std::string_view text, uint32_t variant, std::span<const float> vector,
                         const CacheValue& value, uint64_t ttl_s, uint64_t removals_seen) {
  if (vector.size() != config_.width || !store_.CanHold(text.size())) return;
  const uint64_t ttl = std::min(ttl_s == 0 ? config_.ttl_s_default : ttl_s, kTtlSecondsMax);
  const uint64_t now = clock_->BootNs();
  const EntryKey key = store_.KeyOf(text, variant);
  LongText::Ptr copy = SlotTable::CopyLongText(key);
  const bool loggable = committer_ != nullptr && !storage_lost() &&
                        UnplacedRecord::LengthOfInsert(config_.width, text.size()) <= record_bytes_max_;
  UnplacedRecord record;
  if (loggable) {
    InsertBody body;
    body.wall_expiry_ns = shared_.time.ForExpiry(*clock_) + ttl * kNsPerSecond;
    body.ttl_s = static_cast<uint32_t>(ttl);
    body.variant = variant;
    body.text_bytes = static_cast<uint32_t>(text.size());
    body.width = config_.width;
    body.token_count = value.token_count;
    body.norm = value.norm;
    body.flags = value.truncated ? kInsertTruncated : 0;
    record = UnplacedRecord::Insert(body, std::as_bytes(vector), text);
  } else if (committer_ != nullptr) {
    shared_.dropped_inserts.fetch_add(1, kRelaxed);
  }
  {
    const MutexLock lock(store_.mutex());
    if (fences_.Stops(key.digest, removals_seen)) return;
    const SlotTable::Lifetime lifetime{now + ttl * kNsPerSecond, static_cast<uint32_t>(ttl)};
    const SlotTable::Placed placed = store_.PutLocked(key, std::as_bytes(vector), value, lifetime, now, &copy);
    if (committer_ != nullptr && !storage_lost()) PushLocked(placed, loggable ? &record : nullptr);
  }
  if (committer_ != nullptr) committer_->Wake();
  if (!options_.threaded) Turn();
}

// What a Put changed, for the log: in the order of the changes, under the lock under which they were made. If the log
// does not take a record, it is one step behind for that slot until the next one: a start then finds there who was
// there before. `record`: of the entry placed; null if it is not logged, and then its slot is empty for the log.
void LoggedShard::PushLocked(const SlotTable::Placed& placed, UnplacedRecord* record) {
  store_.VisitVacatedLocked(placed.vacated,
                            [&](uint32_t slot) { committer_->PushInsert(UnplacedRecord::Clear(slot)); });
  if (placed.slot == SlotTable::kNoSlot) return;
  // Read before the push: the record goes to this segment or a later one, never to an older one.
  const uint64_t segment = shared_.current_segment.load(kRelaxed);
  if (record == nullptr) {
    committer_->PushInsert(UnplacedRecord::Clear(placed.slot));
    store_.SetSegmentLocked(placed.slot, 0);
    return;
  }
  record->slot = placed.slot;
  // Without a record of its own a replaced entry still needs the older one, which must not be removed with its segment.
  if (committer_->PushInsert(*record)) store_.SetSegmentLocked(placed.slot, segment);
}

// A disk without room, or gone, has better things to write.
void LoggedShard::WriteHeat() {
  if (heat_ == nullptr || storage_lost() || shared_.failed.load(kRelaxed) || shared_.full.load(kRelaxed)) return;
  try {
    const Status status = heat_->Write();
    static_cast<void>(status);  // the next start knows less of what is hot
  } catch (const std::bad_alloc&) {
    return;
  }
}

void LoggedShard::RestoreHeat() {
  try {
    heat_->Restore();
  } catch (const std::bad_alloc&) {
    return;  // what was hot stays written down
  }
}

Status LoggedShard::Erase(std::string_view text, uint32_t variant) {
  const EntryKey key = store_.KeyOf(text, variant);
  const UnplacedRecord record = UnplacedRecord::Erase({key.digest.low, key.digest.high, variant});
  std::shared_ptr<WalCommit> commit;
  uint64_t removals = 0;
  {
    const MutexLock lock(store_.mutex());
    store_.EraseLocked(key);
    removals = fences_.Raise(key.digest);
    // Logged in any case: an entry that was evicted or has expired may still be in the log, if that is behind.
    if (committer_ != nullptr && !storage_lost()) commit = committer_->PushErase(record);
  }
  // Before the wait: nobody is answered from elsewhere while the disk takes its time.
  if (config_.observer != nullptr) config_.observer->OnErased(text, variant, removals);
  const Status status = committer_ == nullptr ? Status() : Wait(commit);
  if (!status.ok()) owes_removals_.store(true, kRelaxed);
  return status;
}

Status LoggedShard::Wait(const std::shared_ptr<WalCommit>& commit) {
  if (!options_.threaded) Turn();
  if (commit != nullptr && committer_->Await(commit.get())) return {};
  return Refused();
}

Status LoggedShard::Refused() const {
  return Status(StatusCode::kStorageError,
                "the log in " + config_.directory + " refuses records; the engine's log gives the reason");
}

Status LoggedShard::Sync() {
  if (committer_ == nullptr) return {};
  if (storage_lost()) return Wait(nullptr);
  bool refused = false;
  const std::shared_ptr<WalCommit> commit = committer_->RequestSync(&refused);
  Status status;
  if (commit != nullptr || refused) status = Wait(commit);
  const uint64_t lost = committer_->TakeLost();
  if (!status.ok() || lost == 0) return status;
  return Status(StatusCode::kStorageError, std::to_string(lost) + " entries were accepted by the log in " +
                                               config_.directory +
                                               " and lost; the engine's log gives the reason. They are served from "
                                               "memory until the engine ends");
}

void LoggedShard::Turn() {
  if (options_.threaded) return;
  sweeper_->RunDue();
  if (committer_ != nullptr) committer_->RunDue();
}

CacheStats LoggedShard::Stats() const {
  CacheStats stats;
  const SlotTable::Counts counts = store_.GetCounts();
  stats.entries = counts.entries;
  stats.bytes = counts.bytes;
  stats.evictions = counts.evictions;
  stats.unread_entries = counts.unread;
  stats.expirations = counts.expirations;
  stats.wal_appends = shared_.appends.load(kRelaxed);
  stats.wal_bytes = shared_.bytes.load(kRelaxed);
  stats.wal_syncs = shared_.syncs.load(kRelaxed);
  stats.wal_segments = shared_.segments.load(kRelaxed);
  stats.wal_dropped_inserts = shared_.dropped_inserts.load(kRelaxed);
  stats.log_full = log_ != nullptr && !log_->has_room();
  stats.wal_evictions = shared_.evictions.load(kRelaxed);
  stats.storage_failed = shared_.failed.load(kRelaxed) || storage_lost();
  stats.recovered_records = recovered_records_;
  stats.recovered_dropped = recovered_dropped_ + (loader_ != nullptr ? loader_->lost() : 0);
  stats.recovered_indexed = recovered_indexed_;
  stats.quarantined_segments = quarantined_segments_;
  if (committer_ != nullptr) {
    const WalCommitter::Pending pending = committer_->GetPending();
    stats.wal_pending_records = pending.records;
    stats.wal_oldest_unwritten_us = pending.oldest_unwritten_us;
    stats.wal_oldest_unsynced_us = pending.oldest_unsynced_us;
    stats.disk_io = io_->name();
  }
  return stats;
}

Result<std::unique_ptr<CacheShard>> CacheShard::Open(const CacheConfig& config, DiskIo* io, Clock* clock) {
  Result<std::unique_ptr<LoggedShard>> shard = LoggedShard::Open(config, io, clock, LoggedShard::Options());
  if (!shard.ok()) return shard.status();
  return std::unique_ptr<CacheShard>(std::move(shard).value());
}

}  // namespace sutra
