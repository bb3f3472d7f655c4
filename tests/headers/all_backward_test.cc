// As all_forward_test.cc, in the reverse order: a header that only compiles behind another one is seen here.
#include <gtest/gtest.h>

#include "backward.inc"

namespace sutra {
namespace {

TEST(Headers, AllCanBeIncludedTogetherInReverseOrder) {
  EXPECT_GE(SUTRA_HEADER_COUNT, 100);
  EXPECT_EQ(RoundUp(1, kWalBlockBytes), kPageBytes);
}

}  // namespace
}  // namespace sutra
