// What recovery decides about whole segments, what its plan says, and that it writes nothing. Damage inside a segment
// is left to damage_test.cc.
#include "cache/wal/recovery.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::HandMadeLog;
using test::LogContent;
using test::Recovered;
using Numbers = std::vector<uint64_t>;

class RecoveryTest : public testing::Test {
 protected:
  // Segment 1: "a" and "b", three records. Segment 2: "a" removed, "c", three more. Segment 3: "b" again, two.
  void WriteThreeSegments() {
    log_.Begin(1);
    log_.Write({{"a", 1}, {"b", 2}});
    log_.Begin(2);
    log_.Write({{"a"}, {"c", 3}});
    log_.Begin(3);
    log_.Write({{"b", 4}});
  }
  Recovered Recover(bool strict = false) { return test::Recover(&disk_, test::kSmallLogDirectory, strict); }

  void Remove(uint64_t number) { ASSERT_TRUE(disk_.Unlink(HandMadeLog::PathOf(number)).ok()); }
  void SpoilHeader(uint64_t number) {
    std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(number));
    bytes[20] ^= std::byte{1};
    bytes[kWalBlockBytes + 20] ^= std::byte{1};
    disk_.SetBytes(HandMadeLog::PathOf(number), bytes);
  }
  static Numbers NumbersOf(const std::vector<RecoveredSegment>& chain) {
    Numbers numbers;
    for (const RecoveredSegment& segment : chain) numbers.push_back(segment.number);
    return numbers;
  }

  sim::SimDisk disk_;
  HandMadeLog log_{&disk_};
};

TEST_F(RecoveryTest, AnEmptyDirectoryIsAnEmptyLog) {
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_TRUE(recovered.content.empty());
  EXPECT_EQ(recovered.plan.number_next, 1u);
  EXPECT_EQ(recovered.plan.previous_number, 0u);
  EXPECT_EQ(recovered.plan.valid_through, 0u);
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, ReadsTheChainInOrderAndSaysWhereToGoOn) {
  WriteThreeSegments();
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_EQ(recovered.content, (LogContent{{"b", 4}, {"c", 3}}));
  EXPECT_EQ(NumbersOf(recovered.plan.chain), (Numbers{1, 2, 3}));
  EXPECT_EQ(recovered.plan.chain[2].bytes, kSegmentBytesMin);
  EXPECT_EQ(recovered.plan.previous_number, 3u);
  EXPECT_EQ(recovered.plan.previous_id, log_.writer()->id());
  EXPECT_EQ(recovered.plan.valid_through, 8u);
  EXPECT_EQ(recovered.plan.number_next, 4u);
  EXPECT_EQ(recovered.plan.records, 8u);
  EXPECT_TRUE(recovered.plan.remove.empty());
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, WritesNothing) {
  WriteThreeSegments();
  SpoilHeader(1);
  std::map<std::string, std::vector<std::byte>> before;
  for (const std::string& path : disk_.Paths()) before[path] = disk_.Bytes(path);
  EXPECT_TRUE(Recover().reported());
  std::map<std::string, std::vector<std::byte>> after;
  for (const std::string& path : disk_.Paths()) after[path] = disk_.Bytes(path);
  EXPECT_EQ(before, after);
}

TEST_F(RecoveryTest, WhatLiesBehindTheCutOfASegmentIsIgnored) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Write({{"b", 2}}, false);  // written, never synced: segment 2 continues behind "a"
  log_.Begin(2);
  log_.Write({{"c", 3}});
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}, {"c", 3}}));
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, ANewestSegmentInWhichNothingCountsIsLeftOut) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  const SegmentId first = log_.writer()->id();
  log_.Begin(2);
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.plan.remove, Numbers{2});
  EXPECT_EQ(NumbersOf(recovered.plan.chain), Numbers{1});
  EXPECT_EQ(recovered.plan.previous_number, 1u);
  EXPECT_EQ(recovered.plan.previous_id, first);
  EXPECT_EQ(recovered.plan.number_next, 3u) << "its number is never used again";
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, AFileThatWasNeverBegunIsRemoved) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  disk_.SetBytes(HandMadeLog::PathOf(2), std::vector<std::byte>(kSegmentBytesMin));
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.plan.remove, Numbers{2});
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}}));
  EXPECT_EQ(recovered.plan.number_next, 3u);
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, ANumberThatALaterHeaderLeavesOutWasGivenUp) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Begin(3);
  log_.Write({{"b", 2}});
  disk_.SetBytes(HandMadeLog::PathOf(2), disk_.Bytes(HandMadeLog::PathOf(1)));
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.plan.remove, Numbers{2});
  EXPECT_EQ(NumbersOf(recovered.plan.chain), (Numbers{1, 3}));
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}, {"b", 2}}));
  EXPECT_FALSE(recovered.reported());
}

TEST_F(RecoveryTest, AMissingSegmentVoidsEverythingOlder) {
  WriteThreeSegments();
  Remove(2);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_EQ(recovered.content, (LogContent{{"b", 4}}));
  EXPECT_EQ(recovered.plan.quarantine, Numbers{1});
  EXPECT_EQ(recovered.plan.damaged_segments, 1u);
  ASSERT_EQ(recovered.plan.messages.size(), 1u);
  EXPECT_EQ(recovered.plan.messages[0].level, LogLevel::kError);
  EXPECT_EQ(recovered.plan.messages[0].text.find(HandMadeLog::PathOf(2) + " is missing: what it and all older"), 0u);
}

TEST_F(RecoveryTest, AnUnreadableHeaderVoidsItsSegmentAndEverythingOlder) {
  WriteThreeSegments();
  SpoilHeader(2);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_EQ(recovered.content, (LogContent{{"b", 4}}));
  EXPECT_EQ(recovered.plan.quarantine, (Numbers{1, 2}));
  ASSERT_EQ(recovered.plan.messages.size(), 1u);
  EXPECT_NE(recovered.plan.messages[0].text.find("the header of " + HandMadeLog::PathOf(2)), std::string::npos);
}

// The identities of models are others since, so nothing of it could be found.
TEST_F(RecoveryTest, SegmentsOfAnEarlierVersionAreSetAsideAndTheCommandThatRemovesThemIsNamed) {
  WriteThreeSegments();
  for (const uint64_t number : {1u, 2u}) {
    std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(number));
    SegmentHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    header.format_minor = 0;
    for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
      EncodeSegmentHeader(header, bytes.data() + copy * kWalBlockBytes);
    }
    disk_.SetBytes(HandMadeLog::PathOf(number), bytes);
  }
  const Recovered recovered = Recover(true);
  ASSERT_TRUE(recovered.status.ok()) << "no damage: " << recovered.status.message();
  EXPECT_EQ(recovered.content, (LogContent{{"b", 4}}));
  EXPECT_EQ(recovered.plan.quarantine, (Numbers{1, 2}));
  EXPECT_EQ(recovered.plan.damaged_segments, 0u);
  ASSERT_EQ(recovered.plan.messages.size(), 1u);
  EXPECT_EQ(recovered.plan.messages[0].level, LogLevel::kWarn);
  EXPECT_NE(recovered.plan.messages[0].text.find("rm '" + test::kSmallLogDirectory + "'/*.quarantined"),
            std::string::npos)
      << recovered.plan.messages[0].text;
}

TEST_F(RecoveryTest, ClearsAndADropOfAllAreReplayedInTheirPlace) {
  const auto write = [&](const UnplacedRecord& record) {
    WalGroup group(kWalBlockBytes);
    group.Append(record);
    group.Close();
    ASSERT_TRUE(log_.writer()->Write(&group, true, 0).ok());
  };
  log_.Begin(1);
  log_.Write({{"a", 1}, {"b", 2}});
  write(UnplacedRecord::Clear(test::SlotOfText("a")));
  EXPECT_EQ(Recover().content, (LogContent{{"b", 2}}));
  EXPECT_EQ(Recover().plan.removals, 0u) << "an eviction, no removal";
  log_.Write({{"a", 3}});
  write(UnplacedRecord::DropAll());
  EXPECT_EQ(Recover().content, LogContent{});
  log_.Write({{"c", 4}});
  EXPECT_EQ(Recover().content, (LogContent{{"c", 4}}));
  EXPECT_EQ(Recover().plan.removals, 1u);
}

TEST_F(RecoveryTest, AnotherLogsSegmentIsRefused) {
  WriteThreeSegments();
  sim::SimDisk other;
  HandMadeLog foreign(&other);
  foreign.Begin(1);
  foreign.Write({{"x", 9}});
  foreign.Begin(2);
  foreign.Write({{"y", 9}});
  disk_.SetBytes(HandMadeLog::PathOf(2), other.Bytes(HandMadeLog::PathOf(2)));
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.status.code(), StatusCode::kRefused);
  EXPECT_NE(recovered.status.message().find(HandMadeLog::PathOf(2) + " belongs to another log"), std::string::npos);

  disk_.SetBytes(HandMadeLog::PathOf(2), disk_.Bytes(HandMadeLog::PathOf(3)));
  EXPECT_EQ(Recover().status.code(), StatusCode::kRefused) << "its number is not its name's";
}

// A misdirected write put another segment's header block over one copy: the other copy is right.
TEST_F(RecoveryTest, TheHeaderCopyThatFitsCounts) {
  WriteThreeSegments();
  const std::vector<std::byte> whole = disk_.Bytes(HandMadeLog::PathOf(2));
  const std::vector<std::byte> other = disk_.Bytes(HandMadeLog::PathOf(3));
  for (const uint64_t copy : {uint64_t{0}, kWalBlockBytes}) {
    std::vector<std::byte> bytes = whole;
    std::copy_n(other.begin(), kWalBlockBytes, bytes.begin() + static_cast<std::ptrdiff_t>(copy));
    disk_.SetBytes(HandMadeLog::PathOf(2), bytes);
    const Recovered recovered = Recover();
    ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
    EXPECT_EQ(recovered.content, (LogContent{{"b", 4}, {"c", 3}}));
    EXPECT_FALSE(recovered.reported());

    bytes[(kWalBlockBytes - copy) + 20] ^= std::byte{1};
    disk_.SetBytes(HandMadeLog::PathOf(2), bytes);
    const Recovered damaged = Recover();
    ASSERT_TRUE(damaged.status.ok()) << "one copy of another segment and one that is rotten are damage: "
                                     << damaged.status.message();
    EXPECT_EQ(damaged.content, (LogContent{{"b", 4}}));
    EXPECT_TRUE(damaged.reported());
  }
}

TEST_F(RecoveryTest, AnUnfinishedWriteIsCutAndSaid) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Write({{"b", 2}}, false);
  std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(1));
  std::fill(bytes.begin() + kSegmentDataStart + kWalBlockBytes + 100, bytes.end(), std::byte{0});
  disk_.SetBytes(HandMadeLog::PathOf(1), bytes);
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}}));
  EXPECT_EQ(recovered.plan.valid_through, 2u);
  EXPECT_FALSE(recovered.reported()) << "it was never acknowledged";
  ASSERT_EQ(recovered.plan.messages.size(), 1u);
  EXPECT_NE(recovered.plan.messages[0].text.find("at byte 12288: an unacknowledged write is incomplete"),
            std::string::npos);
}

TEST_F(RecoveryTest, NumbersThatNoLogReachesAreRefused) {
  disk_.SetBytes(HandMadeLog::PathOf(UINT64_MAX), std::vector<std::byte>(kSegmentBytesMin));
  EXPECT_EQ(Recover().status.code(), StatusCode::kRefused) << "no segment could follow";
  Remove(UINT64_MAX);

  log_.Begin(1);
  log_.Write({{"a", 1}});
  const std::string path = HandMadeLog::PathOf(1);
  std::vector<std::byte> bytes = disk_.Bytes(path);
  SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  header.previous_valid_through = UINT64_MAX - 5;
  EncodeSegmentHeader(header, bytes.data());
  EncodeSegmentHeader(header, bytes.data() + kWalBlockBytes);
  disk_.SetBytes(path, bytes);
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.status.code(), StatusCode::kRefused);
  EXPECT_NE(recovered.status.message().find("move it away"), std::string::npos);
}

// A kill, at any fill of a segment that is written over, is no torn write.
TEST_F(RecoveryTest, WhatAnOlderSegmentLeftBehindTheLastRecordIsPassedOverInSilence) {
  log_.Begin(1);
  while (log_.writer()->Fits(kWalBlockBytes, 2)) log_.Write({{"old", 1}, {"older", 2}});
  log_.Begin(2);
  log_.Write({{"kept", 3}});
  log_.BeginOver(3, 1);
  for (int version = 0; log_.writer()->Fits(kWalBlockBytes, 2); ++version) {
    const Recovered recovered = Recover(true);
    ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
    EXPECT_TRUE(recovered.plan.messages.empty()) << recovered.plan.messages[0].text;
    LogContent expected{{"kept", 3}};
    if (version > 0) expected["new"] = version - 1;
    EXPECT_EQ(recovered.content, expected);
    log_.Write({{"new", version}});
  }
}

}  // namespace
}  // namespace sutra
