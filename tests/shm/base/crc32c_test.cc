// CRC-32C against published values, and the instruction path against the table path.
#include "shm/base/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(Crc32c("", 0), 0u);
  EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u);
  const std::vector<unsigned char> zeros(32, 0), ones(32, 0xff);
  EXPECT_EQ(Crc32c(zeros.data(), 32), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(ones.data(), 32), 0x62a8ab43u);
}

TEST(Crc32c, BothPathsAgreeAtEveryLengthAndOffset) {
  std::mt19937_64 random(test::TestSeed(7));
  std::vector<unsigned char> bytes(3000);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random());
  for (size_t size = 0; size < 2400; size += size < 100 ? 1 : 37) {
    for (size_t offset = 0; offset < 9; ++offset) {
      ASSERT_EQ(Crc32c(bytes.data() + offset, size), Crc32cPortable(bytes.data() + offset, size)) << size;
    }
  }
}

TEST(Crc32c, ContinuesOverPieces) {
  const std::vector<unsigned char> bytes(2000, 0x5c);
  const uint32_t whole = Crc32c(bytes.data(), bytes.size());
  for (size_t cut : {0, 1, 7, 8, 767, 768, 1999, 2000}) {
    EXPECT_EQ(Crc32c(bytes.data() + cut, bytes.size() - cut, Crc32c(bytes.data(), cut)), whole);
  }
}

}  // namespace
}  // namespace sutra
