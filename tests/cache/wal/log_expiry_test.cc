// When the entries of a segment expire: records of all kinds, other formats, headers that do not fit.
// (tests/cache/identity_survey_test.cc compares whole logs with what recovery brings back.)
#include "cache/wal/log_expiry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "cache/cache_shard.h"
#include "tests/cache/cache_test_support.h"
#include "tests/cache/wal/without_index.h"
#include "tests/sim/manual_clock.h"
#include "tests/sim/sim_disk.h"

namespace sutra {
namespace {

constexpr uint64_t kHourNs = 3600 * kNsPerSecond;
const std::string kPath = "/data/" + test::kShardName;

class LogExpiryTest : public ::testing::Test {
 protected:
  // Fills one segment with what `work` does to a shard. RETURNS its number.
  template <typename Work>
  uint64_t Write(Work work) {
    const std::unique_ptr<CacheShard> shard = CacheShard::Open(test::SmallConfig("/data"), &disk_, &clock_).value();
    work(shard.get());
    EXPECT_TRUE(shard->Sync().ok());
    shard->Close();
    uint64_t newest = 0;
    const std::vector<std::string> names = disk_.List(kPath).value();
    for (const std::string& name : names) newest = std::max(newest, SegmentNumber(name));
    return newest;
  }
  LogExpiry Read(uint64_t number) {
    SegmentExpectation expected{.number = number, .width = test::kWidth};
    EXPECT_TRUE(ParseIdentity(test::kIdentity, &expected.model));
    return Read(number, expected);
  }
  LogExpiry Read(uint64_t number, const SegmentExpectation& expected) {
    LogExpiry expiry;
    AddSegmentExpiry(&disk_, kPath + "/" + SegmentName(number), expected, &expiry);
    return expiry;
  }

  sim::SimDisk disk_;
  sim::ManualClock clock_;
};

TEST_F(LogExpiryTest, IsThatOfTheLastOfItsInserts) {
  const uint64_t start_ns = clock_.WallNs();
  const uint64_t number = Write([&](CacheShard* shard) {
    test::Put(shard, "a", 1, 7200);
    EXPECT_TRUE(shard->Sync().ok());
    clock_.Advance(kHourNs / 2);
    test::Put(shard, "b", 1, 60);
    EXPECT_TRUE(shard->Sync().ok());
    EXPECT_TRUE(shard->Erase("b", 0).ok());
  });
  const LogExpiry expiry = Read(number);
  EXPECT_TRUE(expiry.known);
  EXPECT_EQ(expiry.records, 2u);
  EXPECT_EQ(expiry.record_newest_ns, start_ns + kHourNs / 2);
  EXPECT_EQ(expiry.expiry_newest_ns, start_ns + 2 * kHourNs);
}

TEST_F(LogExpiryTest, ASegmentWithoutRecordsHasNone) {
  const LogExpiry expiry = Read(Write([](CacheShard*) {}));
  EXPECT_TRUE(expiry.known);
  EXPECT_EQ(expiry.records, 0u);
}

TEST_F(LogExpiryTest, AddsToWhatIsThere) {
  const uint64_t number = Write([](CacheShard* shard) { test::Put(shard, "a", 1, 60); });
  SegmentExpectation expected{.number = number, .width = test::kWidth};
  ASSERT_TRUE(ParseIdentity(test::kIdentity, &expected.model));
  LogExpiry expiry{.records = 10, .expiry_newest_ns = UINT64_MAX};
  AddSegmentExpiry(&disk_, kPath + "/" + SegmentName(number), expected, &expiry);
  EXPECT_EQ(expiry.records, 11u);
  EXPECT_EQ(expiry.expiry_newest_ns, UINT64_MAX);
}

TEST_F(LogExpiryTest, IsUnknownForAnotherModelsSegmentAMissingOneAndADamagedHeader) {
  const uint64_t number = Write([](CacheShard* shard) { test::Put(shard, "a", 1, 60); });
  EXPECT_TRUE(Read(number).known);
  EXPECT_FALSE(Read(number, {.number = number, .width = test::kWidth}).known);
  EXPECT_FALSE(Read(number + 1).known);
  std::vector<std::byte> bytes = disk_.Bytes(kPath + "/" + SegmentName(number));
  std::fill_n(bytes.begin(), kSegmentDataStart, std::byte{0});
  disk_.SetBytes(kPath + "/" + SegmentName(number), bytes);
  EXPECT_FALSE(Read(number).known) << "zeros in the header alone are rot";
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  disk_.SetBytes(kPath + "/" + SegmentName(number), bytes);
  EXPECT_TRUE(Read(number).known) << "nothing but zeros was never begun";
}

TEST_F(LogExpiryTest, IsUnknownBeforeTheClockWasSet) {
  clock_.SetWall(1000 * kNsPerSecond);
  const LogExpiry expiry = Read(Write([](CacheShard* shard) { test::Put(shard, "a", 1, 60); }));
  EXPECT_EQ(expiry.records, 1u);
  EXPECT_FALSE(expiry.known);
}

TEST_F(LogExpiryTest, ABlockThatCannotBeReadMakesItUnknown) {
  const uint64_t number = Write([](CacheShard* shard) {
    for (int i = 0; i < 100; ++i) test::Put(shard, std::to_string(i), 1, 60);
  });
  const std::string path = kPath + "/" + SegmentName(number);
  std::vector<std::byte> bytes = disk_.Bytes(path);
  test::ZeroIndex(&bytes);
  disk_.SetBytes(path, std::move(bytes));
  ASSERT_TRUE(Read(number).known);
  disk_.SpoilBlock(path, kSegmentDataStart + 2 * kWalBlockBytes);
  EXPECT_FALSE(Read(number).known);
}

}  // namespace
}  // namespace sutra
