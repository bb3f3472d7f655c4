// LoggedShard: the one implementation of CacheShard: a SlotTable in front of a WalLog. Programs use CacheShard::Open;
// tests and the simulation use this class to run it without threads.
//
// Thread rule: as CacheShard; with `threaded` false everything runs on the caller's thread, and Turn does the work that
// has become due.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/entry_loader.h"
#include "cache/heat_file.h"
#include "cache/recycler.h"
#include "cache/removal_fences.h"
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
  uint64_t Removals() const override { return fences_.removals(); }
  void Touch(const CacheHandle& handle) override { store_.Touch(handle); }
  Status Erase(std::string_view text, uint32_t variant) override;
  Status Sync() override;
  void SetStorageLost(bool lost) override { storage_lost_.store(lost, std::memory_order_relaxed); }
  CacheStats Stats() const override;

  Result<Preview> PreviewRemoval(const CacheFilter& filter, const GoOn& go_on) override;
  Result<Removal> CommitRemoval(uint64_t token, const GoOn& go_on) override;
  Result<bool> Visit(Which which, uint64_t* cursor, const std::function<bool(const CacheEntry&)>& visit) override;
  Result<CacheEntry> Get(std::string_view text, uint32_t variant) override;
  Result<Compaction> Compact(const GoOn& go_on) override;

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
  Status Refused() const;

  struct PlannedRemoval {
    uint64_t token = 0;
    uint64_t until_ns = 0;  // monotonic
    CacheFilter filter;
    // What the preview has found. If the filter is about texts alone: the hash of each. Otherwise the slot of each
    // entry in the upper half, and its birth.
    std::vector<uint64_t> doomed;
    bool by_text() const { return filter.older_than_s == 0 && !filter.never_hit; }
  };
  // What a removal has handed to the log, to be waited for.
  struct RemovalRecords {
    std::vector<std::shared_ptr<WalCommit>> commits;
    size_t awaited = 0;  // so many of them are durable
    bool refused = false;
  };
  Status FindDoomed(const CacheFilter& filter, const GoOn& go_on, PlannedRemoval* plan, Preview* preview);
  Status ReadUnread(const GoOn& go_on);
  bool RemoveDoomed(const PlannedRemoval& plan, const GoOn& go_on, Removal* removed, RemovalRecords* records);
  uint32_t DoomedSlotLocked(const PlannedRemoval& plan, uint64_t doomed) const SUTRA_REQUIRES(store_.mutex());
  UnplacedRecord RemoveLocked(uint32_t slot, const KeyDigest& digest, Removal* removed) SUTRA_REQUIRES(store_.mutex());
  void RemoveLong(const PlannedRemoval& plan, uint64_t doomed, Removal* removed, RemovalRecords* records);
  void PushRemovalsLocked(std::span<const UnplacedRecord> removals, RemovalRecords* records)
      SUTRA_REQUIRES(store_.mutex());
  // Waits until at most `left` of the commits may not be durable yet.
  void AwaitRemovals(size_t left, RemovalRecords* records);
  bool storage_lost() const { return storage_lost_.load(std::memory_order_relaxed); }

  const CacheConfig config_;
  DiskIo* const io_;
  Clock* const clock_;
  const Options options_;
  SlotTable store_;
  RemovalFences fences_;  // raised and asked under the store's mutex
  std::optional<PlannedRemoval> planned_;
  WalShared shared_;
  // relaxed: a change of the directory is noticed late in any case
  std::atomic<bool> storage_lost_{false};
  // relaxed: the log has refused a removal whose entry is gone from memory, and none of everything came after it.
  std::atomic<bool> owes_removals_{false};
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
