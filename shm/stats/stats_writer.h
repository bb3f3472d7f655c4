// How the engine counts: cheap enough for every request.
//
// Thread rule: any engine thread may count; each counts in a bank of its own (stats_bank.h), with a load and a store
// where a common word would need a locked addition. A gauge has one writer at a time. Observers only read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/base/numbers.h"
#include "shm/stats/histogram.h"
#include "shm/stats/labels.h"
#include "shm/stats/stats_bank.h"
#include "shm/stats/stats_layout.h"

namespace sutra {

// Two lines, which are fetched in pairs, never hold words of two banks.
inline constexpr uint64_t kStatsCounterBankBytes =
    RoundUp(uint64_t{static_cast<uint32_t>(Counter::kCount)} * kStatsWordStride, 128);
inline constexpr uint64_t kStatsHistogramBankBytes =
    RoundUp(uint64_t{static_cast<uint32_t>(Histogram::kCount)} * sizeof(StatsHistogram), 128);

// The engine's side: plain pointers into the mapped segment, or into private memory when no segment is wanted (tests).
// Cheap to copy; the segment outlives it.
class StatsWriter {
 public:
  StatsWriter() = default;
  StatsWriter(std::byte* counters, std::byte* gauges, std::byte* histograms)
      : counters_(counters), gauges_(gauges), histograms_(histograms) {}

  void Add(Counter counter, uint64_t amount = 1) const {
    const uint32_t bank = StatsBankOfThread();
    AddTo(&CounterWord(bank, counter), amount, bank);
  }
  // Of all threads.
  uint64_t Get(Counter counter) const {
    uint64_t sum = 0;
    // relaxed: counts publish nothing
    for (uint32_t bank = 0; bank < kStatsBanks; ++bank) {
      sum += CounterWord(bank, counter).load(std::memory_order_relaxed);
    }
    return sum;
  }
  void Set(Gauge gauge, uint64_t value) const { GaugeWord(gauge).store(value, std::memory_order_relaxed); }
  uint64_t Get(Gauge gauge) const { return GaugeWord(gauge).load(std::memory_order_relaxed); }
  void Record(Histogram histogram, uint64_t value) const {
    const uint32_t bank = StatsBankOfThread();
    StatsHistogram& h = reinterpret_cast<StatsHistogram*>(
        histograms_ + bank * kStatsHistogramBankBytes)[static_cast<uint32_t>(histogram)];
    AddTo(&h.buckets[HistogramBucket(value)], 1, bank);
    AddTo(&h.count, 1, bank);
    AddTo(&h.sum, value, bank);
    if (value > h.max.load(std::memory_order_relaxed)) h.max.store(value, std::memory_order_relaxed);
  }
  // How long a stage took; 0 where two threads' clocks differ by more than it took.
  void RecordSpan(Histogram histogram, uint64_t from_ns, uint64_t to_ns) const {
    Record(histogram, to_ns > from_ns ? to_ns - from_ns : 0);
  }

 private:
  using Word = SharedWord<uint64_t>;

  // relaxed: only counts, publishes nothing. Only this thread writes to its bank, so nothing is lost between load and
  // store.
  static void AddTo(Word* word, uint64_t amount, uint32_t bank) {
    if (bank == kStatsBankShared) {
      word->fetch_add(amount, std::memory_order_relaxed);
    } else {
      word->store(word->load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
    }
  }
  Word& CounterWord(uint32_t bank, Counter counter) const {
    return reinterpret_cast<Word*>(counters_ + bank * kStatsCounterBankBytes)[static_cast<uint32_t>(counter)];
  }
  Word& GaugeWord(Gauge gauge) const { return reinterpret_cast<Word*>(gauges_)[static_cast<uint32_t>(gauge)]; }

  std::byte* counters_ = nullptr;  // kStatsBanks of kStatsCounterBankBytes
  std::byte* gauges_ = nullptr;
  std::byte* histograms_ = nullptr;  // kStatsBanks of kStatsHistogramBankBytes
};
static_assert(kStatsWordStride == sizeof(SharedWord<uint64_t>));

}  // namespace sutra
