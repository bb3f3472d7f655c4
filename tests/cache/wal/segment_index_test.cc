// The index at a segment's end: it says what the records say, it is believed only where every byte of it is right, and
// without it the records are read.
#include "cache/wal/segment_index.h"

#include <gtest/gtest.h>

#include <cstring>
#include <tuple>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::HandMadeLog;

// What a start hears, whether by index or by record: the same calls with the same values.
class Heard final : public RecoverySink {
 public:
  void Begin(uint64_t hash_seed) override { seed_ = hash_seed; }
  void Insert(const WalRecord& record, uint64_t segment) override {
    Note(IndexEntryOf(record, seed_), segment);
    ++by_record;
  }
  void InsertIndexed(const IndexEntry& entry, uint64_t segment) override { Note(entry, segment); }
  void Clear(uint32_t slot) override { calls.emplace_back("clear", slot, 0, 0); }
  void Erase(const EraseBody& key) override { calls.emplace_back("erase", key.digest_low, key.digest_high, 0); }
  uint64_t DropAll() override {
    calls.emplace_back("drop all", 0, 0, 0);
    return 0;
  }

  std::vector<std::tuple<std::string, uint64_t, uint64_t, uint64_t>> calls;
  int by_record = 0;

 private:
  void Note(const IndexEntry& entry, uint64_t segment) {
    std::string bytes(sizeof(entry), '\0');
    std::memcpy(bytes.data(), &entry, sizeof(entry));
    calls.emplace_back(bytes, entry.slot, entry.place, segment);
  }
  uint64_t seed_ = 0;
};

class SegmentIndexTest : public testing::Test {
 protected:
  // Two segments with every kind of record; the first has an index.
  void MakeTwoSegments(bool index_last = false) {
    HandMadeLog log(&disk_);
    log.Begin(1);
    log.Write({{"a", 1}, {"b", 2}, {"gone", 3}});
    log.Write({{"gone"}, {"a", 4}});
    auto group = std::make_unique<WalGroup>(kWalBlockBytes);
    group->Append(UnplacedRecord::Clear(77));
    group->Append(UnplacedRecord::DropAll());
    group->Close();
    ASSERT_TRUE(log.writer()->Write(group.get(), true, 0).ok());
    log.Write({{std::string(5000, 'c'), 5}});
    ASSERT_TRUE(log.writer()->WriteIndex().ok());
    log.Begin(2);
    log.Write({{"d", 6}});
    if (index_last) {
      ASSERT_TRUE(log.writer()->WriteIndex().ok());
    }
  }
  Result<RecoveryPlan> Recover(Heard* heard, bool every_record = false) {
    RecoveryRequest request;
    request.directory = test::kSmallLogDirectory;
    request.width = test::kWidth;
    request.model = test::Model();
    request.every_record = every_record;
    return RecoverLog(&disk_, request, heard);
  }

  void FlipBit(const std::string& path, uint64_t bit) {
    std::vector<std::byte> bytes = disk_.Bytes(path);
    bytes[bit / 8] ^= std::byte{1} << bit % 8;
    disk_.SetBytes(path, std::move(bytes));
  }

  sim::SimDisk disk_{1};
};

TEST_F(SegmentIndexTest, AStartHearsFromItWhatTheRecordsSay) {
  MakeTwoSegments();
  Heard by_index, by_record;
  const Result<RecoveryPlan> indexed = Recover(&by_index), full = Recover(&by_record, true);
  ASSERT_TRUE(indexed.ok() && full.ok());
  EXPECT_EQ(indexed->indexed, 1u);
  EXPECT_EQ(full->indexed, 0u);
  EXPECT_EQ(by_index.by_record, 1) << "of the last segment";
  EXPECT_EQ(by_record.by_record, 6);
  EXPECT_EQ(by_index.calls, by_record.calls);
  EXPECT_EQ(indexed->valid_through, full->valid_through);
  EXPECT_EQ(indexed->removals, full->removals);
  EXPECT_EQ(indexed->number_next, full->number_next);
  EXPECT_EQ(indexed->wall_highest_ns, full->wall_highest_ns);
  EXPECT_EQ(indexed->clock_set_ns, full->clock_set_ns);
  EXPECT_EQ(indexed->messages.size(), 0u);
}

TEST_F(SegmentIndexTest, AfterACleanStopTheLastSegmentHasOneToo) {
  MakeTwoSegments(true);
  Heard heard, by_record;
  const Result<RecoveryPlan> plan = Recover(&heard), full = Recover(&by_record, true);
  ASSERT_TRUE(plan.ok() && full.ok());
  EXPECT_EQ(plan->indexed, 2u);
  EXPECT_EQ(heard.by_record, 0);
  EXPECT_EQ(heard.calls, by_record.calls);
  EXPECT_EQ(plan->valid_through, full->valid_through);
}

// Whatever bit is flipped, a start hears the same.
TEST_F(SegmentIndexTest, ADamagedOneCostsTimeAndNothingElse) {
  MakeTwoSegments(true);
  Heard expected;
  ASSERT_TRUE(Recover(&expected, true).ok());
  size_t reported = 0, unused = 0;
  for (uint64_t segment = 1; segment <= 2; ++segment) {
    const std::string path = HandMadeLog::PathOf(segment);
    for (uint64_t bit = 8 * (kSegmentBytesMin - kWalBlockBytes); bit < 8 * kSegmentBytesMin; bit += 37) {
      FlipBit(path, bit);
      Heard heard;
      const Result<RecoveryPlan> plan = Recover(&heard);
      FlipBit(path, bit);
      ASSERT_TRUE(plan.ok());
      EXPECT_EQ(heard.calls, expected.calls) << "bit " << bit;
      EXPECT_EQ(plan->damaged_segments, 0u);
      reported += plan->messages.size();
      unused += plan->indexed < 2 ? 1 : 0;
    }
  }
  EXPECT_GT(reported, 10u) << "flips among the entries";
  EXPECT_GT(unused, 0u) << "and in the trailer, which cannot be told from a segment without an index";
}

TEST_F(SegmentIndexTest, OfASegmentThatEndedSoonerThanItsIndexTheRecordsCount) {
  HandMadeLog log(&disk_);
  log.Begin(1);
  log.Write({{"a", 1}});
  log.Write({{"b", 2}}, false);
  const uint64_t counts_through = log.writer()->synced_through();
  ASSERT_TRUE(log.writer()->Sync().ok());
  ASSERT_TRUE(log.writer()->WriteIndex().ok());
  const SegmentId id = log.writer()->id();
  WalWriter other(&disk_, test::kSmallLogDirectory, test::Model(), test::kWidth);
  WalWriter::Begin begin;
  begin.number = 2;
  begin.segment_bytes = kSegmentBytesMin;
  begin.previous_number = 1;
  begin.previous_id = id;
  begin.previous_valid_through = counts_through;
  const std::string reserve = test::kSmallLogDirectory + "/reserve.tmp";
  ASSERT_TRUE(other.BeginSegment(test::ReserveFile(&disk_, reserve), reserve, begin).ok());
  Heard heard;
  const Result<RecoveryPlan> plan = Recover(&heard);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->indexed, 0u);
  EXPECT_EQ(heard.calls.size(), 1u) << "b was given up";
}

// As when the next segment could not be begun at the first try.
TEST_F(SegmentIndexTest, IsWrittenOnce) {
  HandMadeLog log(&disk_);
  log.Begin(1);
  log.Write({{"a", 1}});
  ASSERT_TRUE(log.writer()->WriteIndex().ok());
  EXPECT_EQ(log.writer()->room(), 0u);
  ASSERT_TRUE(log.writer()->WriteIndex().ok());
  Heard heard;
  const Result<RecoveryPlan> plan = Recover(&heard);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->indexed, 1u);
  EXPECT_EQ(heard.calls.size(), 1u);
}

TEST_F(SegmentIndexTest, AnotherSegmentsIndexIsNone) {
  MakeTwoSegments();
  const std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(1));
  const FileHandle file = disk_.Open(HandMadeLog::PathOf(2), OpenMode::kRead).value();
  const uint64_t at = kSegmentBytesMin - kWalBlockBytes;
  ASSERT_TRUE(disk_.Write(file, at, {bytes.data() + at, kWalBlockBytes}, true).ok());
  disk_.Close(file);
  Heard heard;
  const Result<RecoveryPlan> plan = Recover(&heard);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->indexed, 1u);
  EXPECT_EQ(heard.by_record, 1);
}

TEST(SegmentIndexBuilder, GivesUpWhereTheIndexWouldTakeMoreThanHalfOfTheSegment) {
  SegmentHeader header;
  header.segment_bytes = kSegmentBytesMin;
  header.width = test::kWidth;
  SegmentIndexBuilder builder;
  EXPECT_EQ(builder.BytesWith(0), 0u) << "no segment was begun";
  builder.Begin(header);
  EXPECT_EQ(builder.BytesWith(0), kWalBlockBytes);
  EXPECT_EQ(builder.BytesWith(62), kWalBlockBytes) << "62 entries and the trailer";
  EXPECT_EQ(builder.BytesWith(63), 2 * kWalBlockBytes);
  EXPECT_EQ(builder.BytesWith(600), 0u);
  WalGroup group(kSegmentBytesMin);
  for (int i = 0; i < 600; ++i) group.Append(UnplacedRecord::Clear(1));
  group.Close();
  builder.Add(group.bytes(), kSegmentDataStart);
  EXPECT_EQ(builder.BytesWith(0), 0u);
  builder.Begin(header);
  EXPECT_EQ(builder.BytesWith(0), kWalBlockBytes) << "the next segment has one again";
}

}  // namespace
}  // namespace sutra
