#include "shm/stats/histogram.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace sutra {

double HistogramSnapshot::Percentile(double fraction) const {
  uint64_t total = 0;  // of the buckets, not `count`: the words were read at different moments
  for (uint64_t n : buckets) total += n;
  if (total == 0) return 0;
  const double rank = std::max(1.0, std::ceil(fraction * static_cast<double>(total)));
  double seen = 0;
  for (uint32_t i = 0; i < buckets.size(); ++i) {
    const auto n = static_cast<double>(buckets[i]);
    if (n == 0 || seen + n < rank) {
      seen += n;
      continue;
    }
    const auto low = static_cast<double>(HistogramBucketLow(i));
    const auto high = static_cast<double>(HistogramBucketLow(i + 1)) - 1;
    const double value = low + (high - low) * ((rank - seen) / n);
    return max > 0 ? std::min(value, static_cast<double>(max)) : value;
  }
  return static_cast<double>(max);
}

HistogramSnapshot HistogramSnapshot::Since(const HistogramSnapshot& earlier) const {
  // A restarted engine counts from zero again: then everything is new.
  if (earlier.buckets.size() != buckets.size() || earlier.count > count) return *this;
  HistogramSnapshot recent = *this;
  recent.count -= earlier.count;
  recent.sum -= std::min(sum, earlier.sum);
  for (size_t i = 0; i < buckets.size(); ++i) recent.buckets[i] -= std::min(buckets[i], earlier.buckets[i]);
  return recent;
}

}  // namespace sutra
