// How the engine counts: cheap enough for every request.
//
// Thread rule: every counter may be added to from any engine thread (relaxed fetch_add: only counts, publishes
// nothing); a gauge and a histogram have one writer at a time. Observers only read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/stats/histogram.h"
#include "shm/stats/labels.h"
#include "shm/stats/stats_layout.h"

namespace sutra {

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
  uint64_t Get(Gauge gauge) const {
    return Word(gauges_, static_cast<uint32_t>(gauge)).load(std::memory_order_relaxed);
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
    return *reinterpret_cast<SharedWord<uint64_t>*>(base + uint64_t{index} * kStatsWordStride);
  }
  std::byte* counters_ = nullptr;
  std::byte* gauges_ = nullptr;
  StatsHistogram* histograms_ = nullptr;
};

}  // namespace sutra
