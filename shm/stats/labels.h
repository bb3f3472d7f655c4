// What an engine counts: the counters, gauges and histograms, each with the label under which observers find it. A
// label is never reused for another meaning. Header-only; stateless.
#pragma once

#include <cstdint>
#include <iterator>

namespace sutra {

// Monotone counters; the second column is the label in the segment.
#define SUTRA_COUNTERS(X)                                            \
  X(kTexts, "texts")                                                 \
  X(kTokens, "tokens_computed")                                      \
  X(kHits, "hits")                                                   \
  X(kMisses, "misses")                                               \
  X(kJoined, "joined")                                               \
  X(kBatches, "batches")                                             \
  X(kBatchTexts, "batch_texts")                                      \
  X(kRepliesOk, "replies_ok")                                        \
  X(kRepliesEmptyText, "replies_empty_text")                         \
  X(kRepliesInvalidUtf8, "replies_invalid_utf8")                     \
  X(kRepliesTextTooLong, "replies_text_too_long")                    \
  X(kRepliesBadOption, "replies_bad_option")                         \
  X(kRepliesDeadline, "replies_deadline_exceeded")                   \
  X(kRepliesCancelled, "replies_cancelled")                          \
  X(kRepliesModelError, "replies_model_error")                       \
  X(kRepliesOverloaded, "replies_overloaded")                        \
  X(kRepliesShuttingDown, "replies_shutting_down")                   \
  X(kTruncated, "truncated")                                         \
  X(kAttaches, "attaches")                                           \
  X(kAttachesRefused, "attaches_refused")                            \
  X(kDetaches, "detaches")                                           \
  X(kLanesDead, "lanes_client_died")                                 \
  X(kLanesViolated, "lanes_protocol_violation")                      \
  X(kWakesSent, "client_wakes_sent")                                 \
  X(kEngineSleeps, "engine_sleeps")                                  \
  X(kLoopRounds, "loop_rounds")                                      \
  X(kWorkerBusyNs, "worker_busy_ns")                                 \
  X(kRepliesOutOfMemory, "replies_out_of_memory")                    \
  X(kOutOfMemory, "out_of_memory")                                   \
  X(kLanesShutDown, "lanes_shut_down")                               \
  X(kLanesEngineFailed, "lanes_engine_failed")                       \
  X(kTextsLaneEnded, "texts_lane_ended") /* not answered */          \
  /* Why attaches were refused; kAttachesRefused is their sum. */    \
  X(kRefusedPermission, "attach_refused_permission")                 \
  X(kRefusedVersion, "attach_refused_version")                       \
  X(kRefusedModel, "attach_refused_model")                           \
  X(kRefusedLanes, "attach_refused_lanes")                           \
  X(kRefusedBytes, "attach_refused_bytes")                           \
  X(kRefusedRate, "attach_refused_rate")                             \
  X(kRefusedPending, "attach_refused_pending")                       \
  X(kRefusedMemory, "attach_refused_memory")                         \
  X(kRefusedDraining, "attach_refused_shutting_down")                \
  X(kRefusedTimeout, "attach_refused_timeout")                       \
  X(kRefusedProtocol, "attach_refused_protocol")                     \
  X(kControlRequests, "control_requests")                            \
  X(kControlRefused, "control_refused")                              \
  X(kHotHits, "hot_hits")               /* as clients report them */ \
  X(kBatchesRetried, "batches_retried") /* computed again in fp32 */

// Values that go up and down, written by the engine loop.
#define SUTRA_GAUGES(X)                               \
  X(kHeartbeatNs, "heartbeat_ns")                     \
  X(kHeartbeatWallNs, "heartbeat_wall_ns")            \
  X(kStartWallNs, "start_wall_ns")                    \
  X(kState, "state")                                  \
  X(kPid, "pid")                                      \
  X(kLanes, "lanes")                                  \
  X(kQueueTexts, "queue_texts")                       \
  X(kQueueTokens, "queue_tokens")                     \
  X(kInFlightTexts, "in_flight_texts")                \
  X(kModelWidth, "model_width")                       \
  X(kModelTokensMax, "model_tokens_max")              \
  X(kCacheEntries, "cache_entries")                   \
  X(kCacheBytes, "cache_bytes")                       \
  X(kCacheEvictions, "cache_evictions")               \
  X(kCacheExpirations, "cache_expirations")           \
  X(kWalAppends, "wal_appends")                       \
  X(kWalBytes, "wal_bytes")                           \
  X(kWalSyncs, "wal_syncs")                           \
  X(kWalSegments, "wal_segments")                     \
  X(kWalDroppedInserts, "wal_dropped_inserts")        \
  X(kWalPendingRecords, "wal_pending_records")        \
  X(kWalOldestUnwrittenUs, "wal_oldest_unwritten_us") \
  X(kWalOldestUnsyncedUs, "wal_oldest_unsynced_us")   \
  X(kRecoveredRecords, "recovered_records")           \
  X(kRecoveredDropped, "recovered_dropped")           \
  X(kQuarantinedSegments, "quarantined_segments")     \
  X(kStorageFailed, "storage_failed")                 \
  X(kWorkers, "workers")                              \
  X(kSocketLost, "socket_lost")                       \
  X(kDataLost, "data_lost")                           \
  X(kWalEvictions, "wal_evictions")                   \
  X(kLogFull, "log_full")                             \
  X(kQueueBytes, "queue_bytes")                       \
  X(kLanesParked, "lanes_parked")                     \
  X(kLanesMax, "lanes_max")                           \
  X(kStandbys, "standbys")                            \
  X(kStandbysReady, "standbys_ready")                 \
  X(kShardState, "shard_state") /* ShardState */      \
  X(kInsertsWaiting, "inserts_waiting")               \
  X(kInsertsDropped, "inserts_dropped")               \
  X(kOtherIdentities, "other_identities")             \
  X(kOtherIdentitiesBytes, "other_identities_bytes")  \
  X(kIdentitiesRemoved, "identities_removed")         \
  X(kCacheUnreadEntries, "cache_unread_entries")      \
  X(kHotSlots, "hot_slots")                           \
  X(kHotUsed, "hot_used")                             \
  X(kHotPublished, "hot_published")                   \
  X(kHotEvicted, "hot_evicted")                       \
  X(kHotRemoved, "hot_removed")

// Of the cache shard, whose engine may have taken over and serve before it is open.
enum ShardState : uint32_t {
  kShardNone = 0,     // --no-cache
  kShardOpening = 1,  // lookups find nothing; inserts wait in memory
  kShardOpen = 2,
  kShardFailed = 3,  // as opening; it could not be opened, and may be tried again
};

// Log-linear histograms; values in nanoseconds unless the label says otherwise.
#define SUTRA_HISTOGRAMS(X)                                                                  \
  X(kHitTotal, "hit_total_ns")           /* submitted to published, answered by the shard */ \
  X(kMissTotal, "miss_total_ns")         /* submitted to published, computed or joined */    \
  X(kStageTake, "stage_take_ns")         /* submitted to taken */                            \
  X(kStageTokenise, "stage_tokenise_ns") /* the tokenising itself */                         \
  X(kStageQueue, "stage_queue_ns")       /* taken to batched, without tokenising */          \
  X(kStageCompute, "stage_compute_ns")   /* batched to computed */                           \
  X(kStagePublish, "stage_publish_ns")   /* computed to published */                         \
  X(kBatchSizeTexts, "batch_size_texts")                                                     \
  X(kBatchSizeTokens, "batch_size_tokens")

#define SUTRA_ENUM(name, label) name,
enum class Counter : uint32_t { SUTRA_COUNTERS(SUTRA_ENUM) kCount };
enum class Gauge : uint32_t { SUTRA_GAUGES(SUTRA_ENUM) kCount };
enum class Histogram : uint32_t { SUTRA_HISTOGRAMS(SUTRA_ENUM) kCount };
#undef SUTRA_ENUM

#define SUTRA_LABEL(name, label) label,
inline constexpr const char* kCounterLabels[] = {SUTRA_COUNTERS(SUTRA_LABEL)};
inline constexpr const char* kGaugeLabels[] = {SUTRA_GAUGES(SUTRA_LABEL)};
inline constexpr const char* kHistogramLabels[] = {SUTRA_HISTOGRAMS(SUTRA_LABEL)};
#undef SUTRA_LABEL
static_assert(std::size(kCounterLabels) == static_cast<size_t>(Counter::kCount));
static_assert(std::size(kGaugeLabels) == static_cast<size_t>(Gauge::kCount));
static_assert(std::size(kHistogramLabels) == static_cast<size_t>(Histogram::kCount));

constexpr const char* LabelOf(Counter counter) { return kCounterLabels[static_cast<uint32_t>(counter)]; }
constexpr const char* LabelOf(Gauge gauge) { return kGaugeLabels[static_cast<uint32_t>(gauge)]; }
constexpr const char* LabelOf(Histogram histogram) { return kHistogramLabels[static_cast<uint32_t>(histogram)]; }

}  // namespace sutra
