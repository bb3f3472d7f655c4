// What is remembered, what is forgotten first, and how many at most.
#include "cache/store/ghost_table.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

// One whose set is the first of one and whose fingerprint is this.
uint64_t HashWith(uint16_t fingerprint) { return fingerprint; }

TEST(GhostTable, RemembersAKeyUntilItIsTaken) {
  GhostTable none(0);
  none.Add(HashWith(7), 32);
  EXPECT_FALSE(none.Take(HashWith(7))) << "without room nothing is remembered";
  GhostTable ghosts(32);
  ghosts.Add(HashWith(7), 32);
  EXPECT_FALSE(ghosts.Take(HashWith(8)));
  EXPECT_TRUE(ghosts.Take(HashWith(7)));
  EXPECT_FALSE(ghosts.Take(HashWith(7)));
}

TEST(GhostTable, AFullSetForgetsItsOldest) {
  GhostTable ghosts(1);
  EXPECT_EQ(ghosts.keys_max(), GhostTable::kSetKeys);
  for (uint16_t key = 1; key <= 33; ++key) ghosts.Add(HashWith(key), 32);
  EXPECT_FALSE(ghosts.Take(HashWith(1)));
  EXPECT_TRUE(ghosts.Take(HashWith(5)));
  ghosts.Add(HashWith(34), 32);
  ghosts.Add(HashWith(35), 32);
  EXPECT_FALSE(ghosts.Take(HashWith(2)));
  for (uint16_t key = 3; key <= 35; ++key) EXPECT_EQ(ghosts.Take(HashWith(key)), key != 5) << key;
}

TEST(GhostTable, RemembersNoMoreThanItIsToldTo) {
  GhostTable ghosts(32);
  for (uint16_t key = 1; key <= 32; ++key) ghosts.Add(HashWith(key), 32);
  ghosts.Add(HashWith(33), 4);
  for (uint16_t key = 1; key <= 33; ++key) EXPECT_EQ(ghosts.Take(HashWith(key)), key >= 30) << key;
}

TEST(GhostTable, AHashWithoutLowerBitsIsRememberedToo) {
  GhostTable ghosts(32);
  EXPECT_FALSE(ghosts.Take(0)) << "an empty place is nobody's";
  ghosts.Add(0, 32);
  EXPECT_TRUE(ghosts.Take(0));
}

// Of the last n keys in a table for n, most are there; of those before, few; of strangers, hardly any.
TEST(GhostTable, RemembersAboutTheLastOfManyKeys) {
  constexpr uint64_t kKeys = 10'000;
  std::mt19937_64 random(test::TestSeed(5));
  std::vector<uint64_t> hashes(3 * kKeys);
  for (uint64_t& hash : hashes) hash = random();
  GhostTable ghosts(kKeys);
  for (const uint64_t hash : hashes) ghosts.Add(hash, kKeys);
  const auto taken = [&](uint64_t first, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = first; i < first + count; ++i) sum += ghosts.Take(hashes[i]);
    return sum;
  };
  EXPECT_LT(taken(0, kKeys), kKeys / 100);
  EXPECT_GT(taken(3 * kKeys - kKeys / 2, kKeys / 2), kKeys / 2 * 99 / 100);
  EXPECT_GT(taken(2 * kKeys, kKeys / 2), kKeys / 2 * 6 / 10);
  uint64_t strangers = 0;
  for (uint64_t i = 0; i < 100'000; ++i) strangers += ghosts.Take(random());
  EXPECT_LT(strangers, 100u) << "32 of 65,536 at most";
}

}  // namespace
}  // namespace sutra
