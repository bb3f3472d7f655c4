// The bytes of the stats segment. The segment describes itself: an observer takes names and sizes from the label tables
// in it, never from its own build, and bounds them by the segment's size (fstat).
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/shared_word.h"
#include "shm/stats/histogram.h"

namespace sutra {

inline constexpr uint64_t kStatsMagic = 0x5354415453545553;  // "SUTSTATS"
inline constexpr uint16_t kStatsMajor = 2;                   // 2: counters and histograms are sums over banks
inline constexpr uint16_t kStatsMinor = 0;

inline constexpr uint32_t kStatsWordStride = 8;  // of counters and gauges: one thread writes to a bank

struct StatsLabel {
  char text[32];
};
static_assert(sizeof(StatsLabel) == 32);

struct StatsHistogram {
  SharedWord<uint64_t> count;
  SharedWord<uint64_t> sum;
  SharedWord<uint64_t> max;
  uint64_t reserved;
  SharedWord<uint64_t> buckets[kHistogramBuckets];
};
static_assert(sizeof(StatsHistogram) == 5792 && offsetof(StatsHistogram, buckets) == 32);

// Offsets are from the start of the segment and are checked against its size by observers.
struct StatsHeader {
  SharedWord<uint32_t> version;  // major << 16 | minor, stored last with release; 0 = not ready
  uint32_t header_bytes;
  uint64_t magic;
  uint64_t segment_bytes;
  uint64_t engine_generation;
  uint32_t counters, gauges, histograms, histogram_buckets;
  uint64_t counter_labels_offset, gauge_labels_offset, histogram_labels_offset;
  uint64_t counters_offset, gauges_offset, histograms_offset;
  uint32_t counter_stride_bytes;
  uint32_t histogram_stride_bytes;
  uint8_t boot_id[16];
  char model[128];
  char identity[72];
  char precision[16];
  char device[16];
  char socket[256];
  char disk_io[16];
  char version_text[32];
  // Each thread that counts has a bank of counters and one of histograms (stats_bank.h); a figure is the sum over them.
  uint32_t banks;
  uint32_t reserved;
  uint64_t counter_bank_bytes, histogram_bank_bytes;  // from one bank to the next
};
static_assert(sizeof(StatsHeader) == 680 && offsetof(StatsHeader, banks) == 656 && offsetof(StatsHeader, magic) == 8 &&
              offsetof(StatsHeader, counters) == 32 && offsetof(StatsHeader, counters_offset) == 72 &&
              offsetof(StatsHeader, boot_id) == 104 && offsetof(StatsHeader, version_text) == 624);

}  // namespace sutra
