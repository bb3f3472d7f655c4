#include "engine/lanes/attach_rate.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

constexpr uint64_t kStart = 1'000 * kNsPerSecond;

TEST(AttachRate, APoolOpensAllItsLanesAtOnceAndTheNextIsToldWhenToCome) {
  AttachRate rate(200);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(rate.Take(1, kStart), 0u) << i;
  EXPECT_EQ(rate.Take(1, kStart), 5u);
  EXPECT_EQ(rate.Take(1, kStart), 5u) << "a refusal costs nothing";
  EXPECT_EQ(rate.Take(1, kStart + 4 * kNsPerMs), 1u);
  EXPECT_EQ(rate.Take(1, kStart + 5 * kNsPerMs), 0u);
  EXPECT_EQ(rate.Take(1, kStart + 5 * kNsPerMs), 5u);
}

TEST(AttachRate, InTheLongRunItIsTheRateHoweverTheTriesAreSpread) {
  AttachRate rate(200);
  int taken = 0;
  for (uint64_t ms = 0; ms < 10'000; ++ms) taken += rate.Take(1, kStart + ms * kNsPerMs) == 0;
  EXPECT_EQ(taken, 64 + 1999);
}

TEST(AttachRate, AmountsAreCountedAsTheyAre) {
  AttachRate rate(1000, 10'000);
  EXPECT_EQ(rate.Take(1, kStart, 9'000), 0u);
  EXPECT_EQ(rate.Take(1, kStart, 3'000), 2'000u) << "the larger one waits";
  EXPECT_EQ(rate.Take(1, kStart, 1'000), 0u) << "the smaller one does not";
  EXPECT_EQ(rate.Take(1, kStart + 3 * kNsPerSecond, 3'000), 0u);
  EXPECT_EQ(rate.Take(1, kStart + 3 * kNsPerSecond, 1), 1u);
  EXPECT_EQ(rate.Take(1, kStart + 60 * kNsPerSecond, 10'000), 0u);
}

TEST(AttachRate, UsersDoNotShareAndAFullBucketIsForgotten) {
  AttachRate rate(200);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(rate.Take(1, kStart), 0u);
  EXPECT_NE(rate.Take(1, kStart), 0u);
  EXPECT_EQ(rate.Take(2, kStart), 0u);
  EXPECT_EQ(rate.users(), 2u);
  EXPECT_EQ(rate.Take(3, kStart + kNsPerSecond), 0u);
  EXPECT_EQ(rate.users(), 1u);
}

}  // namespace
}  // namespace sutra
