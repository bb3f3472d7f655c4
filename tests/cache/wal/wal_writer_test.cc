// What the writer leaves on the disk, block by block, and what it refuses to do after a failure.
#include "cache/wal/wal_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::GroupOf;
using test::HandMadeLog;

const std::string kReserve = test::kSmallLogDirectory + "/reserve.tmp";
const std::string kSegmentTwo = HandMadeLog::PathOf(2);

// Segment 2, behind sequence 7 of segment 1.
WalWriter::Begin SecondSegment() {
  WalWriter::Begin begin;
  begin.number = 2;
  begin.segment_bytes = kSegmentBytesMin;
  begin.previous_number = 1;
  begin.previous_id.fill(0x5b);
  begin.previous_valid_through = 7;
  begin.wall_highest_ns = 99;
  return begin;
}

struct Writing {
  explicit Writing(uint64_t seed = 1)
      : disk(seed), writer(&disk, test::kSmallLogDirectory, test::Model(), test::kWidth) {
    EXPECT_TRUE(disk.MakeDirectory(test::kSmallLogDirectory).ok());
  }
  Status Begin() { return writer.BeginSegment(test::ReserveFile(&disk, kReserve), kReserve, SecondSegment()); }
  Status Write(const std::vector<test::Change>& changes, bool then_sync) {
    return writer.Write(GroupOf(changes).get(), then_sync, 1234);
  }

  sim::SimDisk disk;
  WalWriter writer;
};

RecordHeader HeaderAt(const std::vector<std::byte>& bytes, uint64_t at) {
  RecordHeader header;
  std::memcpy(&header, bytes.data() + at, sizeof(header));
  return header;
}

bool ZeroFrom(const std::vector<std::byte>& bytes, uint64_t from) {
  return std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(from), bytes.end(),
                     [](std::byte b) { return b == std::byte{0}; });
}

TEST(WalWriter, TheHeaderStandsTwiceAndIsDurableUnderItsNameBeforeTheFirstRecord) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Writing log(seed);
    ASSERT_TRUE(log.Begin().ok());
    const SegmentId id = log.writer.id();
    log.disk.PowerCut();
    ASSERT_EQ(log.disk.Paths(), std::vector<std::string>{kSegmentTwo});
    const std::vector<std::byte> bytes = log.disk.Bytes(kSegmentTwo);
    ASSERT_EQ(bytes.size(), kSegmentBytesMin);
    EXPECT_EQ(std::memcmp(bytes.data(), bytes.data() + kWalBlockBytes, kWalBlockBytes), 0);
    EXPECT_TRUE(ZeroFrom(bytes, kSegmentDataStart));
    SegmentHeader header;
    ASSERT_EQ(ParseSegmentHeader({bytes.data(), kSegmentDataStart}, {2, test::Model(), test::kWidth}, &header),
              HeaderState::kGood);
    EXPECT_EQ(header.id, id);
    EXPECT_EQ(header.segment_bytes, kSegmentBytesMin);
    EXPECT_EQ(header.previous_number, 1u);
    EXPECT_EQ(header.previous_id, SecondSegment().previous_id);
    EXPECT_EQ(header.previous_valid_through, 7u);
    EXPECT_EQ(header.wall_highest_ns, 99u);
  }
}

TEST(WalWriter, GroupsStandBlockByBlockAndTheirRecordsAreNumberedWithoutAGap) {
  Writing log;
  ASSERT_TRUE(log.Begin().ok());
  EXPECT_EQ(log.writer.written_through(), 7u);
  ASSERT_TRUE(log.Write({{"a", 1}, {"b", 2}, {"a"}}, false).ok());
  EXPECT_EQ(log.writer.written_through(), 11u);
  EXPECT_EQ(log.writer.synced_through(), 7u);
  ASSERT_TRUE(log.Write({{"c", 3}}, true).ok());
  EXPECT_EQ(log.writer.synced_through(), 13u);
  ASSERT_TRUE(log.Write({{std::string(5000, 'd'), 4}}, false).ok());
  EXPECT_EQ(log.writer.written_through(), 15u);

  struct Row {
    uint64_t offset, length;
    RecordType type;
    uint64_t sequence, acked_through;
  };
  const uint64_t block = kWalBlockBytes, start = kSegmentDataStart;
  const Row rows[] = {
      {start, 192, RecordType::kInsert, 8, 7},
      {start + 192, 192, RecordType::kInsert, 9, 7},
      {start + 384, 128, RecordType::kErase, 10, 7},
      {start + 512, block - 512, RecordType::kWatermark, 11, 7},
      {start + block, 192, RecordType::kInsert, 12, 7},
      {start + block + 192, block - 192, RecordType::kWatermark, 13, 7},
      {start + 2 * block, 5184, RecordType::kInsert, 14, 13},
      {start + 2 * block + 5184, 2 * block - 5184, RecordType::kWatermark, 15, 13},
  };
  const std::vector<std::byte> bytes = log.disk.Bytes(kSegmentTwo);
  for (const Row& row : rows) {
    const RecordHeader header = HeaderAt(bytes, row.offset);
    EXPECT_EQ(header.length, row.length) << "at " << row.offset;
    EXPECT_EQ(header.type, static_cast<uint8_t>(row.type)) << "at " << row.offset;
    EXPECT_EQ(header.sequence, row.sequence) << "at " << row.offset;
    EXPECT_EQ(header.acked_through, row.acked_through) << "at " << row.offset;
    EXPECT_EQ(header.wall_highest_ns, 1234u) << "at " << row.offset;
    EXPECT_EQ(header.header_crc, RecordHeaderCrc(header, log.writer.id(), row.offset)) << "at " << row.offset;
  }
  EXPECT_TRUE(ZeroFrom(bytes, start + 4 * block));
}

TEST(WalWriter, ASegmentIsFilledToItsLastBlockAndNotBeyond) {
  Writing log;
  EXPECT_FALSE(log.writer.Fits(kWalBlockBytes, 0)) << "nothing is open yet";
  ASSERT_TRUE(log.Begin().ok());
  const uint64_t room = kSegmentBytesMin - kSegmentDataStart - kWalBlockBytes;  // the last block is the index's
  EXPECT_TRUE(log.writer.Fits(room, 0));
  EXPECT_FALSE(log.writer.Fits(room + kWalBlockBytes, 0));
  for (uint64_t left = room; left > 0; left -= kWalBlockBytes) {
    ASSERT_TRUE(log.writer.Fits(left, 0));
    ASSERT_FALSE(log.writer.Fits(left + kWalBlockBytes, 0));
    ASSERT_TRUE(log.Write({{"t", 1}}, false).ok());
  }
  EXPECT_FALSE(log.writer.Fits(kWalBlockBytes, 0));
  EXPECT_EQ(HeaderAt(log.disk.Bytes(kSegmentTwo), kSegmentBytesMin - 2 * kWalBlockBytes).sequence, 32u);
}

TEST(WalWriter, WhatWasSyncedSurvivesAPowerCutWhatWasNotMayBeLost) {
  int lost = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Writing log(seed);
    ASSERT_TRUE(log.Begin().ok());
    ASSERT_TRUE(log.Write({{"a", 1}}, false).ok());
    ASSERT_TRUE(log.writer.Sync().ok());
    ASSERT_TRUE(log.Write({{"b", 2}}, true).ok());
    ASSERT_TRUE(log.Write({{"c", 3}}, false).ok());
    const std::vector<std::byte> whole = log.disk.Bytes(kSegmentTwo);
    log.disk.PowerCut();
    const std::vector<std::byte> left = log.disk.Bytes(kSegmentTwo);
    ASSERT_EQ(left.size(), whole.size());
    const size_t synced = kSegmentDataStart + 2 * kWalBlockBytes;
    ASSERT_TRUE(std::equal(whole.begin(), whole.begin() + synced, left.begin())) << "seed " << seed;
    if (whole != left) ++lost;
  }
  EXPECT_GT(lost, 0) << "the canary: this disk loses what was not synced";
}

TEST(WalWriter, SyncAsksTheDiskOnlyWhenThereIsSomethingToSync) {
  Writing log;
  ASSERT_TRUE(log.Begin().ok());
  const uint64_t before = log.disk.operations();
  ASSERT_TRUE(log.writer.Sync().ok());
  EXPECT_EQ(log.disk.operations(), before);
  ASSERT_TRUE(log.Write({{"a", 1}}, false).ok());
  EXPECT_EQ(log.disk.operations(), before + 1);
  ASSERT_TRUE(log.writer.Sync().ok());
  EXPECT_EQ(log.disk.operations(), before + 2);
  EXPECT_EQ(log.writer.synced_through(), log.writer.written_through());
  ASSERT_TRUE(log.writer.Sync().ok());
  EXPECT_EQ(log.disk.operations(), before + 2);
}

TEST(WalWriter, ASyncCoversWhatWasWrittenBeforeItBegan) {
  int lost = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Writing log(seed);
    ASSERT_TRUE(log.Begin().ok());
    ASSERT_TRUE(log.Write({{"a", 1}}, false).ok());
    const FileHandle file = log.writer.BeginSync();
    ASSERT_TRUE(log.Write({{"b", 2}}, false).ok());
    ASSERT_TRUE(log.writer.EndSync(log.writer.RunSync(file)).ok());
    EXPECT_EQ(log.writer.synced_through(), 9u);
    EXPECT_EQ(log.writer.written_through(), 11u);
    ASSERT_TRUE(log.Write({{"c", 3}}, false).ok());
    const std::vector<std::byte> whole = log.disk.Bytes(kSegmentTwo);
    EXPECT_EQ(HeaderAt(whole, kSegmentDataStart + 2 * kWalBlockBytes).acked_through, 9u);
    log.disk.PowerCut();
    const std::vector<std::byte> left = log.disk.Bytes(kSegmentTwo);
    const size_t synced = kSegmentDataStart + kWalBlockBytes;
    ASSERT_TRUE(std::equal(whole.begin(), whole.begin() + synced, left.begin())) << "seed " << seed;
    if (!std::equal(whole.begin() + synced, whole.begin() + synced + kWalBlockBytes, left.begin() + synced)) ++lost;
  }
  EXPECT_GT(lost, 0) << "the canary: what was written beside the sync may be lost";
}

TEST(WalWriter, NoStepOfTheHeaderMayFail) {
  for (uint64_t step = 1;; ++step) {
    Writing log;
    const FileHandle file = test::ReserveFile(&log.disk, kReserve);
    sim::SimDisk::Faults faults;
    faults.fail_at = step;
    log.disk.SetFaults(faults);
    if (log.writer.BeginSegment(file, kReserve, SecondSegment()).ok()) {
      EXPECT_EQ(step, 5u) << "write, sync, rename, directory sync";
      break;
    }
    ASSERT_LT(step, 5u);
    EXPECT_FALSE(log.writer.is_open());
    EXPECT_FALSE(log.writer.Fits(kWalBlockBytes, 0));
    EXPECT_EQ(log.disk.Bytes(kSegmentTwo).empty(), step <= 3) << "step " << step;
  }
}

TEST(WalWriterDeathTest, AfterAFailureNothingIsWrittenIntoTheSegmentAgain) {
  for (const bool in_sync : {false, true}) {
    Writing log;
    ASSERT_TRUE(log.Begin().ok());
    ASSERT_TRUE(log.Write({{"a", 1}}, true).ok());
    sim::SimDisk::Faults faults;
    faults.fail_at = in_sync ? 2 : 1;
    log.disk.SetFaults(faults);
    EXPECT_FALSE(log.Write({{"b", 2}}, true).ok());
    EXPECT_EQ(log.writer.synced_through(), 9u);
    EXPECT_DEATH(static_cast<void>(log.Write({{"c", 3}}, true)), "dead_");
    EXPECT_DEATH(static_cast<void>(log.writer.Sync()), "dead_");

    WalWriter::Begin next = SecondSegment();
    next.number = 3;
    next.previous_number = 2;
    next.previous_id = log.writer.id();
    next.previous_valid_through = log.writer.synced_through();
    ASSERT_TRUE(log.writer.BeginSegment(test::ReserveFile(&log.disk, kReserve), kReserve, next).ok());
    ASSERT_TRUE(log.Write({{"b", 2}}, true).ok());
    EXPECT_EQ(HeaderAt(log.disk.Bytes(HandMadeLog::PathOf(3)), kSegmentDataStart).sequence, 10u)
        << "it goes on behind what was synced";
  }
}

}  // namespace
}  // namespace sutra
