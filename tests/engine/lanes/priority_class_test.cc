#include "engine/lanes/priority_class.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(PriorityClass, EachPriorityOfTheWireHasItsClassAndNothingElseHas) {
  EXPECT_EQ(ClassOfWire(kPriorityQuery), kClassQuery);
  EXPECT_EQ(ClassOfWire(kPriorityNormal), kClassNormal);
  EXPECT_EQ(ClassOfWire(kPriorityBulk), kClassBulk);
  for (const uint64_t other : {uint64_t{3}, uint64_t{1} << 32, ~uint64_t{0}}) {
    EXPECT_EQ(ClassOfWire(other), std::nullopt) << other;
  }
}

TEST(PriorityClass, QueriesAreServedFirstAndBulkLast) {
  EXPECT_LT(kClassQuery, kClassNormal);
  EXPECT_LT(kClassNormal, kClassBulk);
}

}  // namespace
}  // namespace sutra
