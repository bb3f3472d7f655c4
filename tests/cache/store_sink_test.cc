// The remaining lifetime of a recovered entry: the shorter of its TTL and the time left until its expiry, measured from
// the later of the clock and what was believed.
#include "cache/store_sink.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra {
namespace {

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kWall = 1'700'000'000 * kS;

class StoreSinkTest : public testing::Test {
 protected:
  void Insert(const std::string& text, uint32_t version, uint64_t wall_expiry_ns, uint64_t ttl_s,
              uint64_t wall_highest_ns = 0, uint64_t segment = 1, uint32_t slot = SlotTable::kNoSlot) {
    const std::vector<float> vector = test::VectorOf(text, version);
    WalRecord record;
    record.header.type = static_cast<uint8_t>(RecordType::kInsert);
    record.header.wall_highest_ns = wall_highest_ns;
    record.insert.wall_expiry_ns = wall_expiry_ns;
    record.insert.ttl_s = static_cast<uint32_t>(ttl_s);
    record.insert.token_count = version;
    record.insert.norm = static_cast<float>(version);
    record.header.slot = slot != SlotTable::kNoSlot ? slot : next_slot_++;
    record.text = text;
    record.vector = std::as_bytes(std::span<const float>(vector));
    record.insert.text_bytes = static_cast<uint32_t>(text.size());
    sink().Insert(record, segment);
    const MutexLock lock(store_.mutex());
    if (!store_.UnreadPlaceLocked(record.header.slot).has_value()) return;
    EXPECT_TRUE(store_.FillLocked(record.header.slot, store_.KeyOf(text, 0), record.vector, 1, nullptr));
  }
  void Erase(const std::string& text) {
    const KeyDigest digest = store_.KeyOf(text, 0).digest;
    sink().Erase({digest.low, digest.high, 0});
  }
  int Find(const std::string& text) {
    std::vector<float> vector(test::kWidth);
    CacheValue value;
    if (!store_.Lookup(store_.KeyOf(text, 0), clock_.BootNs(), vector.data(), &value)) return -1;
    return vector == test::VectorOf(text, value.token_count) ? static_cast<int>(value.token_count) : -2;
  }
  // Seconds until the text is gone, in steps of one.
  uint64_t LivesFor(const std::string& text, uint64_t limit_s = 2000) {
    for (uint64_t s = 0; s < limit_s; ++s) {
      if (Find(text) == -1) return s;
      clock_.Advance(kS);
    }
    return limit_s;
  }
  StoreSink& sink() {
    if (sink_ == nullptr) {
      sink_ = std::make_unique<StoreSink>(&store_, &clock_, now_ns_);
      if (store_.GetCounts().entries == 0) sink_->Begin(store_.seed());
    }
    return *sink_;
  }

  sim::ManualClock clock_{kWall};
  SlotTable store_{SlotTable::Limits{test::kWidth, 1000, 1 << 20}};
  uint64_t now_ns_ = kWall;
  uint32_t next_slot_ = 0;
  std::unique_ptr<StoreSink> sink_;
};

TEST_F(StoreSinkTest, AnEntryLivesUntilItsExpiry) {
  Insert("t", 7, kWall + 60 * kS, 100);
  EXPECT_EQ(Find("t"), 7);
  EXPECT_EQ(LivesFor("t"), 60u);
}

// An insert that claims a time still to come was made while the clock was ahead and not believed: it counts from what
// was believed then, which its stamp says, and so ends no later at a second restart than at the first.
TEST_F(StoreSinkTest, AnInsertFromTheFutureCountsFromWhatWasBelieved) {
  Insert("strange", 9, kWall + 10'000 * kS, 50, kWall + 5'000 * kS);
  EXPECT_EQ(LivesFor("strange"), 50u) << "never more than its TTL";
  sink_.reset();
  now_ns_ += 50 * kS;
  Insert("t", 7, kWall + 10'000 * kS, 100, now_ns_ - 30 * kS);
  EXPECT_EQ(LivesFor("t"), 70u);
  Insert("old", 8, kWall + 10'000 * kS, 100, now_ns_ - 100 * kS);
  EXPECT_EQ(Find("old"), -1);
}

TEST_F(StoreSinkTest, NothingLivesLongerThanTheLongestLifetime) {
  Insert("t", 7, UINT64_MAX, UINT32_MAX, kWall);
  clock_.Advance(kTtlSecondsMax * kS - 1);
  EXPECT_EQ(Find("t"), 7);
  clock_.Advance(1);
  EXPECT_EQ(Find("t"), -1);
}

TEST_F(StoreSinkTest, AnExpiredInsertHidesTheOlderOneOfItsText) {
  Insert("t", 1, kWall + 100 * kS, 100);
  Insert("t", 2, kWall, 100);
  EXPECT_EQ(Find("t"), -1);
  EXPECT_EQ(store_.GetCounts().entries, 0u);
}

TEST_F(StoreSinkTest, ARemovalRemovesAndDropAllDropsAll) {
  Insert("a", 1, kWall + 100 * kS, 100);
  Insert("b", 2, kWall + 100 * kS, 100);
  Erase("a");
  Erase("never there");
  EXPECT_EQ(Find("a"), -1);
  EXPECT_EQ(Find("b"), 2);
  EXPECT_EQ(sink().DropAll(), 1u);
  EXPECT_EQ(Find("b"), -1);
}

TEST_F(StoreSinkTest, AnInsertTakesItsSlotFromWhoeverWasThereEvenIfItHasExpired) {
  Insert("a", 1, kWall + 100 * kS, 100, 0, 1, 5);
  Insert("b", 2, kWall, 100, 0, 1, 5);
  EXPECT_EQ(Find("a"), -1);
  EXPECT_EQ(Find("b"), -1);
  Insert("c", 3, kWall + 100 * kS, 100, 0, 1, 5);
  EXPECT_EQ(Find("c"), 3);
  sink().Clear(5);
  EXPECT_EQ(Find("c"), -1);
  Insert("d", 4, kWall + 100 * kS, 100, 0, 1, 1000);
  EXPECT_EQ(Find("d"), -1);
  EXPECT_EQ(sink().beyond_bounds(), 1u);
}

// One record with a strange stamp among them changes nothing for the others.
TEST_F(StoreSinkTest, EveryEntryIsJudgedFromTheSameTime) {
  now_ns_ = kWall + 40 * kS;
  Insert("before", 1, kWall + 100 * kS, 100);
  Insert("strange", 2, kWall + 60 * kS, 100, kWall + 5'000 * kS);
  Insert("behind", 3, kWall + 100 * kS, 100);
  EXPECT_EQ(LivesFor("strange"), 20u);
  EXPECT_EQ(LivesFor("before"), 40u);
  EXPECT_EQ(Find("behind"), -1);
}

TEST_F(StoreSinkTest, RemembersTheSegmentThatHoldsTheEntry) {
  Insert("old", 1, kWall + 100 * kS, 100, 0, 3);
  Insert("new", 2, kWall + 100 * kS, 100, 0, 4);
  EXPECT_EQ(store_.EvictOlder(3), 1u);
  EXPECT_EQ(Find("old"), -1);
  EXPECT_EQ(Find("new"), 2);
}

}  // namespace
}  // namespace sutra
