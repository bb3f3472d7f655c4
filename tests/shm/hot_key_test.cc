// Keys of the hot table: placement as the cache's own, and a digest of everything that tells two keys apart.
#include "shm/hot_key.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "cache/key_digest.h"
#include "shm/base/sha256.h"

namespace sutra {
namespace {

TEST(HotKey, IsPlacedByXxh3UnderTheSeed) {
  const std::string text = "a text of some length, of more than a few bytes";
  for (const uint32_t variant : {0u, 1u, 77u}) {
    HotKey key(text, variant, 0x1234567890abcdef);
    const KeyDigest hash = DigestOf(text, variant, 0x1234567890abcdef);
    EXPECT_EQ(key.tag(), static_cast<uint32_t>(hash.high >> 32));
    EXPECT_EQ(key.bucket(1), 0u);
    EXPECT_EQ(key.bucket(1u << 16), static_cast<uint32_t>(hash.low >> 48));
  }
}

TEST(HotKey, BucketsAreInRange) {
  std::set<uint32_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = std::to_string(i);
    const HotKey key(text, 0, 1);
    ASSERT_LT(key.bucket(7), 7u);
    seen.insert(key.bucket(7));
  }
  EXPECT_EQ(seen.size(), 7u);
}

TEST(HotKey, DigestIsTheSha256OfSeedVariantAndText) {
  const std::string text = "one more text";
  HotKey key(text, 5, 0x0102030405060708);
  std::string input("\x08\x07\x06\x05\x04\x03\x02\x01\x05\0\0\0", 12);
  Sha256 hash;
  hash.Add(input + text);
  const auto digest = hash.Finish();
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(std::memcmp(digest.value().data(), key.digest().words, 32), 0);
}

TEST(HotKey, TextsVariantsAndSeedsAreToldApart) {
  std::set<std::vector<uint64_t>> seen;
  const std::string texts[] = {"", std::string(1, '\0'), std::string(2, '\0'), "a", std::string("a\0", 2), "ab"};
  for (const std::string& text : texts) {
    for (const uint32_t variant : {0u, 1u, 97u}) {
      for (const uint64_t seed : {uint64_t{0}, uint64_t{97}, uint64_t{97} << 32}) {
        HotKey key(text, variant, seed);
        const uint64_t* const words = key.digest().words;
        EXPECT_TRUE(seen.insert({words, words + 4}).second);
      }
    }
  }
}

}  // namespace
}  // namespace sutra
