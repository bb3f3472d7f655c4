// LoggedShard: the one implementation of CacheShard: a SlotTable in front of a WalLog. Programs use CacheShard::Open;
// tests and the simulation use this class to run it without threads.
//
// Thread rule: as CacheShard; with `threaded` false everything runs on the caller's thread, and Turn does the work that
// has become due.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "cache/cache_shard.h"
#include "cache/entry_loader.h"
#include "cache/heat_file.h"
#include "cache/recycler.h"
#include "cache/shard_directory.h"
#include "cache/store/slot_table.h"
#include "cache/store/sweeper.h"
#include "cache/wal/wal_committer.h"
#include "cache/wal/wal_log.h"

namespace sutra {

class LoggedShard final : public CacheShard {
 public:
  struct Options {
    bool threaded = true;
    bool load_at_open = true;    // not threaded: read all entries at once, not each when it is asked for
    uint64_t hash_mask = ~0ull;  // narrowed by tests to force collisions
  };
  static Result<std::unique_ptr<LoggedShard>> Open(const CacheConfig& config, DiskIo* io, Clock* clock,
                                                   const Options& options);
  ~LoggedShard() override;
  void Close() override;

  bool Lookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) override;
  std::optional<bool> TryLookup(std::string_view text, uint32_t variant, float* vector, CacheValue* value) override;
  void Insert(std::string_view text, uint32_t variant, std::span<const float> vector, const CacheValue& value,
              uint64_t ttl_s, uint64_t removals_seen = kRemovalsAllSeen) override;
  uint64_t Removals() const override { return removals_.load(std::memory_order_acquire); }
  Status Erase(std::string_view text, uint32_t variant) override;
  Status Sync() override;
  void SetStorageLost(bool lost) override { storage_lost_.store(lost, std::memory_order_relaxed); }
  CacheStats Stats() const override;

  void Turn();

 private:
  LoggedShard(const CacheConfig& config, DiskIo* io, Clock* clock, const Options& options);
  Status OpenLog();
  Status MakeReady(const ShardDirectory& directory);
  Result<RecoveryPlan> Recover(const RecoveryRequest& request);
  void PushLocked(const SlotTable::Placed& placed, UnplacedRecord* record) SUTRA_REQUIRES(store_.mutex());
  void WriteHeat();
  void RestoreHeat();
  Status Wait(const std::shared_ptr<WalCommit>& commit);
  bool storage_lost() const { return storage_lost_.load(std::memory_order_relaxed); }

  const CacheConfig config_;
  DiskIo* const io_;
  Clock* const clock_;
  const Options options_;
  SlotTable store_;
  // When a key of this remainder was removed last: a removal of one of its 4,095 neighbours costs a computation that is
  // under way its entry, and nothing else.
  static constexpr size_t kRemovalFences = 4096;
  std::array<uint64_t, kRemovalFences> removed_at_ SUTRA_GUARDED_BY(store_.mutex()) = {};
  std::atomic<uint64_t> removals_{0};  // raised under the store's mutex
  WalShared shared_;
  // relaxed: a change of the directory is noticed late in any case
  std::atomic<bool> storage_lost_{false};
  uint64_t record_bytes_max_ = 0;
  uint64_t recovered_records_ = 0, recovered_dropped_ = 0, recovered_indexed_ = 0, quarantined_segments_ = 0;
  std::unique_ptr<EntryLoader> loader_;  // null with policy none, like the next four
  std::unique_ptr<HeatFile> heat_;
  std::unique_ptr<Recycler> recycler_;
  std::unique_ptr<WalLog> log_;
  std::unique_ptr<WalCommitter> committer_;  // destroyed before the log
  std::unique_ptr<Sweeper> sweeper_;
};

}  // namespace sutra
