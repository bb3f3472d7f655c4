// One line per gauge, so that a gauge that is never set is easy to see here (engine_stats_test checks it too).
#include "engine/engine_stats.h"

#include <unistd.h>

#include "shm/base/time.h"

namespace sutra {
namespace {

void ShowCache(const StatsWriter& stats, const CacheStats& cache) {
  stats.Set(Gauge::kCacheEntries, cache.entries);
  stats.Set(Gauge::kCacheBytes, cache.bytes);
  stats.Set(Gauge::kCacheEvictions, cache.evictions);
  stats.Set(Gauge::kCacheExpirations, cache.expirations);
  stats.Set(Gauge::kWalAppends, cache.wal_appends);
  stats.Set(Gauge::kWalBytes, cache.wal_bytes);
  stats.Set(Gauge::kWalSyncs, cache.wal_syncs);
  stats.Set(Gauge::kWalSegments, cache.wal_segments);
  stats.Set(Gauge::kWalDroppedInserts, cache.wal_dropped_inserts);
  stats.Set(Gauge::kWalPendingRecords, cache.wal_pending_records);
  stats.Set(Gauge::kWalOldestUnwrittenUs, cache.wal_oldest_unwritten_us);
  stats.Set(Gauge::kWalOldestUnsyncedUs, cache.wal_oldest_unsynced_us);
  stats.Set(Gauge::kRecoveredRecords, cache.recovered_records);
  stats.Set(Gauge::kRecoveredDropped, cache.recovered_dropped);
  stats.Set(Gauge::kQuarantinedSegments, cache.quarantined_segments);
  stats.Set(Gauge::kStorageFailed, cache.storage_failed ? 1 : 0);
  stats.Set(Gauge::kWalEvictions, cache.wal_evictions);
  stats.Set(Gauge::kLogFull, cache.log_full ? 1 : 0);
  stats.Set(Gauge::kCacheUnreadEntries, cache.unread_entries);
}

void ShowHotTable(const StatsWriter& stats, const HotCache::Figures& figures) {
  stats.Set(Gauge::kHotSlots, figures.slots);
  stats.Set(Gauge::kHotUsed, figures.used);
  stats.Set(Gauge::kHotPublished, figures.published);
  stats.Set(Gauge::kHotEvicted, figures.evicted);
  stats.Set(Gauge::kHotRemoved, figures.removed);
}

}  // namespace

void ShowConstants(const StatsWriter& stats, const ModelInfo& model, uint32_t lanes_max, size_t workers) {
  stats.Set(Gauge::kLanesMax, lanes_max);
  stats.Set(Gauge::kStartWallNs, WallNs());
  stats.Set(Gauge::kPid, static_cast<uint64_t>(getpid()));
  stats.Set(Gauge::kModelWidth, model.width);
  stats.Set(Gauge::kModelTokensMax, model.tokens_max);
  stats.Set(Gauge::kWorkers, workers);
  stats.Set(Gauge::kSocketLost, 0);  // file_watch.cc changes these two
  stats.Set(Gauge::kDataLost, 0);
  ShowOtherIdentities(stats, {});  // until they were looked at
}

void ShowOtherIdentities(const StatsWriter& stats, const OtherIdentities::Figures& figures) {
  stats.Set(Gauge::kOtherIdentities, figures.identities);
  stats.Set(Gauge::kOtherIdentitiesBytes, figures.bytes);
  stats.Set(Gauge::kIdentitiesRemoved, figures.removed);
}

void ShowGauges(const ServedModel& model, const EngineLoop::Vitals& vitals) {
  const StatsWriter& stats = model.stats;
  stats.Set(Gauge::kHeartbeatNs, vitals.now_ns);
  stats.Set(Gauge::kHeartbeatWallNs, WallNs());
  stats.Set(Gauge::kState, vitals.state);
  stats.Set(Gauge::kLanes, vitals.lanes);
  stats.Set(Gauge::kLanesParked, vitals.lanes_parked);
  stats.Set(Gauge::kStandbys, vitals.standbys);
  stats.Set(Gauge::kStandbysReady, vitals.standbys_ready);
  stats.Set(Gauge::kQueueTexts, model.batcher.queued_texts());
  stats.Set(Gauge::kQueueTokens, model.batcher.queued_cost());
  stats.Set(Gauge::kQueueBytes, model.batcher.queued_bytes());
  stats.Set(Gauge::kInFlightTexts, model.long_texts.size() + model.in_flight.size());
  ShowHotTable(stats, model.hot != nullptr ? model.hot->figures() : HotCache::Figures());
  const CacheShard* const shard = model.cache.Get();
  if (shard != nullptr) ShowCache(stats, shard->Stats());
  const ShardState state = model.cache.state();
  if (state == kShardFailed) stats.Set(Gauge::kStorageFailed, 1);
  const ShardSlot::Counts inserts = model.cache.GetCounts();
  stats.Set(Gauge::kShardState, state);
  stats.Set(Gauge::kInsertsWaiting, inserts.waiting);
  stats.Set(Gauge::kInsertsDropped, inserts.dropped);
}

}  // namespace sutra
