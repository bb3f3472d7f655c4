// The short SHA-256 against libcrypto's, with the processor's instructions and without.
#include "shm/base/sha256_short.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "shm/base/hex.h"
#include "shm/base/sha256.h"
#include "tests/kit/seed.h"

namespace sutra {
namespace {

std::string HexOf(const ShaWords& digest) {
  uint8_t bytes[32];
  std::memcpy(bytes, &digest, sizeof(bytes));
  return ToHex(bytes);
}

void ExpectAgree(const std::string& prefix, const std::string& text) {
  const auto whole = Sha256Hex(prefix + text);
  ASSERT_TRUE(whole.ok());
  ASSERT_EQ(HexOf(ShortSha256(prefix.data(), prefix.size(), text.data(), text.size())), whole.value())
      << prefix.size() << " + " << text.size();
  ASSERT_EQ(HexOf(ShortSha256Portable(prefix.data(), prefix.size(), text.data(), text.size())), whole.value())
      << prefix.size() << " + " << text.size();
}

std::string RandomText(std::mt19937_64* random, size_t bytes) {
  std::string text(bytes, '\0');
  for (char& byte : text) byte = static_cast<char>((*random)());
  return text;
}

TEST(ShortSha256, GivesThePublishedValues) {
  EXPECT_EQ(HexOf(ShortSha256("", 0, "", 0)), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HexOf(ShortSha256("", 0, "abc", 3)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(HexOf(ShortSha256("a", 1, "bc", 2)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ShortSha256, AgreesWithLibcryptoAtEveryLength) {
  std::mt19937_64 random(test::TestSeed(11));
  for (const size_t prefix : {0, 1, 12, 55, 56, 63}) {
    for (size_t bytes = 0; bytes <= 300; ++bytes) {
      ExpectAgree(RandomText(&random, prefix), RandomText(&random, bytes));
    }
  }
}

TEST(ShortSha256, AgreesWithLibcryptoOnRandomTexts) {
  std::mt19937_64 random(test::TestSeed(12));
  for (int i = 0; i < 500; ++i) {
    const size_t prefix = random() % kShaBlockBytes;
    const size_t bytes = random() % 5000;
    ExpectAgree(RandomText(&random, prefix), RandomText(&random, bytes));
  }
}

}  // namespace
}  // namespace sutra
