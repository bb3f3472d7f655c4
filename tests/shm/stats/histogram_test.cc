#include "shm/stats/histogram.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(StatsHistogramTest, PercentilesLieWithinASixteenth) {
  HistogramSnapshot histogram;
  histogram.buckets.resize(kHistogramBuckets);
  for (uint64_t value = 1; value <= 100'000; ++value) {
    ++histogram.buckets[HistogramBucket(value)];
    ++histogram.count;
    histogram.max = value;
  }
  for (const double fraction : {0.5, 0.9, 0.99, 0.999}) {
    EXPECT_NEAR(histogram.Percentile(fraction), fraction * 100'000, fraction * 100'000 / 16);
  }
  EXPECT_EQ(histogram.Percentile(1), 100'000);
}

TEST(StatsHistogramTest, SinceSubtractsAndSurvivesARestart) {
  HistogramSnapshot before, now;
  before.buckets = {1, 0};
  before.count = 1;
  now.buckets = {1, 4};
  now.count = 5;
  now.sum = 4;
  EXPECT_EQ(now.Since(before).count, 4u);
  EXPECT_EQ(now.Since(before).buckets[0], 0u);
  EXPECT_EQ(before.Since(now).count, 1u);  // fewer than before: the engine started again
}

TEST(StatsHistogramTest, EmptyHasNoPercentile) { EXPECT_EQ(HistogramSnapshot{}.Percentile(0.5), 0); }

}  // namespace
}  // namespace sutra
