// Expired entries leave within the hour, on their own.
#include "cache/store/sweeper.h"

#include <gtest/gtest.h>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra {
namespace {

constexpr uint64_t kMinuteNs = 60'000'000'000;
constexpr uint64_t kHourNs = 60 * kMinuteNs;

class SweeperTest : public testing::Test {
 protected:
  void Fill(uint32_t entries, uint64_t lives_ns) {
    const std::vector<float> vector(test::kWidth, 1.0f);
    const MutexLock lock(table_.mutex());
    for (uint32_t i = 0; i < entries; ++i) {
      const std::string text = std::to_string(lives_ns) + " " + std::to_string(i);
      table_.PutLocked(table_.KeyOf(text, 0), std::as_bytes(std::span(vector)), {}, clock_.BootNs() + lives_ns,
                       clock_.BootNs());
    }
  }

  sim::ManualClock clock_;
  SlotTable table_{SlotTable::Limits{test::kWidth, 10'000, 64 << 20}};
};

TEST_F(SweeperTest, WhatHasExpiredIsGoneWithinTheHourAndNothingElse) {
  Sweeper sweeper(&table_, &clock_, false);
  Fill(3000, kMinuteNs);
  Fill(3000, 3 * kHourNs);
  for (int minute = 0; minute < 59; ++minute) {
    clock_.Advance(kMinuteNs);
    sweeper.RunDue();
  }
  EXPECT_EQ(table_.GetCounts().entries, 3000u);
  EXPECT_EQ(table_.GetCounts().expirations, 3000u);
}

TEST_F(SweeperTest, AShareAtATime) {
  Sweeper sweeper(&table_, &clock_, false);
  Fill(3000, kMinuteNs);
  clock_.Advance(kMinuteNs);
  sweeper.RunDue();
  EXPECT_EQ(table_.GetCounts().expirations, 3000u / Sweeper::kRounds);
  sweeper.RunDue();
  EXPECT_EQ(table_.GetCounts().expirations, 3000u / Sweeper::kRounds) << "once a minute";
  clock_.Advance(24 * kHourNs);
  sweeper.RunDue();
  EXPECT_EQ(table_.GetCounts().entries, 0u) << "after a suspend all at once";
}

TEST_F(SweeperTest, HasAThreadOfItsOwnThatEndsAtOnce) {
  Sweeper sweeper(&table_, &clock_, true);
  Fill(100, kMinuteNs);
  while (table_.GetCounts().entries > 0) {
    clock_.Advance(kMinuteNs);
    std::this_thread::yield();
  }
  sweeper.Close();
  EXPECT_EQ(table_.GetCounts().expirations, 100u);
}

}  // namespace
}  // namespace sutra
