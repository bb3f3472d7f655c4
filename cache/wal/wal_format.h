// The bytes of a log segment: numbers, structs, and the functions that write and check them. WAL_FORMAT.md explains the
// grammar; wal_writer stamps and appends, wal_reader classifies, recovery decides.
//
// Thread rule: plain functions and plain data.
// Invariants:
//  - Little-endian, fixed width, no padding left to the compiler; numbers and types are never reused.
//  - Every byte of a record is covered by one of two CRC-32C: `body_crc` over all bytes behind the header (its zero
//    padding included), `header_crc` over segment id, offset in the segment and the rest of the header, body_crc
//    included.
//  - Records start at multiples of kRecordAlign and never cross a segment; a group of records starts at a block. No
//    record is longer than kRecordBytesMax. (Asserted where records are created, stamped and written; records read from
//    a file are checked instead.)
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "cache/wal/wal_limits.h"
#include "shm/base/numbers.h"
#include "shm/base/status.h"

namespace sutra {

static_assert(std::endian::native == std::endian::little, "the log is little-endian");

inline constexpr uint64_t kRecordAlign = 64;
inline constexpr uint64_t kSegmentHeaderCopies = 2;  // the header block is written twice: rot of one copy costs nothing
inline constexpr uint64_t kSegmentDataStart = kSegmentHeaderCopies * kWalBlockBytes;
inline constexpr uint64_t kRecordBytesMax = 16ull << 20;
inline constexpr uint64_t kNumberMax = 1ull << 63;  // of records; no log lives long enough to reach it
// Of segments: memory keeps the number of each entry's in 32 bits. 250 TB of the smallest ones.
inline constexpr uint64_t kSegmentNumberMax = UINT32_MAX - 1;
inline constexpr uint16_t kFormatMajor = 1;
inline constexpr uint16_t kFormatMinor = 1;
inline constexpr std::array<char, 8> kSegmentMagic = {'S', 'U', 'T', 'R', 'A', 'W', 'A', 'L'};

using SegmentId = std::array<uint8_t, 16>;
using ModelIdentity = std::array<uint8_t, 32>;

struct SegmentHeader {
  std::array<char, 8> magic = kSegmentMagic;
  uint16_t format_major = kFormatMajor;
  uint16_t format_minor = kFormatMinor;
  uint32_t block_bytes = kWalBlockBytes;
  uint64_t number = 0;  // 1, 2, ...; never reused; equals the file's name
  SegmentId id = {};    // random; salt of every checksum in the segment
  ModelIdentity model = {};
  uint32_t width = 0;
  uint32_t incompatible_flags = 0;  // a reader refuses bits it does not know
  uint64_t segment_bytes = 0;
  uint64_t previous_number = 0;  // 0: none
  SegmentId previous_id = {};
  uint64_t previous_valid_through = 0;  // the records here begin at this sequence + 1
  uint64_t wall_highest_ns = 0;         // the highest wall-clock time believed when the segment was created
  uint64_t hash_seed = 0;               // of the digests in removals; the same in all segments of a log
  uint64_t removals = 0;                // as in the record before this segment
  uint32_t flags = 0;                   // kSegmentWrittenOver; a reader ignores bits it does not know
  uint32_t reserved = 0;
};
// The file was an older segment: what lies behind the records, and between blocks that were not written, are its bytes.
inline constexpr uint32_t kSegmentWrittenOver = 1;
static_assert(std::is_trivially_copyable_v<SegmentHeader> && std::is_standard_layout_v<SegmentHeader>);
static_assert(sizeof(SegmentHeader) == 152);
static_assert(offsetof(SegmentHeader, magic) == 0 && offsetof(SegmentHeader, format_major) == 8 &&
              offsetof(SegmentHeader, format_minor) == 10 && offsetof(SegmentHeader, block_bytes) == 12 &&
              offsetof(SegmentHeader, number) == 16 && offsetof(SegmentHeader, id) == 24 &&
              offsetof(SegmentHeader, model) == 40 && offsetof(SegmentHeader, width) == 72 &&
              offsetof(SegmentHeader, incompatible_flags) == 76 && offsetof(SegmentHeader, segment_bytes) == 80 &&
              offsetof(SegmentHeader, previous_number) == 88 && offsetof(SegmentHeader, previous_id) == 96 &&
              offsetof(SegmentHeader, previous_valid_through) == 112 &&
              offsetof(SegmentHeader, wall_highest_ns) == 120 && offsetof(SegmentHeader, hash_seed) == 128 &&
              offsetof(SegmentHeader, removals) == 136 && offsetof(SegmentHeader, flags) == 144 &&
              offsetof(SegmentHeader, reserved) == 148);
// The block's last four bytes hold the CRC-32C of the bytes before them.
inline constexpr uint64_t kSegmentHeaderCrcOffset = kWalBlockBytes - sizeof(uint32_t);

enum class RecordType : uint8_t {
  kNone = 0,  // reserved: preallocated zeros
  kInsert = 1,
  kErase = 2,      // a removal: this key is nowhere from here on
  kWatermark = 3,  // no content: fills a group up to its block and carries acked_through and wall time
  kClear = 4,      // no content: the slot's entry was evicted, and no insert says so
  kDropAll = 5,    // no content: a removal of everything before it
};
inline constexpr uint8_t kRecordTypeMax = 5;
inline constexpr bool IsRemoval(RecordType type) { return type == RecordType::kErase || type == RecordType::kDropAll; }
inline constexpr uint32_t kNoRecordSlot = UINT32_MAX;
inline constexpr uint8_t kRecordFlagIgnorable = 1;  // a reader that does not know the type skips the record

struct RecordHeader {
  uint32_t header_crc = 0;
  uint32_t body_crc = 0;
  uint32_t length = 0;  // header, body and zero padding; a multiple of kRecordAlign
  uint8_t type = 0;
  uint8_t flags = 0;
  uint16_t reserved = 0;
  uint64_t sequence = 0;          // previous record's + 1, without gaps
  uint64_t acked_through = 0;     // every record up to here was synced when this one was stamped
  uint64_t wall_highest_ns = 0;   // the highest wall-clock time believed when this one was stamped
  uint32_t slot = kNoRecordSlot;  // of inserts and clears: the number of the entry's place in memory
  uint32_t reserved_2 = 0;
  // How many removals were stamped up to this record: equal numbers on both sides of a gap prove that none is in it.
  // One that was stamped twice, because its segment failed, counts twice.
  uint64_t removals = 0;
  uint64_t reserved_tail = 0;
};
static_assert(std::is_trivially_copyable_v<RecordHeader> && std::is_standard_layout_v<RecordHeader>);
static_assert(sizeof(RecordHeader) == kRecordAlign);
static_assert(offsetof(RecordHeader, header_crc) == 0 && offsetof(RecordHeader, body_crc) == 4 &&
              offsetof(RecordHeader, length) == 8 && offsetof(RecordHeader, type) == 12 &&
              offsetof(RecordHeader, flags) == 13 && offsetof(RecordHeader, reserved) == 14 &&
              offsetof(RecordHeader, sequence) == 16 && offsetof(RecordHeader, acked_through) == 24 &&
              offsetof(RecordHeader, wall_highest_ns) == 32 && offsetof(RecordHeader, slot) == 40 &&
              offsetof(RecordHeader, reserved_2) == 44 && offsetof(RecordHeader, removals) == 48 &&
              offsetof(RecordHeader, reserved_tail) == 56);

// Behind it: `width` floats, then the text.
struct InsertBody {
  uint64_t wall_expiry_ns = 0;
  uint32_t ttl_s = 0;
  uint32_t variant = 0;
  uint32_t text_bytes = 0;
  uint32_t width = 0;
  uint32_t token_count = 0;
  float norm = 0;
  uint32_t flags = 0;  // kInsertTruncated
  // How old the entry was when this was written: 0 for a new one, more for one that is appended again, whose ttl_s is
  // what it had left. Together they are what it was given.
  uint32_t age_s = 0;
};
inline constexpr uint32_t kInsertTruncated = 1;
static_assert(std::is_trivially_copyable_v<InsertBody> && sizeof(InsertBody) == 40);
static_assert(offsetof(InsertBody, wall_expiry_ns) == 0 && offsetof(InsertBody, ttl_s) == 8 &&
              offsetof(InsertBody, variant) == 12 && offsetof(InsertBody, text_bytes) == 16 &&
              offsetof(InsertBody, width) == 20 && offsetof(InsertBody, token_count) == 24 &&
              offsetof(InsertBody, norm) == 28 && offsetof(InsertBody, flags) == 32 &&
              offsetof(InsertBody, age_s) == 36);

// The key by its XXH3-128 with the header's seed, which makes a removal as long as the shortest insert of no text.
struct EraseBody {
  uint64_t digest_low = 0, digest_high = 0;
  uint32_t variant = 0;
  uint32_t reserved = 0;
};
static_assert(std::is_trivially_copyable_v<EraseBody> && sizeof(EraseBody) == 24);
static_assert(offsetof(EraseBody, digest_low) == 0 && offsetof(EraseBody, digest_high) == 8 &&
              offsetof(EraseBody, variant) == 16 && offsetof(EraseBody, reserved) == 20);

// A complete record without a place in the log yet: checksummed outside all locks, copied into a group under one.
struct UnplacedRecord {
  RecordType type = RecordType::kNone;
  std::array<std::byte, sizeof(InsertBody)> fixed = {};
  uint32_t fixed_bytes = 0;
  std::span<const std::byte> vector;
  std::string_view text;
  uint32_t length = 0;
  uint32_t body_crc = 0;
  uint32_t slot = kNoRecordSlot;  // not covered by body_crc: it is known last

  static UnplacedRecord Insert(const InsertBody& body, std::span<const std::byte> vector, std::string_view text);
  static constexpr uint64_t LengthOfInsert(uint64_t width, uint64_t text_bytes) {
    return RoundUp(sizeof(RecordHeader) + sizeof(InsertBody) + width * sizeof(float) + text_bytes, kRecordAlign);
  }
  static UnplacedRecord Erase(const EraseBody& body);
  static UnplacedRecord Clear(uint32_t slot);
  static UnplacedRecord DropAll();

  // Writes header (without sequence and header_crc), body and padding: `length` bytes.
  void CopyTo(std::byte* at) const;
};

// Writes a watermark of `length` bytes, still without sequence and header_crc.
void EncodeWatermark(std::byte* at, uint32_t length);

// What a record's place in the log decides.
struct RecordStamp {
  uint64_t sequence = 0;
  uint64_t acked_through = 0;
  uint64_t wall_highest_ns = 0;
  uint64_t removals = 0;
};
// Gives the record at `at` its place in the log: everything that depends on segment, offset and sequence.
void StampRecord(std::byte* at, const SegmentId& id, uint64_t offset, const RecordStamp& stamp);

uint32_t RecordHeaderCrc(const RecordHeader& header, const SegmentId& id, uint64_t offset);

// A record as read: the views point into the reader's window.
struct WalRecord {
  RecordHeader header;
  uint64_t offset = 0;
  InsertBody insert;                  // type kInsert
  std::span<const std::byte> vector;  // type kInsert: width * 4 bytes, aligned to 4
  EraseBody erase;                    // type kErase
  std::string_view text;              // type kInsert
  RecordType type() const { return static_cast<RecordType>(header.type); }
};

// Splits the body (`header.length` bytes at `at`, checksums already verified) into its parts; false if the numbers in
// it contradict each other or `width`.
bool ParseBody(const std::byte* at, uint32_t width, WalRecord* record);

void EncodeSegmentHeader(const SegmentHeader& header, std::byte* block);

enum class HeaderState {
  kGood,
  kZero,        // nothing but zeros
  kBad,         // no copy fits, and at least one has no valid magic number and checksum
  kOlder,       // no copy fits, and one has a valid checksum but a format that this reader no longer knows
  kNewer,       // no copy fits, and one has a valid checksum but a format that this reader does not know
  kUnreadable,  // no copy fits, and the disk cannot read one (the reader's; ParseSegmentHeader never returns it)
  kMisplaced,   // every copy has a valid checksum, but not the model, width, number or id expected here
};
inline constexpr int kHeaderStateCount = 7;

struct SegmentExpectation {
  uint64_t number = 0;
  ModelIdentity model = {};
  uint32_t width = 0;
  std::optional<SegmentId> id = {};  // if the header of the next segment names it
};

// Reads the header from the first kSegmentDataStart bytes of a segment: the first copy that fits counts, because a
// misdirected write may have put another segment's header over the other one. `header` is filled for kGood only.
HeaderState ParseSegmentHeader(std::span<const std::byte> blocks, const SegmentExpectation& expected,
                               SegmentHeader* header);

// "wal-000000000000000a.log" and back; 0 for any other name.
std::string SegmentName(uint64_t number);
uint64_t SegmentNumber(std::string_view name);

// 64 hex digits to bytes; false if `hex` is anything else.
bool ParseIdentity(std::string_view hex, ModelIdentity* identity);

}  // namespace sutra
