// Files at rest, opened by the shard's own code: over a disk in memory to look at them, or on the disk, under the lock.
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "cache/disk/disk_io_overlay.h"
#include "cache/shard_at_rest.h"
#include "engine/control/cache_page.h"
#include "shm/base/clock.h"
#include "tools/cache/cache_target.h"
#include "tools/cache/data_directory.h"

namespace sutra {

namespace {

class RestTarget final : public CacheTarget {
 public:
  static Result<std::unique_ptr<CacheTarget>> Open(const IdentitySurvey& survey, std::optional<DataLock> lock,
                                                   ShowProgress progress) {
    std::unique_ptr<RestTarget> target(new RestTarget(std::move(lock), std::move(progress)));
    target->io_ = target->lock_ ? MakePosixDiskIo(false) : std::make_unique<OverlayDiskIo>();
    Result<CacheConfig> config = ConfigAtRest(target->io_.get(), survey);
    if (!config.ok()) return config.status();
    target->info_ = {survey.path, config->model_identity, config->model_name, config->width, false};
    Result<std::unique_ptr<CacheShard>> shard = CacheShard::Open(*config, target->io_.get(), Clock::Real());
    if (!shard.ok()) return shard.status();
    target->shard_ = std::move(*shard);
    if (target->shard_->Stats().storage_failed) {
      return Status(StatusCode::kStorageError, "the log in " + survey.path + " takes no records: is the disk full?");
    }
    return std::unique_ptr<CacheTarget>(std::move(target));
  }
  ~RestTarget() override {
    if (shard_ != nullptr) shard_->Close();
  }

  Result<std::string> StatsJson() override {
    const CacheStats stats = shard_->Stats();
    const nlohmann::json json = {{"place", info_.place},
                                 {"live", false},
                                 {"identity", info_.identity},
                                 {"model", info_.model},
                                 {"width", info_.width},
                                 {"entries", stats.entries},
                                 {"bytes", stats.bytes},
                                 {"log_records", stats.recovered_records},
                                 {"lost_entries", stats.recovered_dropped},
                                 {"quarantined_segments", stats.quarantined_segments}};
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

  Result<CacheAdmin::Preview> Preview(const CacheFilter& filter) override {
    filter_ = filter;
    return shard_->PreviewRemoval(filter, progress_);
  }
  Result<CacheAdmin::Removal> Commit(uint64_t token) override {
    return lock_->Audited<CacheAdmin::Removal>(
        "drop", "identity " + info_.identity + ": " + AuditLog::Words(filter_),
        [&] { return shard_->CommitRemoval(token, progress_); },
        [](const CacheAdmin::Removal& done) { return std::to_string(done.entries) + " entries removed"; });
  }
  Result<bool> Erase(std::string_view text, uint32_t variant) override {
    const bool there = shard_->Get(text, variant).ok();
    return lock_->Audited<bool>(
        "erase", "identity " + info_.identity + ": " + AuditLog::Words("text", text),
        [&]() -> Result<bool> {
          const Status status = shard_->Erase(text, variant);
          if (!status.ok()) return status;
          return there;
        },
        [](const bool& was) { return std::string(was ? "removed" : "it was not there"); });
  }
  Result<CacheEntry> Get(std::string_view text, uint32_t variant) override { return shard_->Get(text, variant); }

  Status Visit(CacheAdmin::Which which, const std::function<Status(const CacheEntry&)>& visit) override {
    const uint64_t total = shard_->Stats().entries;
    uint64_t cursor = 0, done = 0;
    Status status;
    const Result<bool> all = shard_->Visit(which, &cursor, [&](const CacheEntry& entry) {
      status = visit(entry);
      ++done;
      if (status.ok() && done % 64 == 0 && !progress_(done, total)) status = Status(StatusCode::kCancelled, "stopped");
      return status.ok();
    });
    return all.ok() ? status : all.status();
  }

  Result<Imported> Import(Entries entries) override {
    return lock_->Audited<Imported>(
        "import", "identity " + info_.identity + ": " + std::to_string(entries.size()) + " entries",
        [&] { return Store(entries); },
        [](const Imported& done) {
          return std::to_string(done.stored) + " stored, " + std::to_string(done.refused) + " refused";
        });
  }

  Result<CacheAdmin::Compaction> Compact() override {
    return lock_->Audited<CacheAdmin::Compaction>(
        "compact", "identity " + info_.identity, [&] { return shard_->Compact(progress_); },
        [](const CacheAdmin::Compaction& done) {
          return std::to_string(done.bytes_before) + " bytes before, " + std::to_string(done.bytes_after) + " after";
        });
  }

  Status Close() override {
    const Status status = lock_ ? shard_->Sync() : Status();
    shard_->Close();
    shard_.reset();
    lock_.reset();
    return status;
  }

 private:
  RestTarget(std::optional<DataLock> lock, ShowProgress progress)
      : lock_(std::move(lock)), progress_(std::move(progress)) {}

  // The log's queue is bounded, and what does not fit is not logged: so a batch is durable before the next one comes.
  Result<Imported> Store(Entries entries) {
    Imported imported;
    const uint64_t dropped = shard_->Stats().wal_dropped_inserts;
    for (const CacheEntry& entry : entries) {
      if (const Status status = CheckEntry(entry); !status.ok()) {
        if (imported.refused++ == 0) imported.first = status.message();
        continue;
      }
      shard_->Insert(entry.text, entry.variant, entry.vector, entry.value, entry.left_s);
      ++imported.stored;
    }
    if (Status status = shard_->Sync(); !status.ok()) return status;
    const CacheStats stats = shard_->Stats();
    if (stats.wal_dropped_inserts > dropped || stats.log_full) {
      return Status(StatusCode::kStorageError, "the log in " + info_.place +
                                                   " takes no more entries; is the disk full, or a text longer than "
                                                   "half of a segment?");
    }
    return imported;
  }

  std::optional<DataLock> lock_;  // none: nothing changes
  const ShowProgress progress_;
  std::unique_ptr<DiskIo> io_;
  std::unique_ptr<CacheShard> shard_;
  CacheFilter filter_;  // of the last preview
};

}  // namespace

Result<std::unique_ptr<CacheTarget>> OpenRestTarget(const std::string& data, const std::string& identity,
                                                    CacheAccess access, ShowProgress progress) {
  std::optional<DataLock> lock;
  if (access == CacheAccess::kChange) {
    Result<DataLock> taken = DataLock::Take(data);
    if (!taken.ok()) return taken.status();
    lock.emplace(std::move(*taken));
  }
  const Result<IdentitySurvey> chosen = ChooseShard(data, identity);
  if (!chosen.ok()) return chosen.status();
  if (access == CacheAccess::kChange) return RestTarget::Open(*chosen, std::move(lock), std::move(progress));
  Result<std::unique_ptr<CacheTarget>> target = Status(StatusCode::kNotReady, "");
  const bool in_use = HolderOfData(data).held;
  const bool stayed = ReadWhileItStays(data, chosen->name, [&](const Result<IdentitySurvey>& survey) {
    target = survey.ok() ? RestTarget::Open(*survey, std::nullopt, progress)
                         : Result<std::unique_ptr<CacheTarget>>(survey.status());
    // Everything comes to memory before anything is shown.
    const auto pass = [](const CacheEntry&) { return Status(); };
    if (!target.ok() || !in_use) return;
    if (Status status = (*target)->Visit(CacheAdmin::Which::kAll, pass); !status.ok()) target = status;
  });
  if (!stayed && target.code() != StatusCode::kCancelled) return WrittenTooFast(chosen->path);
  return target;
}

}  // namespace sutra
