// Log-linear histograms: the bucket of a value, and how to read a copy. Stateless and plain data.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace sutra {

// 16 linear steps per power of two: relative error below 1/16; buckets 0..15 are exact.
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

struct HistogramSnapshot {
  uint64_t count = 0, sum = 0, max = 0;
  std::vector<uint64_t> buckets;

  // The value below which `fraction` of the recorded values lie, to the histogram's 1/16; 0 if nothing was recorded.
  double Percentile(double fraction) const;
  double Mean() const { return count == 0 ? 0.0 : static_cast<double>(sum) / static_cast<double>(count); }
  // What was recorded since `earlier` (a snapshot of the same histogram); max stays the overall one.
  HistogramSnapshot Since(const HistogramSnapshot& earlier) const;
};

}  // namespace sutra
