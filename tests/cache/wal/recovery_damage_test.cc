// What recovery makes of damaged places inside a segment: which are skipped, dropped or void, what is said of them, and
// that its cost stays linear in the log.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

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
      while (log_.writer()->Fits(2 * kWalBlockBytes)) {
        std::vector<Change> changes;
        for (int i = 0; i < 20; ++i, ++version) changes.push_back({std::to_string(version), version});
        log_.Write(changes, !log_.writer()->Fits(6 * kWalBlockBytes));
      }
    }
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

}  // namespace
}  // namespace sutra
