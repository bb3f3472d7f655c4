// The bytes of the log: names, identities, one golden segment (the hex dump of WAL_FORMAT.md), and the records' own
// checks.
#include "cache/wal/wal_format.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "cache/wal/wal_group.h"
#include "shm/base/crc32c.h"
#include "tests/cache/cache_test_support.h"

namespace sutra {
namespace {

TEST(WalFormat, SegmentNamesSortLikeNumbersAndRoundTrip) {
  EXPECT_EQ(SegmentName(10), "wal-000000000000000a.log");
  for (const uint64_t number : {1ull, 9ull, 255ull, 0x123456789abcdefull, ~0ull}) {
    EXPECT_EQ(SegmentNumber(SegmentName(number)), number);
  }
  for (const char* name : {"wal-000000000000000a.log.quarantined", "wal-000000000000000A.log", "reserve.tmp", "MODEL",
                           "wal-000000000000000.log", "", "wal-00000000000000 a.log"}) {
    EXPECT_EQ(SegmentNumber(name), 0u) << name;
  }
}

TEST(WalFormat, IdentityIsSixtyFourLowerCaseHexDigits) {
  ModelIdentity identity;
  EXPECT_TRUE(ParseIdentity(test::kIdentity, &identity));
  EXPECT_EQ(identity[1], 0x11);
  EXPECT_EQ(identity[31], 0xff);
  EXPECT_FALSE(ParseIdentity(test::kIdentity.substr(1), &identity));
  EXPECT_FALSE(ParseIdentity(std::string(64, 'g'), &identity));
  EXPECT_FALSE(ParseIdentity(std::string(64, 'F'), &identity));
}

SegmentHeader GoldenHeader() {
  SegmentHeader header;
  header.number = 2;
  for (size_t i = 0; i < header.id.size(); ++i) header.id[i] = static_cast<uint8_t>(0xa0 + i);
  ParseIdentity(test::kIdentity, &header.model);
  header.width = 2;
  header.segment_bytes = 65536;
  header.previous_number = 1;
  header.previous_id.fill(0x5b);
  header.previous_valid_through = 7;
  header.wall_highest_ns = 1'700'000'000'000'000'000u;
  return header;
}

std::string Hex(const std::byte* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    char digits[8];
    std::snprintf(digits, sizeof(digits), "%02x%s", static_cast<unsigned>(bytes[i]),
                  i % 16 == 15 ? "\n"
                  : i % 4 == 3 ? " "
                               : "");
    text += digits;
  }
  return text;
}

// One insert, one removal, and the watermark that fills the block, as they appear at the start of segment 2.
TEST(WalFormat, GoldenBytes) {
  const SegmentHeader header = GoldenHeader();
  std::vector<std::byte> block(kWalBlockBytes);
  EncodeSegmentHeader(header, block.data());
  EXPECT_EQ(Hex(block.data(), 128), R"(53555452 4157414c 01000000 00100000
02000000 00000000 a0a1a2a3 a4a5a6a7
a8a9aaab acadaeaf 00112233 44556677
8899aabb ccddeeff 00112233 44556677
8899aabb ccddeeff 02000000 00000000
00000100 00000000 01000000 00000000
5b5b5b5b 5b5b5b5b 5b5b5b5b 5b5b5b5b
07000000 00000000 00002a36 fe9c9717
)");
  EXPECT_EQ(Hex(block.data() + kSegmentHeaderCrcOffset, 4), "6e907885 ");

  WalGroup group(kWalBlockBytes);
  InsertBody body;
  body.wall_expiry_ns = 1'700'000'060'000'000'000u;
  body.ttl_s = 60;
  body.variant = 1;
  body.text_bytes = 4;
  body.width = 2;
  body.token_count = 3;
  body.norm = 5.0f;
  const std::vector<float> vector = {0.6f, 0.8f};
  group.Append(UnplacedRecord::Insert(body, vector, "risk"));
  group.Append(UnplacedRecord::Erase(1, "bond"));
  group.Close();
  EXPECT_EQ(group.Stamp(header.id, kSegmentDataStart, 7, 7, header.wall_highest_ns), 10u);
  EXPECT_EQ(Hex(group.bytes().data(), 320), R"(d842a056 ad224621 80000000 01000000
08000000 00000000 07000000 00000000
00002a36 fe9c9717 00000000 00000000
00000000 00000000 00000000 00000000
0058712e 0c9d9717 3c000000 01000000
04000000 02000000 03000000 0000a040
00000000 00000000 9a99193f cdcc4c3f
7269736b 00000000 00000000 00000000
38c84c95 2d7689c1 80000000 02000000
09000000 00000000 07000000 00000000
00002a36 fe9c9717 00000000 00000000
00000000 00000000 00000000 00000000
01000000 04000000 626f6e64 00000000
00000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000
729db8d0 7a631104 000f0000 03000000
0a000000 00000000 07000000 00000000
00002a36 fe9c9717 00000000 00000000
00000000 00000000 00000000 00000000
)");
}

TEST(WalFormat, AChecksumKnowsItsSegmentAndItsPlace) {
  const SegmentHeader header = GoldenHeader();
  RecordHeader record;
  record.length = 64;
  record.type = 3;
  record.sequence = 9;
  const uint32_t crc = RecordHeaderCrc(record, header.id, 8192);
  SegmentId other = header.id;
  other[15] ^= 1;
  EXPECT_NE(crc, RecordHeaderCrc(record, other, 8192));
  EXPECT_NE(crc, RecordHeaderCrc(record, header.id, 8256));
  RecordHeader changed = record;
  changed.sequence = 10;
  EXPECT_NE(crc, RecordHeaderCrc(changed, header.id, 8192));
  changed = record;
  changed.reserved_tail[23] = 1;
  EXPECT_NE(crc, RecordHeaderCrc(changed, header.id, 8192));
}

TEST(WalFormat, HeaderStates) {
  SegmentHeader header = GoldenHeader();
  SegmentExpectation expected;
  expected.number = 2;
  expected.width = 2;
  expected.model = header.model;
  std::vector<std::byte> blocks(kSegmentDataStart);
  SegmentHeader read;
  const auto encode = [&] {
    for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
      EncodeSegmentHeader(header, blocks.data() + copy * kWalBlockBytes);
    }
  };
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kZero);
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kGood);
  EXPECT_EQ(std::memcmp(&read, &header, sizeof(header)), 0);
  blocks[100] ^= std::byte{1};
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kGood) << "the second copy";
  blocks[kWalBlockBytes + 4000] ^= std::byte{1};
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kBad);
  header.number = 3;
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kMisplaced);
  header = GoldenHeader();
  header.model[5] ^= 1;
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kMisplaced);
  header = GoldenHeader();
  header.format_major = 2;
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kNewer);
  header = GoldenHeader();
  header.incompatible_flags = 1;
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kNewer);
  EXPECT_EQ(ParseSegmentHeader(std::span(blocks).first(100), expected, &read), HeaderState::kBad);
}

TEST(WalFormat, TheFirstHeaderCopyThatFitsCounts) {
  const SegmentHeader right = GoldenHeader();
  SegmentExpectation expected;
  expected.number = right.number;
  expected.width = right.width;
  expected.model = right.model;
  expected.id = right.id;
  SegmentHeader misplaced = right, newer = right, bad = right, stranger = right;
  misplaced.number = 3;
  misplaced.previous_number = 2;
  newer.format_minor = 9;
  newer.incompatible_flags = 1;
  bad.magic[0] = 'X';
  stranger.id[3] ^= 1;
  const auto state_of = [&](const SegmentHeader& first, const SegmentHeader& second) {
    std::vector<std::byte> blocks(kSegmentDataStart);
    EncodeSegmentHeader(first, blocks.data());
    EncodeSegmentHeader(second, blocks.data() + kWalBlockBytes);
    SegmentHeader read;
    const HeaderState state = ParseSegmentHeader(blocks, expected, &read);
    EXPECT_TRUE(state != HeaderState::kGood || std::memcmp(&read, &right, sizeof(read)) == 0);
    return state;
  };
  for (const SegmentHeader& other : {right, misplaced, newer, bad, stranger}) {
    EXPECT_EQ(state_of(other, right), HeaderState::kGood);
    EXPECT_EQ(state_of(right, other), HeaderState::kGood);
  }
  EXPECT_EQ(state_of(misplaced, stranger), HeaderState::kMisplaced);
  EXPECT_EQ(state_of(misplaced, bad), HeaderState::kBad) << "a whole file of another segment has two valid copies";
  EXPECT_EQ(state_of(bad, misplaced), HeaderState::kBad);
  EXPECT_EQ(state_of(bad, newer), HeaderState::kNewer);
  EXPECT_EQ(state_of(newer, misplaced), HeaderState::kNewer);
}

}  // namespace
}  // namespace sutra
