// The records that the recycler creates from live entries, and which segment holds each entry afterwards.
#include "cache/recycler.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

constexpr uint64_t kS = 1'000'000'000;
constexpr uint64_t kWall = 1'700'000'000 * kS;

class RecyclerTest : public testing::Test {
 protected:
  void Insert(const std::string& text, uint32_t version, uint64_t segment, uint64_t lives_ns = 100 * kS) {
    const EntryKey key = store_.KeyOf(text, 0);
    const std::vector<float> vector = test::VectorOf(text, version);
    const uint64_t now = clock_.BootNs();
    const MutexLock lock(store_.mutex());
    const SlotTable::Placed placed = store_.PutLocked(key, std::as_bytes(std::span(vector)),
                                                      CacheValue{2.5f, version, version % 2 == 1}, now + lives_ns, now);
    ASSERT_NE(placed.slot, SlotTable::kNoSlot);
    store_.SetSegmentLocked(placed.slot, segment);
  }
  // One group of at most `bytes`, closed and stamped; sets `done`.
  std::unique_ptr<WalGroup> Collect(uint64_t through, uint64_t bytes = 1 << 20) {
    auto group = std::make_unique<WalGroup>(bytes);
    done_ = recycler_.CollectOlder(through, 9, &cursor_, &group);
    return group;
  }
  std::vector<WalRecord> RecordsOf(WalGroup* group) {
    std::vector<WalRecord> records;
    if (group->empty()) return records;
    group->Close();
    RecordStamp stamp;
    group->Stamp(SegmentId{}, kSegmentDataStart, &stamp);
    for (uint64_t at = 0; at < group->bytes().size();) {
      WalRecord record;
      std::memcpy(&record.header, group->bytes().data() + at, sizeof(RecordHeader));
      EXPECT_TRUE(ParseBody(group->bytes().data() + at, test::kWidth, &record));
      if (record.type() == RecordType::kInsert) records.push_back(record);
      at += record.header.length;
    }
    return records;
  }
  std::set<std::string> TextsOf(WalGroup* group) {
    std::set<std::string> texts;
    for (const WalRecord& record : RecordsOf(group)) texts.insert(std::string(record.text));
    return texts;
  }

  sim::ManualClock clock_{kWall};
  SlotTable store_{SlotTable::Limits{test::kWidth, 1000, 8 << 20}};
  WalShared shared_;
  EntryLoader loader_{&store_, nullptr, &clock_, {}, {}, {}};
  Recycler recycler_{&store_, &loader_, &clock_, &shared_, test::kWidth, kSegmentBytesMin};
  LiveEntries::Cursor cursor_ = 0;
  bool done_ = false;
};

TEST_F(RecyclerTest, ARecordSaysWhatTheEntrySaysAndHowLongItStillLives) {
  Insert("text", 7, 1, 100 * kS + 1);
  clock_.Advance(40 * kS);
  const std::unique_ptr<WalGroup> group = Collect(1);
  EXPECT_TRUE(done_);
  EXPECT_EQ(group->first_accepted_ns, clock_.MonotonicNs());
  const std::vector<WalRecord> records = RecordsOf(group.get());
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].text, "text");
  const std::vector<float> vector = test::VectorOf("text", 7);
  EXPECT_EQ(std::memcmp(records[0].vector.data(), vector.data(), records[0].vector.size()), 0);
  const InsertBody& body = records[0].insert;
  EXPECT_EQ(body.wall_expiry_ns, kWall + 100 * kS + 1);
  EXPECT_EQ(body.ttl_s, 61u) << "60 s and a nanosecond, rounded up";
  EXPECT_EQ(body.token_count, 7u);
  EXPECT_EQ(body.norm, 2.5f);
  EXPECT_EQ(body.flags, kInsertTruncated);
  EXPECT_EQ(records[0].header.slot, 0u) << "its own";
}

TEST_F(RecyclerTest, TakesWhatOlderSegmentsHoldAndMovesItToTheNewOne) {
  Insert("one", 1, 1);
  Insert("two", 2, 2);
  Insert("three", 3, 3);
  Insert("memory only", 4, 0);
  EXPECT_EQ(TextsOf(Collect(2).get()), (std::set<std::string>{"one", "two"}));
  EXPECT_TRUE(done_);
  cursor_ = 0;
  EXPECT_TRUE(Collect(2)->empty()) << "the new segment holds them now";
  EXPECT_EQ(recycler_.EvictOlder(3), 1u) << "three";
  EXPECT_EQ(recycler_.EvictOlder(9), 2u);
  EXPECT_EQ(store_.GetCounts().entries, 1u);
}

TEST_F(RecyclerTest, WhatHasExpiredIsNotWrittenAgain) {
  Insert("expired", 1, 1, 10 * kS);
  Insert("alive", 2, 1, 20 * kS);
  clock_.Advance(10 * kS);
  EXPECT_EQ(TextsOf(Collect(1).get()), std::set<std::string>{"alive"});
  EXPECT_EQ(recycler_.EvictOlder(8), 0u) << "no segment holds what has expired";
}

TEST_F(RecyclerTest, AFullGroupEndsThereAndTheNextOneGoesOn) {
  for (int i = 0; i < 50; ++i) Insert(std::to_string(i), 1, 1);
  std::set<std::string> texts;
  int groups = 0;
  do {
    const std::unique_ptr<WalGroup> group = Collect(1, kWalBlockBytes);
    EXPECT_EQ(group->capacity(), kWalBlockBytes);
    EXPECT_FALSE(group->empty());
    texts.merge(TextsOf(group.get()));
    ++groups;
  } while (!done_);
  EXPECT_EQ(groups, 3) << "21 of 192 bytes each";
  EXPECT_EQ(texts.size(), 50u);
}

TEST_F(RecyclerTest, AnEntryLargerThanTheGroupGetsAGroupOfItsSize) {
  Insert(std::string(20'000, 'x'), 1, 1);
  const std::unique_ptr<WalGroup> group = Collect(1, kWalBlockBytes);
  EXPECT_EQ(TextsOf(group.get()).size(), 1u);
  EXPECT_EQ(group->capacity(), RoundUp(20'000 + 168, kWalBlockBytes));
}

// Segments were larger when it was logged.
TEST_F(RecyclerTest, AnEntryLargerThanASegmentStaysInMemoryOnly) {
  const std::string text(kSegmentBytesMin, 'x');
  Insert(text, 1, 1);
  EXPECT_TRUE(Collect(1)->empty());
  EXPECT_TRUE(done_);
  EXPECT_EQ(recycler_.EvictOlder(UINT64_MAX), 0u);
  EXPECT_EQ(store_.GetCounts().entries, 1u);
}

TEST_F(RecyclerTest, HoldByBringsEveryLoggedEntryBack) {
  Insert("one", 1, 1);
  Insert("five", 5, 5);
  Insert("memory only", 2, 0);
  recycler_.HoldBy(2);
  EXPECT_EQ(TextsOf(Collect(2).get()), (std::set<std::string>{"one", "five"}));
}

TEST_F(RecyclerTest, ExpiryIsMeasuredFromTheBelievedTime) {
  shared_.time.Start(clock_, kWall + 500 * kS);
  Insert("t", 2, 1, 100 * kS);
  const std::unique_ptr<WalGroup> group = Collect(1);
  EXPECT_EQ(RecordsOf(group.get())[0].insert.wall_expiry_ns, kWall + 600 * kS);
}

}  // namespace
}  // namespace sutra
