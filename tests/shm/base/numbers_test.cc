#include "shm/base/numbers.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(Numbers, RoundUpGivesTheNextMultiple) {
  EXPECT_EQ(RoundUp(0, 4096), 0u);
  EXPECT_EQ(RoundUp(1, 4096), 4096u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
  EXPECT_EQ(RoundUp(4097, 4096), 8192u);
  EXPECT_EQ(RoundUp(10, 3), 12u);  // not a power of two
  EXPECT_EQ(RoundUp(UINT64_MAX - 4095, 4096), UINT64_MAX - 4095);
}

TEST(Numbers, DivideRoundUpCountsTheStartedUnits) {
  EXPECT_EQ(DivideRoundUp(0, 7), 0u);
  EXPECT_EQ(DivideRoundUp(1, 7), 1u);
  EXPECT_EQ(DivideRoundUp(7, 7), 1u);
  EXPECT_EQ(DivideRoundUp(8, 7), 2u);
}

}  // namespace
}  // namespace sutra
