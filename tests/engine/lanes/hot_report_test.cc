#include "engine/lanes/hot_report.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sutra {
namespace {

constexpr uint64_t kStart = 1'000'000'000'000;
constexpr auto kRelaxed = std::memory_order_relaxed;

class HotReportTest : public ::testing::Test {
 protected:
  HotReportTest() { report_.Begin(kStart); }
  uint64_t Look(uint64_t said, uint64_t now_ns) {
    line_.hot_hits.store(said, kRelaxed);
    return report_.Look(line_, now_ns).hits;
  }

  ClientLine line_ = {};
  HotReport report_;
};

TEST_F(HotReportTest, WhatIsNewSinceTheLastLookCounts) {
  EXPECT_EQ(Look(0, kStart + kNsPerSecond), 0u);
  EXPECT_EQ(Look(40, kStart + kNsPerSecond), 40u);
  EXPECT_EQ(Look(40, kStart + 2 * kNsPerSecond), 0u);
  EXPECT_EQ(Look(45, kStart + 2 * kNsPerSecond), 5u);
}

TEST_F(HotReportTest, NoMoreIsBelievedThanAProcessCanDoInTheTime) {
  EXPECT_EQ(Look(UINT64_MAX - 1, kStart + kNsPerSecond), HotReport::kHitsPerSecondMax);
  EXPECT_EQ(Look(UINT64_MAX, kStart + 10 * kNsPerSecond), 1u) << "what was too much is lost";
  EXPECT_EQ(Look(UINT64_MAX, kStart + 20 * kNsPerSecond), 0u);
}

TEST_F(HotReportTest, TimeThatStandsStillOrGoesBackBelievesNothing) {
  EXPECT_EQ(Look(1000, kStart), 0u);
  EXPECT_EQ(Look(2000, kStart - kNsPerSecond), 0u);
}

TEST_F(HotReportTest, ACountThatGoesBackCountsNothingUntilItPassesItsHighest) {
  EXPECT_EQ(Look(100, kStart + kNsPerSecond), 100u);
  EXPECT_EQ(Look(0, kStart + 2 * kNsPerSecond), 0u);
  EXPECT_EQ(Look(100, kStart + 3 * kNsPerSecond), 0u);
  EXPECT_EQ(Look(101, kStart + 4 * kNsPerSecond), 1u);
}

TEST_F(HotReportTest, HintsComeWithHits) {
  line_.hot_hints[3].store(77, kRelaxed);
  EXPECT_EQ(report_.Look(line_, kStart + kNsPerSecond).hints[3], 0u) << "nothing was hit";
  line_.hot_hits.store(9, kRelaxed);
  EXPECT_EQ(report_.Look(line_, kStart + kNsPerSecond).hints[3], 77u);
}

}  // namespace
}  // namespace sutra
