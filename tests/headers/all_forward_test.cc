// Every header of the product in one translation unit, in the order of their names. That it compiles is the test: two
// headers that define the same thing, or one that leaves a macro behind, end it.
#include <gtest/gtest.h>

#include "forward.inc"

namespace sutra {
namespace {

TEST(Headers, AllCanBeIncludedTogether) {
  EXPECT_GE(SUTRA_HEADER_COUNT, 100);  // an empty list would prove nothing
  // Of the two headers that once could not: both defined RoundUp.
  EXPECT_EQ(RoundUp(1, kWalBlockBytes), kPageBytes);
}

}  // namespace
}  // namespace sutra
