// The index at the end of a closed segment: what a start needs of each record, 64 bytes instead of vector and text. A
// start reads the indexes of closed segments and the records of the last one only; texts and vectors come to memory
// later, each from its record (cache/entry_loader.h).
//
//   header | records ... | (unused) | entries, one per insert, erase, clear and drop-all, in order | trailer
//                                   ^ a block boundary                                              ^ end of the
//                                   segment
//
// Nothing depends on an index: it is written behind the last record, when all of them are synced, is not synced itself,
// and whoever finds none, or a damaged one, reads the records. What it says of an entry is checked against the record
// when that is read. A segment whose records are so small that their index would take more than half of it has none.
//
// Thread rule: one thread.
#pragma once

#include <optional>
#include <vector>

#include "cache/disk/disk_io.h"
#include "cache/wal/wal_format.h"

namespace sutra {

struct IndexEntry {
  uint64_t digest_low = 0, digest_high = 0;  // of inserts and erases: the key's
  uint64_t wall_expiry_ns = 0;               // of inserts, like what follows
  uint64_t wall_highest_ns = 0;              // the record's stamp
  uint32_t place = 0;                        // the record's offset in the segment / kRecordAlign
  uint32_t slot = kNoRecordSlot;             // of clears too
  uint32_t variant = 0;                      // of erases too
  uint32_t text_bytes = 0;
  uint32_t ttl_s = 0;
  uint32_t token_count = 0;
  uint8_t type = 0;  // RecordType
  uint8_t truncated = 0;
  uint16_t reserved = 0;
  uint32_t age_s = 0;  // of inserts
  RecordType record_type() const { return static_cast<RecordType>(type); }
};
static_assert(std::is_trivially_copyable_v<IndexEntry> && sizeof(IndexEntry) == 64);
static_assert(offsetof(IndexEntry, wall_expiry_ns) == 16 && offsetof(IndexEntry, wall_highest_ns) == 24 &&
              offsetof(IndexEntry, place) == 32 && offsetof(IndexEntry, slot) == 36 &&
              offsetof(IndexEntry, variant) == 40 && offsetof(IndexEntry, text_bytes) == 44 &&
              offsetof(IndexEntry, ttl_s) == 48 && offsetof(IndexEntry, token_count) == 52 &&
              offsetof(IndexEntry, type) == 56 && offsetof(IndexEntry, truncated) == 57 &&
              offsetof(IndexEntry, reserved) == 58 && offsetof(IndexEntry, age_s) == 60);

inline constexpr std::array<char, 8> kIndexMagic = {'S', 'U', 'T', 'R', 'A', 'I', 'D', 'X'};
struct IndexTrailer {
  std::array<char, 8> magic = kIndexMagic;
  SegmentId id = {};  // of the segment: another one's, left in a file that is used again, does not count
  uint64_t entries = 0;
  uint64_t records_end = 0;      // the offset behind the last record
  uint64_t sequence_last = 0;    // of the last record
  uint64_t removals = 0;         // as in it
  uint64_t wall_highest_ns = 0;  // the highest stamp of the records
  uint64_t clock_set_ns = 0;     // their first stamp that a clock which was set has told; 0: there is none
  uint64_t hash_seed = 0;        // of the digests
  uint32_t entries_crc = 0;
  uint32_t reserved = 0;
  uint32_t reserved_2 = 0;
  uint32_t trailer_crc = 0;  // of the bytes before it
};
static_assert(std::is_trivially_copyable_v<IndexTrailer> && sizeof(IndexTrailer) == 96);
static_assert(offsetof(IndexTrailer, id) == 8 && offsetof(IndexTrailer, entries) == 24 &&
              offsetof(IndexTrailer, records_end) == 32 && offsetof(IndexTrailer, sequence_last) == 40 &&
              offsetof(IndexTrailer, removals) == 48 && offsetof(IndexTrailer, wall_highest_ns) == 56 &&
              offsetof(IndexTrailer, clock_set_ns) == 64 && offsetof(IndexTrailer, hash_seed) == 72 &&
              offsetof(IndexTrailer, entries_crc) == 80 && offsetof(IndexTrailer, trailer_crc) == 92);

// The entry of a record that ParseBody has filled.
IndexEntry IndexEntryOf(const WalRecord& record, uint64_t hash_seed);

struct SegmentIndex {
  IndexTrailer trailer;
  std::vector<IndexEntry> entries;
};
enum class IndexState {
  kNone,     // or a damaged trailer, which cannot be told from it
  kDamaged,  // of the entries; the trailer is right
  kGood,
};
// Reads the index of a segment whose header is known. An error is one of the disk as a whole.
Result<IndexState> ReadSegmentIndex(DiskIo* io, FileHandle file, uint64_t file_bytes, const SegmentHeader& header,
                                    SegmentIndex* index);

// Collects the entries of the segment that is being written.
class SegmentIndexBuilder {
 public:
  void Begin(const SegmentHeader& header);
  // The records of a stamped group at `offset`. Without memory for them there will be no index.
  void Add(std::span<const std::byte> group, uint64_t offset);
  // What the index takes of the segment if so many records are added; 0 if there will be none.
  uint64_t BytesWith(uint64_t records) const;
  // There will be no index.
  void GiveUp();

  struct Blocks {
    AlignedBytes memory;
    uint64_t bytes = 0;
  };
  // What belongs at the end of the segment. REQUIRES: BytesWith(0) > 0 and there are records, the last of which ends at
  // `records_end`. Throws std::bad_alloc.
  Blocks Encode(uint64_t records_end) const;

 private:
  SegmentHeader header_;
  IndexTrailer trailer_;
  bool given_up_ = true;
  std::vector<IndexEntry> entries_;
};

}  // namespace sutra
