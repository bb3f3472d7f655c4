// WalReader: reads one segment and classifies what it finds at each place. It decides nothing; recovery does.
//
// Thread rule: one thread.
// Invariants:
//  - Nothing read is used before both checksums and every number in it are verified (wal_reader_test.cc tests it byte
//    by byte); no size from the disk is allocated before it is bounded.
//  - Reads go through a sliding window, so memory does not depend on the segment's size (a single record may need up to
//    kRecordBytesMax).
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "cache/disk/disk_io.h"
#include "cache/wal/segment_index.h"
#include "cache/wal/wal_format.h"

namespace sutra {

// What was found where the next record should be.
enum class RecordState {
  kGood,
  kEndOfSegment,      // the segment is full
  kMissing,           // the file is shorter than its header says
  kUnwritten,         // preallocated zeros; in a file that is written over, also whatever is no valid header
  kUnreadable,        // the disk cannot read the block that holds the header
  kBadHeader,         // invalid header checksum (also of content from another segment or offset) or impossible length
  kBadInsertBody,     // valid insert header, corrupt or unreadable body: certainly not a removal
  kBadWatermark,      // valid watermark header, corrupt or unreadable zeros: it held nothing
  kBadBody,           // valid header, corrupt or unreadable body
  kWrongSequence,     // valid except for the sequence: a record before it is missing
  kUnknownIgnorable,  // a type of a later version, marked as safe to skip
  kUnknown,           // a type of a later version
};
inline constexpr int kRecordStateCount = 12;

// What valid records further on in the same segment say.
enum class Follow {
  kNone,     // there are none
  kUnacked,  // there are some, but none says that the expected record had been synced
  kAcked,    // one says so: the expected record was lost after it was durable
};
inline constexpr int kFollowCount = 3;

class WalReader {
 public:
  // Whether an error speaks of a place that the disk cannot read (as over a bad sector), not of the disk as a whole.
  static bool IsUnreadable(const Status& status);

  // Opens the segment file and reads its header. What cannot be read, even block by block, is a state, not an error.
  static Result<std::unique_ptr<WalReader>> Open(DiskIo* io, const std::string& path,
                                                 const SegmentExpectation& expected);
  // Whether the disk reads any of a few blocks of records in this file; nothing if it is too short to hold one.
  static std::optional<bool> AnyBlockReads(DiskIo* io, const std::string& path);
  ~WalReader();

  HeaderState header_state() const { return header_state_; }
  const SegmentHeader& header() const { return header_; }
  uint64_t position() const { return position_; }
  uint64_t file_bytes() const { return file_bytes_; }
  // Continues with a header that an earlier reader of this file read: the disk may be unable to read it again.
  void Believe(const SegmentHeader& header);
  // The index at the segment's end. From now on records end where it says that they do.
  Result<IndexState> ReadIndex(SegmentIndex* index);

  // Whether any block of records that was wanted could be read.
  bool reads_records() const { return reads_records_; }
  // Blocks that were wanted and could not be read so far.
  uint64_t unreadable_blocks() const { return unreadable_.size(); }
  uint64_t unreadable_first() const { return unreadable_.empty() ? 0 : *unreadable_.begin(); }

  // Makes the file's data durable before anything is decided on it; after that it is read from the disk itself.
  Status SyncAndDropCache();
  // Makes durable what has been read.
  Status Sync() { return io_->Sync(file_); }

  // Classifies the record at the current position. `record` is filled for kGood, and its header for every state in
  // which the header checksum is valid; its views are valid until the next call.
  Result<RecordState> Classify(uint64_t expected_sequence, WalRecord* record);

  // Classifies the record at `offset`, whatever its sequence, and reads no more of the file than it needs.
  Result<RecordState> ReadAt(uint64_t offset, WalRecord* record);

  // Moves past the record at the current position, whose header was valid.
  void Skip(const WalRecord& record);

  // What follows behind the current position. The first call reads the segment to its end; later ones answer from what
  // it found, so that many damaged records cost one search.
  Result<Follow> LookAhead(uint64_t expected_sequence);

  // Moves to the next fully valid record with a higher sequence than `expected_sequence` and returns its sequence, or
  // 0.
  Result<uint64_t> Resync(uint64_t expected_sequence);

 private:
  WalReader(DiskIo* io, FileHandle file, uint64_t file_bytes) : io_(io), file_(file), file_bytes_(file_bytes) {}
  struct Piece {
    const std::byte* at = nullptr;  // null: unreadable, or the file ends before
    bool unreadable = false;
  };
  Result<Piece> View(uint64_t offset, uint64_t bytes);
  // Reads `into` from a block boundary on; what is unreadable becomes zeros and is noted. Returns the bytes there are.
  Result<uint64_t> ReadAround(uint64_t start, std::span<std::byte> into);
  bool TouchesUnreadable(uint64_t offset, uint64_t bytes) const;
  bool HeaderIsValid(const RecordHeader& header, uint64_t offset) const;
  Status ReadSegmentHeader(const SegmentExpectation& expected);
  Result<bool> RestIsZero(uint64_t from);
  Status ScanAhead();
  Result<RecordState> ClassifyAt(uint64_t offset, uint64_t expected_sequence, WalRecord* record);

  DiskIo* const io_;
  const FileHandle file_;
  const uint64_t file_bytes_;
  HeaderState header_state_ = HeaderState::kBad;
  SegmentHeader header_;
  uint64_t end_ = 0;  // where records must end
  uint64_t position_ = kSegmentDataStart;
  bool scanned_ = false;
  uint64_t sequence_highest_ = 0;  // found by ScanAhead
  uint64_t acked_highest_ = 0;     // likewise

  uint64_t window_bytes_min_ = 1u << 20;  // remains in the L2 cache between reading and checking
  AlignedBytes window_;
  uint64_t window_capacity_ = 0;
  uint64_t window_start_ = 0;
  uint64_t window_bytes_ = 0;
  std::set<uint64_t> unreadable_;  // offsets of blocks
  bool reads_records_ = false;
};

}  // namespace sutra
