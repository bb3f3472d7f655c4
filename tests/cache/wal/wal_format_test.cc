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
  header.hash_seed = 0x5eed5eed5eed5eed;
  header.removals = 40;
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

// An insert, a removal, a clear, a removal of all, and the watermark that fills the block, as they appear at the start
// of segment 2.
TEST(WalFormat, GoldenBytes) {
  const SegmentHeader header = GoldenHeader();
  std::vector<std::byte> block(kWalBlockBytes);
  EncodeSegmentHeader(header, block.data());
  EXPECT_EQ(Hex(block.data(), 144), R"(53555452 4157414c 01000100 00100000
02000000 00000000 a0a1a2a3 a4a5a6a7
a8a9aaab acadaeaf 00112233 44556677
8899aabb ccddeeff 00112233 44556677
8899aabb ccddeeff 02000000 00000000
00000100 00000000 01000000 00000000
5b5b5b5b 5b5b5b5b 5b5b5b5b 5b5b5b5b
07000000 00000000 00002a36 fe9c9717
ed5eed5e ed5eed5e 28000000 00000000
)");
  EXPECT_EQ(Hex(block.data() + kSegmentHeaderCrcOffset, 4), "d3b952b4 ");

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
  UnplacedRecord insert = UnplacedRecord::Insert(body, std::as_bytes(std::span(vector)), "risk");
  insert.slot = 17;
  group.Append(insert);
  group.Append(UnplacedRecord::Erase({0x1122334455667788, 0x99aabbccddeeff00, 1}));
  group.Append(UnplacedRecord::Clear(18));
  group.Append(UnplacedRecord::DropAll());
  group.Close();
  RecordStamp stamp{7, 7, header.wall_highest_ns, 40};
  group.Stamp(header.id, kSegmentDataStart, &stamp);
  EXPECT_EQ(stamp.sequence, 12u);
  EXPECT_EQ(stamp.removals, 42u);
  EXPECT_EQ(Hex(group.bytes().data(), 448), R"(74faedcc ad224621 80000000 01000000
08000000 00000000 07000000 00000000
00002a36 fe9c9717 11000000 00000000
28000000 00000000 00000000 00000000
0058712e 0c9d9717 3c000000 01000000
04000000 02000000 03000000 0000a040
00000000 00000000 9a99193f cdcc4c3f
7269736b 00000000 00000000 00000000
299ca43c 2f2305fe 80000000 02000000
09000000 00000000 07000000 00000000
00002a36 fe9c9717 ffffffff 00000000
29000000 00000000 00000000 00000000
88776655 44332211 00ffeedd ccbbaa99
01000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000
00000000 00000000 00000000 00000000
fd818cb6 00000000 40000000 04000000
0a000000 00000000 07000000 00000000
00002a36 fe9c9717 12000000 00000000
29000000 00000000 00000000 00000000
30a2238d 00000000 40000000 05000000
0b000000 00000000 07000000 00000000
00002a36 fe9c9717 ffffffff 00000000
2a000000 00000000 00000000 00000000
9033f7c7 b16b348b 800e0000 03000000
0c000000 00000000 07000000 00000000
00002a36 fe9c9717 ffffffff 00000000
2a000000 00000000 00000000 00000000
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
  changed.reserved_tail = uint64_t{1} << 63;
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
  header.format_minor = 0;
  encode();
  EXPECT_EQ(ParseSegmentHeader(blocks, expected, &read), HeaderState::kOlder);
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
