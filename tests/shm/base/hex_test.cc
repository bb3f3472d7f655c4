#include "shm/base/hex.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(Hex, BytesBecomeTwoLowerCaseDigitsEach) {
  const uint8_t bytes[] = {0x00, 0x0f, 0xa0, 0xff, 0x12};
  EXPECT_EQ(ToHex(bytes), "000fa0ff12");
  EXPECT_EQ(ToHex({}), "");
}

TEST(Hex, EveryDigitHasItsValueAndNothingElseHasOne) {
  for (int value = 0; value < 16; ++value) EXPECT_EQ(HexDigitValue(kHexDigits[value]), value);
  for (const char c : {'g', 'A', 'F', '/', ':', '`', '\0', ' ', '\xff'}) EXPECT_EQ(HexDigitValue(c), -1) << int{c};
}

}  // namespace
}  // namespace sutra
