// The stats segment: counters, gauges and latency histograms of one engine, readable by any allowed observer while the
// engine runs, after it stopped and after it crashed. The segment describes itself: an observer takes names and sizes
// from the label tables in it, never from its own build, and bounds them by the segment's size (fstat).
//
// Thread rule: every counter may be added to from any engine thread (relaxed fetch_add: only counts, publishes
// nothing); a gauge and a histogram have one writer at a time. Observers only read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "shm/shared_word.h"

namespace sutra {

inline constexpr uint64_t kStatsMagic = 0x5354415453545553;  // "SUTSTATS"
inline constexpr uint16_t kStatsMajor = 1;
inline constexpr uint16_t kStatsMinor = 0;

// Monotone counters; the second column is the label in the segment.
#define SUTRA_COUNTERS(X)                               \
  X(kTexts, "texts")                                    \
  X(kTokens, "tokens_computed")                         \
  X(kHits, "hits")                                      \
  X(kMisses, "misses")                                  \
  X(kJoined, "joined")                                  \
  X(kBatches, "batches")                                \
  X(kBatchTexts, "batch_texts")                         \
  X(kRepliesOk, "replies_ok")                           \
  X(kRepliesEmptyText, "replies_empty_text")            \
  X(kRepliesInvalidUtf8, "replies_invalid_utf8")        \
  X(kRepliesTextTooLong, "replies_text_too_long")       \
  X(kRepliesBadOption, "replies_bad_option")            \
  X(kRepliesDeadline, "replies_deadline_exceeded")      \
  X(kRepliesCancelled, "replies_cancelled")             \
  X(kRepliesModelError, "replies_model_error")          \
  X(kRepliesOverloaded, "replies_overloaded")           \
  X(kRepliesShuttingDown, "replies_shutting_down")      \
  X(kTruncated, "truncated")                            \
  X(kAttaches, "attaches")                              \
  X(kAttachesRefused, "attaches_refused")               \
  X(kDetaches, "detaches")                              \
  X(kLanesDead, "lanes_client_died")                    \
  X(kLanesViolated, "lanes_protocol_violation")         \
  X(kWakesSent, "client_wakes_sent")                    \
  X(kEngineSleeps, "engine_sleeps")                     \
  X(kLoopRounds, "loop_rounds")                         \
  X(kWorkerBusyNs, "worker_busy_ns")

// Values that go up and down, written by the engine loop.
#define SUTRA_GAUGES(X)                                 \
  X(kHeartbeatNs, "heartbeat_ns")                       \
  X(kHeartbeatWallNs, "heartbeat_wall_ns")              \
  X(kStartWallNs, "start_wall_ns")                      \
  X(kState, "state")                                    \
  X(kPid, "pid")                                        \
  X(kLanes, "lanes")                                    \
  X(kQueueTexts, "queue_texts")                         \
  X(kQueueTokens, "queue_tokens")                       \
  X(kInFlightTexts, "in_flight_texts")                  \
  X(kModelWidth, "model_width")                         \
  X(kModelTokensMax, "model_tokens_max")                \
  X(kCacheEntries, "cache_entries")                     \
  X(kCacheBytes, "cache_bytes")                         \
  X(kCacheEvictions, "cache_evictions")                 \
  X(kCacheExpirations, "cache_expirations")             \
  X(kWalAppends, "wal_appends")                         \
  X(kWalBytes, "wal_bytes")                             \
  X(kWalSyncs, "wal_syncs")                             \
  X(kWalSegments, "wal_segments")                       \
  X(kWalDroppedInserts, "wal_dropped_inserts")          \
  X(kWalPendingRecords, "wal_pending_records")          \
  X(kWalOldestUnwrittenUs, "wal_oldest_unwritten_us")   \
  X(kWalOldestUnsyncedUs, "wal_oldest_unsynced_us")     \
  X(kRecoveredRecords, "recovered_records")             \
  X(kRecoveredDropped, "recovered_dropped")             \
  X(kQuarantinedSegments, "quarantined_segments")       \
  X(kStorageFailed, "storage_failed")                   \
  X(kWorkers, "workers")

// Log-linear histograms; values in nanoseconds unless the label says otherwise.
#define SUTRA_HISTOGRAMS(X)                             \
  X(kHitTotal, "hit_total_ns")          /* submitted to published, answered by the shard */  \
  X(kMissTotal, "miss_total_ns")        /* submitted to published, computed or joined */     \
  X(kStageTake, "stage_take_ns")        /* submitted to taken */                             \
  X(kStageTokenise, "stage_tokenise_ns") /* taken to tokenised */                            \
  X(kStageQueue, "stage_queue_ns")      /* tokenised to batched */                           \
  X(kStageCompute, "stage_compute_ns")  /* batched to computed */                            \
  X(kStagePublish, "stage_publish_ns")  /* computed to published */                          \
  X(kBatchSizeTexts, "batch_size_texts")                                                     \
  X(kBatchSizeTokens, "batch_size_tokens")

#define SUTRA_ENUM(name, label) name,
enum class Counter : uint32_t { SUTRA_COUNTERS(SUTRA_ENUM) kCount };
enum class Gauge : uint32_t { SUTRA_GAUGES(SUTRA_ENUM) kCount };
enum class Histogram : uint32_t { SUTRA_HISTOGRAMS(SUTRA_ENUM) kCount };
#undef SUTRA_ENUM

// 16 linear steps a power of two: relative error below 1/16; bucket 0..15 are exact.
inline constexpr uint32_t kHistogramSteps = 16;
inline constexpr uint32_t kHistogramBuckets = 16 * 45;  // up to 2^48 (78 h in ns); larger values count in the last

constexpr uint32_t HistogramBucket(uint64_t value) {
  if (value < kHistogramSteps) return static_cast<uint32_t>(value);
  const uint32_t exponent = static_cast<uint32_t>(std::bit_width(value)) - 5;  // value >> exponent is in 16..31
  const uint64_t bucket = uint64_t{exponent + 1} * kHistogramSteps + ((value >> exponent) - kHistogramSteps);
  return bucket < kHistogramBuckets ? static_cast<uint32_t>(bucket) : kHistogramBuckets - 1;
}
// The smallest value of a bucket.
constexpr uint64_t HistogramBucketLow(uint32_t bucket) {
  if (bucket < kHistogramSteps) return bucket;
  return uint64_t{kHistogramSteps + bucket % kHistogramSteps} << (bucket / kHistogramSteps - 1);
}
static_assert(HistogramBucket(15) == 15 && HistogramBucket(16) == 16 && HistogramBucket(31) == 31);
static_assert(HistogramBucket(32) == 32 && HistogramBucketLow(HistogramBucket(1000)) <= 1000);

struct StatsLabel { char text[32]; };

struct StatsHistogram {
  SharedWord<uint64_t> count;
  SharedWord<uint64_t> sum;
  SharedWord<uint64_t> max;
  uint64_t reserved;
  SharedWord<uint64_t> buckets[kHistogramBuckets];
};

// Offsets are from the start of the segment and are checked against its size by observers.
struct StatsHeader {
  SharedWord<uint32_t> version;   // major << 16 | minor, stored last with release; 0 = not ready
  uint32_t header_bytes;
  uint64_t magic;
  uint64_t segment_bytes;
  uint64_t engine_generation;
  uint32_t counters, gauges, histograms, histogram_buckets;
  uint64_t counter_labels_offset, gauge_labels_offset, histogram_labels_offset;
  uint64_t counters_offset, gauges_offset, histograms_offset;
  uint32_t counter_stride_bytes;    // 64: one cache line each
  uint32_t histogram_stride_bytes;
  uint8_t boot_id[16];
  char model[128];
  char identity[72];
  char precision[16];
  char device[16];
  char socket[256];
  char disk_io[16];
  char version_text[32];
};

// The engine's side: plain pointers into the mapped segment, or into private memory when no segment is wanted (tests).
// Cheap to copy; the segment outlives it.
class StatsWriter {
 public:
  StatsWriter() = default;
  StatsWriter(std::byte* counters, std::byte* gauges, StatsHistogram* histograms)
      : counters_(counters), gauges_(gauges), histograms_(histograms) {}

  void Add(Counter counter, uint64_t amount = 1) const {
    Word(counters_, static_cast<uint32_t>(counter)).fetch_add(amount, std::memory_order_relaxed);
  }
  uint64_t Get(Counter counter) const {
    return Word(counters_, static_cast<uint32_t>(counter)).load(std::memory_order_relaxed);
  }
  void Set(Gauge gauge, uint64_t value) const {
    Word(gauges_, static_cast<uint32_t>(gauge)).store(value, std::memory_order_relaxed);
  }
  void Record(Histogram histogram, uint64_t value) const {
    StatsHistogram& h = histograms_[static_cast<uint32_t>(histogram)];
    h.buckets[HistogramBucket(value)].fetch_add(1, std::memory_order_relaxed);
    h.count.fetch_add(1, std::memory_order_relaxed);
    h.sum.fetch_add(value, std::memory_order_relaxed);
    if (value > h.max.load(std::memory_order_relaxed)) h.max.store(value, std::memory_order_relaxed);
  }

 private:
  static SharedWord<uint64_t>& Word(std::byte* base, uint32_t index) {
    return *reinterpret_cast<SharedWord<uint64_t>*>(base + uint64_t{index} * 64);  // one cache line each
  }
  std::byte* counters_ = nullptr;
  std::byte* gauges_ = nullptr;
  StatsHistogram* histograms_ = nullptr;
};

}  // namespace sutra
