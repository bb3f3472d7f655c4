// What recovery makes of damaged places inside a segment: which are skipped, dropped or void, what is said of them, and
// that its cost stays linear in the log.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "cache/wal/recovery.h"
#include "tests/cache/wal/hand_made_log.h"

namespace sutra {
namespace {

using test::Change;
using test::HandMadeLog;
using test::LogContent;
using test::Recovered;

class RecoveryDamageTest : public testing::Test {
 protected:
  // A place in a segment that holds a record.
  struct Place {
    uint64_t offset = 0;
    RecordHeader header;
  };
  Recovered Recover(bool strict = false) { return test::Recover(&disk_, test::kSmallLogDirectory, strict); }

  std::vector<Place> PlacesOf(uint64_t number, RecordType type) const {
    const std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(number));
    std::vector<Place> places;
    Place place;
    for (uint64_t at = kSegmentDataStart; at < bytes.size(); at += place.header.length) {
      std::memcpy(&place.header, bytes.data() + at, sizeof(place.header));
      if (place.header.length == 0) break;
      place.offset = at;
      if (place.header.type == static_cast<uint8_t>(type)) places.push_back(place);
    }
    return places;
  }
  // Flips one bit at `at` bytes behind the start of each place.
  void Flip(uint64_t number, const std::vector<Place>& places, uint64_t at) {
    std::vector<std::byte> bytes = disk_.Bytes(HandMadeLog::PathOf(number));
    for (const Place& place : places) bytes[place.offset + at] ^= std::byte{1};
    disk_.SetBytes(HandMadeLog::PathOf(number), bytes);
  }
  // Two segments of `bytes`, full of groups of twenty inserts. Only the last group says that the others were synced.
  void FillTwoSegments(uint64_t bytes) {
    int version = 0;
    for (uint64_t number = 1; number <= 2; ++number) {
      log_.Begin(number, bytes);
      while (log_.writer()->Fits(2 * kWalBlockBytes, 21)) {
        std::vector<Change> changes;
        for (int i = 0; i < 20; ++i, ++version) changes.push_back({std::to_string(version), version});
        log_.Write(changes, !log_.writer()->Fits(6 * kWalBlockBytes, 42));
      }
    }
  }

  // Removals among the inserts, in both segments.
  const sim::SimDisk& LogOfTwo() {
    if (log_.writer()->number() != 0) return disk_;
    int version = 0;
    for (uint64_t number = 1; number <= 2; ++number) {
      log_.Begin(number);
      for (int group = 0; group < 8; ++group) {
        std::vector<Change> changes;
        for (int i = 0; i < 6; ++i, ++version) changes.push_back({std::to_string(version), version});
        if (group % 3 == 2) changes.push_back({std::to_string(version - 3)});
        log_.Write(changes);
      }
    }
    return disk_;
  }

  sim::SimDisk disk_;
  HandMadeLog log_{&disk_};
};

// Each damaged place once cost a search of its own, up to the next record that says what was synced.
TEST_F(RecoveryDamageTest, ReadsAreLinearInTheLogWhateverIsDamaged) {
  constexpr uint64_t kBytes = 4 << 20;
  FillTwoSegments(kBytes);
  const auto cost_of = [&] {
    const uint64_t before = disk_.read_cost().bytes;
    EXPECT_TRUE(Recover().status.ok());
    return disk_.read_cost().bytes - before;
  };
  EXPECT_LE(cost_of(), 5 * kBytes / 2) << "a sound log is read once";
  for (const uint64_t number : {1u, 2u}) {
    const std::vector<std::byte> whole = disk_.Bytes(HandMadeLog::PathOf(number));
    std::vector<Place> inserts = PlacesOf(number, RecordType::kInsert);
    ASSERT_GT(inserts.size(), 10'000u);
    Flip(number, inserts, 150);
    EXPECT_LE(cost_of(), 4 * kBytes) << "every vector of segment " << number;
    disk_.SetBytes(HandMadeLog::PathOf(number), whole);
    for (size_t i = 0; 2 * i < inserts.size(); ++i) inserts[i] = inserts[2 * i];
    inserts.resize(inserts.size() / 2);
    Flip(number, inserts, 0);
    EXPECT_LE(cost_of(), 4 * kBytes) << "every second header of segment " << number;
    disk_.SetBytes(HandMadeLog::PathOf(number), whole);
  }
}

TEST_F(RecoveryDamageTest, OneLineSaysWhatASegmentLost) {
  FillTwoSegments(kSegmentBytesMin);
  Flip(1, PlacesOf(1, RecordType::kInsert), 150);
  const std::vector<Place> inserts = PlacesOf(2, RecordType::kInsert);
  Flip(2, {inserts[3], inserts[7], inserts[30]}, 150);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  ASSERT_EQ(recovered.plan.messages.size(), 2u);
  EXPECT_EQ(recovered.plan.damaged_segments, 2u);
  const RecoveryMessage& message = recovered.plan.messages[1];
  EXPECT_EQ(message.level, LogLevel::kError);
  EXPECT_EQ(message.text.find(HandMadeLog::PathOf(2) + " is damaged: 3 entries are lost"), 0u) << message.text;
  EXPECT_NE(message.text.find("at byte " + std::to_string(inserts[3].offset)), std::string::npos) << message.text;
  EXPECT_NE(message.text.find("check the disk"), std::string::npos) << message.text;
}

// Zeros that fill up a block hold nothing, so their rot costs nothing: neither older entries nor a strict start.
TEST_F(RecoveryDamageTest, ARottenWatermarkLosesNothing) {
  FillTwoSegments(kSegmentBytesMin);
  const LogContent whole = Recover().content;
  for (const uint64_t number : {1u, 2u}) {
    const std::vector<Place> watermarks = PlacesOf(number, RecordType::kWatermark);
    Flip(number, {watermarks[0], watermarks[1]}, 100);
  }
  const Recovered recovered = Recover(true);
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_EQ(recovered.content, whole);
  EXPECT_FALSE(recovered.reported());
  EXPECT_EQ(recovered.plan.records_dropped, 0u);
  EXPECT_TRUE(recovered.plan.quarantine.empty());
  ASSERT_EQ(recovered.plan.messages.size(), 2u) << "it is said: the disk may be failing";
  EXPECT_EQ(recovered.plan.messages[1].level, LogLevel::kWarn);
  EXPECT_NE(recovered.plan.messages[1].text.find("2 pieces of padding"), std::string::npos)
      << recovered.plan.messages[1].text;
}

// A torn write may end in its watermark: nothing behind it says that it was synced, so it is no damage.
TEST_F(RecoveryDamageTest, ATornWatermarkAtTheEndIsACut) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Write({{"b", 2}});
  const std::vector<Place> watermarks = PlacesOf(1, RecordType::kWatermark);
  Flip(1, {watermarks[1]}, 100);
  const Recovered recovered = Recover(true);
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}, {"b", 2}}));
  EXPECT_EQ(recovered.plan.valid_through, 3u);
}

// What it may not be is known: an insert is no removal. So it is passed over the same way at every start, and nothing
// has to be written again.
TEST_F(RecoveryDamageTest, ADamagedInsertCostsItselfAndLeavesTheLogAlone) {
  FillTwoSegments(kSegmentBytesMin);
  LogContent expected = Recover().content;
  Flip(1, {PlacesOf(1, RecordType::kInsert)[5]}, 150);
  Flip(2, {PlacesOf(2, RecordType::kInsert)[0]}, 150);
  expected.erase("5");
  expected.erase(std::to_string(PlacesOf(1, RecordType::kInsert).size()));
  for (int start = 0; start < 2; ++start) {
    const Recovered recovered = Recover();
    ASSERT_TRUE(recovered.status.ok());
    EXPECT_EQ(recovered.content, expected);
    EXPECT_EQ(recovered.plan.records_dropped, 2u);
    EXPECT_EQ(recovered.plan.append_again_through, 0u);
    EXPECT_TRUE(recovered.plan.quarantine.empty());
    EXPECT_TRUE(recovered.plan.remove.empty());
  }
  EXPECT_EQ(Recover(true).status.code(), StatusCode::kRefused);
}

// An older insert of the same text answers again where a newer one is lost: the vector is a function of the text, and
// its own lifetime bounds it.
TEST_F(RecoveryDamageTest, ADroppedInsertLetsAnOlderOneOfItsTextAnswer) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Write({{"a", 2}});
  log_.Write({{"b", 3}});
  Flip(1, {PlacesOf(1, RecordType::kInsert)[1]}, 150);
  const Recovered recovered = Recover();
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}, {"b", 3}}));
  EXPECT_TRUE(recovered.reported());
}

// Where a removal may be among the lost, what is older goes, and only what the damaged segment still holds is written
// again.
TEST_F(RecoveryDamageTest, ADamagedRemovalSetsItsSegmentAsideAndDropsWhatIsOlder) {
  log_.Begin(1);
  log_.Write({{"a", 1}, {"b", 2}});
  log_.Begin(2);
  log_.Write({{"a"}, {"c", 3}});
  log_.Begin(3);
  log_.Write({{"d", 4}, {"e", 5}});
  log_.Write({{"f", 6}});
  Flip(2, PlacesOf(2, RecordType::kErase), 70);
  Flip(3, {PlacesOf(3, RecordType::kInsert)[0]}, 150);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_EQ(recovered.content, (LogContent{{"c", 3}, {"e", 5}, {"f", 6}}));
  EXPECT_EQ(recovered.plan.append_again_through, 2u) << "segment 3 lost an insert only";
  EXPECT_EQ(recovered.plan.quarantine, std::vector<uint64_t>{2});
  EXPECT_EQ(recovered.plan.remove, std::vector<uint64_t>{1});
  EXPECT_EQ(recovered.plan.damaged_segments, 2u);
}

// Equal counts of removals before and behind a gap prove that none is in it.
TEST_F(RecoveryDamageTest, AGapWithoutARemovalCostsWhatWasInItAndNothingElse) {
  log_.Begin(1);
  log_.Write({{"a", 1}, {"b", 2}});
  log_.Begin(2);
  log_.Write({{"a"}, {"c", 3}, {"d", 4}});
  log_.Begin(3);
  log_.Write({{"e", 5}, {"f", 6}, {"e"}});
  log_.Write({{"g", 7}});
  const std::vector<Place> to_the_end = {PlacesOf(1, RecordType::kInsert)[1], PlacesOf(1, RecordType::kWatermark)[0]};
  Flip(1, to_the_end, 8);  // "b" and the padding behind it: the next segment's header has the count
  Flip(2, {PlacesOf(2, RecordType::kInsert)[0]}, 20);
  Flip(3, {PlacesOf(3, RecordType::kInsert)[1]}, 0);  // the next record is a removal
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok());
  EXPECT_EQ(recovered.content, (LogContent{{"d", 4}, {"g", 7}}));
  EXPECT_EQ(recovered.plan.append_again_through, 0u);
  EXPECT_TRUE(recovered.plan.quarantine.empty());
  EXPECT_TRUE(recovered.plan.remove.empty());
  EXPECT_EQ(recovered.plan.damaged_segments, 3u);
  EXPECT_EQ(recovered.plan.records_dropped, 4u) << "three inserts, and the padding behind b";
  EXPECT_EQ(recovered.plan.removals, 2u);
  ASSERT_EQ(recovered.plan.messages.size(), 3u);
  EXPECT_NE(recovered.plan.messages[1].text.find("1 record cannot be read in 1 place, no removal among them"),
            std::string::npos)
      << recovered.plan.messages[1].text;
  EXPECT_FALSE(Recover(true).status.ok()) << "strict recovery refuses it nevertheless";
}

TEST_F(RecoveryDamageTest, AGapWithARemovalDropsWhatIsOlder) {
  log_.Begin(1);
  log_.Write({{"a", 1}, {"b", 2}, {"c", 3}});
  log_.Write({{"a"}, {"d", 4}});
  log_.Write({{"e", 5}});
  for (const uint64_t at : {0u, 12u, 50u}) {
    Flip(1, PlacesOf(1, RecordType::kErase), at);
    EXPECT_EQ(Recover().content, (LogContent{{"d", 4}, {"e", 5}}));
    Flip(1, {Place{kSegmentDataStart + kWalBlockBytes, {}}}, at);  // and back
  }
  EXPECT_EQ(Recover().content, (LogContent{{"b", 2}, {"c", 3}, {"d", 4}, {"e", 5}}));
}

// A bad sector is damage, not a reason to refuse the start: it is read around in steps of a block.
TEST_F(RecoveryDamageTest, AnUnreadableBlockCostsLikeACorruptOne) {
  for (const uint64_t number : {1u, 2u}) {
    for (uint64_t block = 0; block < kSegmentBytesMin / kWalBlockBytes; ++block) {
      sim::SimDisk unreadable, corrupt;
      for (const uint64_t n : {1u, 2u}) {
        std::vector<std::byte> bytes = LogOfTwo().Bytes(HandMadeLog::PathOf(n));
        unreadable.SetBytes(HandMadeLog::PathOf(n), bytes);
        const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(block * kWalBlockBytes);
        if (n == number) std::fill(at, at + kWalBlockBytes, std::byte{0xa5});
        corrupt.SetBytes(HandMadeLog::PathOf(n), bytes);
      }
      unreadable.SpoilBlock(HandMadeLog::PathOf(number), block * kWalBlockBytes);
      const Recovered seen = test::Recover(&unreadable, test::kSmallLogDirectory);
      const Recovered same = test::Recover(&corrupt, test::kSmallLogDirectory);
      ASSERT_TRUE(seen.status.ok()) << "segment " << number << ", block " << block << ": " << seen.status.message();
      EXPECT_EQ(seen.content, same.content) << "segment " << number << ", block " << block;
      EXPECT_EQ(seen.plan.valid_through, same.plan.valid_through) << "segment " << number << ", block " << block;
      EXPECT_EQ(seen.reported(), same.reported()) << "segment " << number << ", block " << block;
      EXPECT_EQ(seen.plan.quarantine, same.plan.quarantine) << "segment " << number << ", block " << block;
      if (block < kSegmentHeaderCopies) continue;
      ASSERT_FALSE(seen.plan.messages.empty());
      EXPECT_NE(seen.plan.messages.back().text.find("1 block of 4096 bytes cannot be read"), std::string::npos)
          << seen.plan.messages.back().text;
    }
  }
}

TEST_F(RecoveryDamageTest, OneReadableHeaderCopyIsEnoughAndNoneIsDamage) {
  FillTwoSegments(kSegmentBytesMin);
  const LogContent whole = Recover().content;
  disk_.SpoilBlock(HandMadeLog::PathOf(2), 0);
  EXPECT_EQ(Recover().content, whole);
  EXPECT_FALSE(Recover().reported());
  disk_.SpoilBlock(HandMadeLog::PathOf(2), kWalBlockBytes);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_EQ(recovered.content, LogContent());
  EXPECT_EQ(recovered.plan.quarantine, (std::vector<uint64_t>{1, 2}));
  ASSERT_EQ(recovered.plan.messages.size(), 1u);
  EXPECT_NE(recovered.plan.messages[0].text.find("the header of " + HandMadeLog::PathOf(2) + " cannot be read"),
            std::string::npos);
  EXPECT_EQ(Recover(true).status.code(), StatusCode::kRefused);
}

// The header of the record is whole: it says that the rest, in the unreadable block, was an insert.
TEST_F(RecoveryDamageTest, AnInsertWhoseBodyIsUnreadableCostsItselfOnly) {
  log_.Begin(1);
  log_.Write({{"a", 1}});
  log_.Write({{std::string(10'000, 'l'), 2}});
  log_.Write({{"b"}, {"c", 3}});
  disk_.SpoilBlock(HandMadeLog::PathOf(1), kSegmentDataStart + 2 * kWalBlockBytes);
  const Recovered recovered = Recover();
  ASSERT_TRUE(recovered.status.ok()) << recovered.status.message();
  EXPECT_EQ(recovered.content, (LogContent{{"a", 1}, {"c", 3}}));
  EXPECT_EQ(recovered.plan.records_dropped, 1u);
  EXPECT_TRUE(recovered.plan.quarantine.empty());
}

// A controller that fails once and then reads is not damage.
TEST_F(RecoveryDamageTest, AReadThatFailsOnceCostsNothing) {
  FillTwoSegments(kSegmentBytesMin);
  const LogContent whole = Recover().content;
  for (uint64_t n = 1; n < 30; ++n) {
    sim::SimDisk::Faults faults;
    faults.fail_at = n;
    disk_.SetFaults(faults);
    const Recovered recovered = Recover();
    if (!recovered.status.ok()) {
      // The directory must be readable, and what was read must be durable: the next start tries again.
      const std::string& message = recovered.status.message();
      EXPECT_TRUE(n <= 2 || message.find("syncing") == 0) << "operation " << n << ": " << message;
      continue;
    }
    EXPECT_EQ(recovered.content, whole) << "operation " << n;
    EXPECT_FALSE(recovered.reported()) << "operation " << n;
  }
}

// A write of the dead engine that lands between the sync and the read: recovery sees it in the page cache only.
class LateWriteDisk : public sim::SimDisk {
 public:
  using SimDisk::SimDisk;
  void DropCache(FileHandle file) override {
    SimDisk::DropCache(file);
    if (late_write) std::exchange(late_write, nullptr)();
  }
  std::function<void()> late_write;
};

TEST(RecoveryLateWrite, WhatRecoveryReadIsDurableBeforeAHeaderVouchesForIt) {
  int counted = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    LateWriteDisk disk(seed);
    HandMadeLog log(&disk);
    log.Begin(1);
    log.Write({{"a", 1}});
    disk.late_write = [&] { log.Write({{"b", 2}}, false); };
    const Recovered recovered = test::Recover(&disk, test::kSmallLogDirectory);
    ASSERT_TRUE(recovered.status.ok());
    counted += recovered.content.count("b") == 1;
    log.Begin(2);  // its header names what recovery counted
    std::vector<std::byte> bytes = disk.Bytes(HandMadeLog::PathOf(2));
    SegmentHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    header.previous_valid_through = recovered.plan.valid_through;
    EncodeSegmentHeader(header, bytes.data());
    EncodeSegmentHeader(header, bytes.data() + kWalBlockBytes);
    disk.SetBytes(HandMadeLog::PathOf(2), bytes);
    disk.PowerCut();
    const Recovered after = test::Recover(&disk, test::kSmallLogDirectory);
    EXPECT_FALSE(after.reported()) << "seed " << seed << ": the new header vouches for what the disk never got";
    EXPECT_EQ(after.content, recovered.content) << "seed " << seed;
  }
  EXPECT_EQ(counted, 20) << "the late write was not seen: this test shows nothing";
}

}  // namespace
}  // namespace sutra
