// Building, writing out and checking the index of a segment.
#include "cache/wal/segment_index.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>

#include "cache/key_digest.h"
#include "cache/wal/believed_time.h"
#include "cache/wal/wal_reader.h"
#include "shm/base/crc32c.h"

namespace sutra {
namespace {

constexpr uint64_t kSegmentShare = 2;  // an index takes at most one part in so many of its segment
constexpr size_t kTrailerCrcOffset = offsetof(IndexTrailer, trailer_crc);

uint64_t RegionBytes(uint64_t entries) {
  return RoundUp(entries * sizeof(IndexEntry) + sizeof(IndexTrailer), kWalBlockBytes);
}

bool IsPlausible(const IndexTrailer& trailer, const SegmentHeader& header) {
  if (trailer.magic != kIndexMagic || trailer.id != header.id ||
      trailer.trailer_crc != Crc32c(&trailer, kTrailerCrcOffset)) {
    return false;
  }
  const uint64_t entries_max = header.segment_bytes / kSegmentShare / sizeof(IndexEntry);
  return trailer.entries <= entries_max && trailer.records_end >= kSegmentDataStart &&
         trailer.records_end <= header.segment_bytes - RegionBytes(trailer.entries) &&
         trailer.sequence_last >= header.previous_valid_through && trailer.removals >= header.removals;
}

// What the disk cannot read is as good as not there.
Result<bool> ReadAll(DiskIo* io, FileHandle file, uint64_t offset, std::span<std::byte> into) {
  const Result<size_t> read = io->Read(file, offset, into);
  if (read.ok()) return read.value() == into.size();
  if (WalReader::IsUnreadable(read.status())) return false;
  return read.status();
}

}  // namespace

IndexEntry IndexEntryOf(const WalRecord& record, uint64_t hash_seed) {
  IndexEntry entry;
  entry.type = record.header.type;
  entry.place = static_cast<uint32_t>(record.offset / kRecordAlign);
  entry.slot = record.header.slot;
  entry.wall_highest_ns = record.header.wall_highest_ns;
  if (record.type() == RecordType::kErase) {
    entry.digest_low = record.erase.digest_low;
    entry.digest_high = record.erase.digest_high;
    entry.variant = record.erase.variant;
  }
  if (record.type() != RecordType::kInsert) return entry;
  const KeyDigest digest = DigestOf(record.text, record.insert.variant, hash_seed);
  entry.digest_low = digest.low;
  entry.digest_high = digest.high;
  entry.wall_expiry_ns = record.insert.wall_expiry_ns;
  entry.variant = record.insert.variant;
  entry.text_bytes = record.insert.text_bytes;
  entry.ttl_s = record.insert.ttl_s;
  entry.age_s = record.insert.age_s;
  entry.token_count = record.insert.token_count;
  entry.truncated = (record.insert.flags & kInsertTruncated) != 0;
  return entry;
}

Result<IndexState> ReadSegmentIndex(DiskIo* io, FileHandle file, uint64_t file_bytes, const SegmentHeader& header,
                                    SegmentIndex* index) {
  if (file_bytes < header.segment_bytes || header.segment_bytes <= kSegmentDataStart) return IndexState::kNone;
  IndexTrailer& trailer = index->trailer;
  const uint64_t trailer_at = header.segment_bytes - sizeof(trailer);
  Result<bool> read = ReadAll(io, file, trailer_at, std::as_writable_bytes(std::span(&trailer, 1)));
  if (!read.ok()) return read.status();
  if (!read.value() || !IsPlausible(trailer, header)) return IndexState::kNone;
  index->entries.resize(trailer.entries);
  const std::span<std::byte> entries = std::as_writable_bytes(std::span(index->entries));
  read = ReadAll(io, file, header.segment_bytes - RegionBytes(trailer.entries), entries);
  if (!read.ok()) return read.status();
  const bool right = read.value() && trailer.entries_crc == Crc32c(entries.data(), entries.size());
  return right ? IndexState::kGood : IndexState::kDamaged;
}

void SegmentIndexBuilder::Begin(const SegmentHeader& header) {
  header_ = header;
  entries_.clear();
  given_up_ = false;
  trailer_ = IndexTrailer{};
  trailer_.id = header.id;
  trailer_.hash_seed = header.hash_seed;
  trailer_.sequence_last = header.previous_valid_through;
  trailer_.removals = header.removals;
}

void SegmentIndexBuilder::GiveUp() {
  given_up_ = true;
  entries_ = {};
}

void SegmentIndexBuilder::Add(std::span<const std::byte> group, uint64_t offset) {
  if (given_up_) return;
  try {
    for (uint64_t at = 0; at < group.size();) {
      WalRecord record;
      std::memcpy(&record.header, group.data() + at, sizeof(record.header));
      record.offset = offset + at;
      if (!ParseBody(group.data() + at, header_.width, &record)) return GiveUp();
      const uint64_t wall_ns = record.header.wall_highest_ns;
      trailer_.wall_highest_ns = std::max(trailer_.wall_highest_ns, wall_ns);
      if (trailer_.clock_set_ns == 0 && wall_ns >= kClockSetNs) trailer_.clock_set_ns = wall_ns;
      trailer_.sequence_last = record.header.sequence;
      trailer_.removals = record.header.removals;
      if (record.type() != RecordType::kWatermark) entries_.push_back(IndexEntryOf(record, header_.hash_seed));
      at += record.header.length;
    }
  } catch (const std::bad_alloc&) {
    GiveUp();
  }
  if (RegionBytes(entries_.size()) > header_.segment_bytes / kSegmentShare) GiveUp();
}

uint64_t SegmentIndexBuilder::BytesWith(uint64_t records) const {
  if (given_up_) return 0;
  const uint64_t bytes = RegionBytes(entries_.size() + records);
  return bytes <= header_.segment_bytes / kSegmentShare ? bytes : 0;
}

SegmentIndexBuilder::Blocks SegmentIndexBuilder::Encode(uint64_t records_end) const {
  assert(!given_up_ && records_end % kRecordAlign == 0);
  Blocks blocks;
  blocks.bytes = RegionBytes(entries_.size());
  blocks.memory = AllocateAligned(blocks.bytes);
  const size_t entry_bytes = entries_.size() * sizeof(IndexEntry);
  IndexTrailer trailer = trailer_;
  trailer.entries = entries_.size();
  trailer.records_end = records_end;
  trailer.entries_crc = Crc32c(entries_.data(), entry_bytes);
  trailer.trailer_crc = Crc32c(&trailer, kTrailerCrcOffset);
  std::byte* at = blocks.memory.get();
  std::memset(at, 0, blocks.bytes);
  if (entry_bytes > 0) std::memcpy(at, entries_.data(), entry_bytes);
  std::memcpy(at + blocks.bytes - sizeof(trailer), &trailer, sizeof(trailer));
  return blocks;
}

}  // namespace sutra
