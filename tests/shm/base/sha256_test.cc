#include "shm/base/sha256.h"

#include <gtest/gtest.h>

#include "shm/base/hex.h"

namespace sutra {
namespace {

// FIPS 180-4 examples.
constexpr char kOfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(Sha256Hex("").value(), kOfNothing);
  EXPECT_EQ(Sha256Hex("abc").value(), kOfAbc);
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  Sha256 hash;
  hash.Add("a");
  hash.Add(std::span<const std::byte>());
  hash.Add("bc");
  const Result<Sha256Digest> digest = hash.Finish();
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(ToHex(*digest), kOfAbc);
}

TEST(Sha256, ASecondFinishFailsInsteadOfAnsweringForNothing) {
  Sha256 hash;
  hash.Add("abc");
  EXPECT_TRUE(hash.FinishHex().ok());
  hash.Add("more");
  EXPECT_EQ(hash.FinishHex().code(), StatusCode::kModelError);
}

}  // namespace
}  // namespace sutra
