// The sliding window over a segment, the classification of one record, and the two searches behind it.
#include "cache/wal/wal_reader.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <vector>

#include "shm/base/crc32c.h"

namespace sutra {
namespace {

bool IsZero(const std::byte* at, uint64_t bytes) {
  return at[0] == std::byte{0} && std::memcmp(at, at + 1, bytes - 1) == 0;
}

// What a valid header says about a corrupt body: of these two it is known that they removed nothing.
RecordState BadBodyOf(RecordType type) {
  if (type == RecordType::kInsert) return RecordState::kBadInsertBody;
  return type == RecordType::kWatermark ? RecordState::kBadWatermark : RecordState::kBadBody;
}

}  // namespace

bool WalReader::IsUnreadable(const Status& status) {
  switch (status.os_error()) {
    case EIO:
    case ENODATA:  // what some drivers make of a bad sector
    case EBADMSG:  // a checksum of the file system or the device
    case EUCLEAN:  // likewise
    case EILSEQ:
    case EREMOTEIO: return true;
    default: return false;
  }
}

Result<std::unique_ptr<WalReader>> WalReader::Open(DiskIo* io, const std::string& path,
                                                   const SegmentExpectation& expected) {
  Result<FileHandle> file = io->Open(path, OpenMode::kRead);
  if (!file.ok() && IsUnreadable(file.status())) file = io->Open(path, OpenMode::kRead);  // it may pass
  if (!file.ok()) return file.status();
  Result<uint64_t> bytes = io->Size(*file);
  if (!bytes.ok()) bytes = io->Size(*file);
  std::unique_ptr<WalReader> reader(new WalReader(io, *file, bytes.ok() ? *bytes : 0));
  if (!bytes.ok()) return bytes.status();
  if (Status status = reader->ReadSegmentHeader(expected); !status.ok()) return status;
  return reader;
}

std::optional<bool> WalReader::AnyBlockReads(DiskIo* io, const std::string& path) {
  const Result<FileHandle> file = io->Open(path, OpenMode::kRead);
  if (!file.ok()) return false;
  const Result<uint64_t> bytes = io->Size(*file);
  const uint64_t blocks = (bytes.ok() ? *bytes : 0) / kWalBlockBytes;
  std::vector<std::byte> block(kWalBlockBytes);
  bool reads = false;
  // Not all of them: a failing disk may take seconds over each.
  for (const uint64_t number : {kSegmentHeaderCopies, blocks / 2, blocks - 1}) {
    if (reads || number < kSegmentHeaderCopies || number >= blocks) continue;
    reads = io->Read(*file, number * kWalBlockBytes, block).ok();
  }
  io->Close(*file);
  if (bytes.ok() && blocks <= kSegmentHeaderCopies) return std::nullopt;
  return reads;
}

WalReader::~WalReader() { io_->Close(file_); }

Status WalReader::SyncAndDropCache() {
  // A failure may speak of a write of the dead engine that is lost already. Repeating it proves nothing about that
  // write, but the cache is dropped next, so whatever is read counts only if the disk has it.
  Status status = io_->Sync(file_);
  if (!status.ok()) status = io_->Sync(file_);
  if (!status.ok()) return status;
  io_->DropCache(file_);
  window_bytes_ = 0;
  return {};
}

Status WalReader::ReadSegmentHeader(const SegmentExpectation& expected) {
  std::vector<std::byte> blocks(std::min(file_bytes_, kSegmentDataStart));
  const Result<uint64_t> read = ReadAround(0, blocks);
  if (!read.ok()) return read.status();
  blocks.resize(read.value());
  header_state_ = ParseSegmentHeader(blocks, expected, &header_);
  if (file_bytes_ < kSegmentDataStart) header_state_ = HeaderState::kBad;
  if (header_state_ == HeaderState::kZero) {
    // Zeros in the header alone are rot; only a file that holds nothing but zeros was never begun.
    const Result<bool> zero = RestIsZero(0);
    if (!zero.ok()) return zero.status();
    if (!zero.value()) header_state_ = HeaderState::kBad;
  }
  const bool decided = header_state_ == HeaderState::kGood || header_state_ == HeaderState::kOlder ||
                       header_state_ == HeaderState::kNewer;
  if (!decided && unreadable_blocks() > 0) header_state_ = HeaderState::kUnreadable;
  end_ = header_.segment_bytes;
  return {};
}

void WalReader::Believe(const SegmentHeader& header) {
  header_ = header;
  header_state_ = HeaderState::kGood;
  end_ = header_.segment_bytes;
}

Result<IndexState> WalReader::ReadIndex(SegmentIndex* index) {
  const Result<IndexState> state = ReadSegmentIndex(io_, file_, file_bytes_, header_, index);
  if (state.ok() && state.value() != IndexState::kNone) end_ = index->trailer.records_end;
  return state;
}

Result<bool> WalReader::RestIsZero(uint64_t from) {
  for (uint64_t at = from; at < file_bytes_; at += kRecordAlign) {
    const uint64_t bytes = std::min(kRecordAlign, file_bytes_ - at);
    const Result<Piece> piece = View(at, bytes);
    if (!piece.ok()) return piece.status();
    if (piece->unreadable || (piece->at != nullptr && !IsZero(piece->at, bytes))) return false;
  }
  return true;
}

Result<WalReader::Piece> WalReader::View(uint64_t offset, uint64_t bytes) {
  assert(bytes <= kRecordBytesMax);  // HeaderIsValid refuses longer records
  if (offset > file_bytes_ || bytes > file_bytes_ - offset) return Piece{};
  const bool inside = offset >= window_start_ && offset - window_start_ <= window_bytes_ &&
                      bytes <= window_bytes_ - (offset - window_start_);
  if (!inside) {
    const uint64_t start = offset - offset % kWalBlockBytes;
    const uint64_t wanted = RoundUp(offset - start + bytes, kWalBlockBytes);
    if (wanted > window_capacity_) {
      window_capacity_ = std::max(wanted, window_bytes_min_);
      window_ = AllocateAligned(window_capacity_);
    }
    window_start_ = start;
    window_bytes_ = 0;
    const Result<uint64_t> read = ReadAround(start, {window_.get(), std::min(window_capacity_, file_bytes_ - start)});
    if (!read.ok()) return read.status();
    window_bytes_ = read.value();
    // The file became shorter since it was opened.
    if (offset - start + bytes > window_bytes_) return Piece{};
  }
  if (TouchesUnreadable(offset, bytes)) return Piece{nullptr, true};
  return Piece{window_.get() + (offset - window_start_), false};
}

Result<uint64_t> WalReader::ReadAround(uint64_t start, std::span<std::byte> into) {
  assert(start % kWalBlockBytes == 0);
  const Result<size_t> whole = io_->Read(file_, start, into);
  if (whole.ok()) {
    reads_records_ = reads_records_ || start + whole.value() > kSegmentDataStart;
    return uint64_t{whole.value()};
  }
  if (!IsUnreadable(whole.status())) return whole.status();
  uint64_t done = 0;
  while (done < into.size()) {
    const std::span<std::byte> block = into.subspan(done, std::min<uint64_t>(kWalBlockBytes, into.size() - done));
    const Result<size_t> read = io_->Read(file_, start + done, block);
    if (read.ok()) {
      done += read.value();
      reads_records_ = reads_records_ || start + done > kSegmentDataStart;
      if (read.value() < block.size()) break;
      continue;
    }
    if (!IsUnreadable(read.status())) return read.status();
    unreadable_.insert(start + done);
    std::fill(block.begin(), block.end(), std::byte{0});
    done += block.size();
  }
  return done;
}

bool WalReader::TouchesUnreadable(uint64_t offset, uint64_t bytes) const {
  const auto found = unreadable_.lower_bound(offset - offset % kWalBlockBytes);
  return found != unreadable_.end() && *found < offset + bytes;
}

void WalReader::Skip(const WalRecord& record) {
  const uint64_t length = record.header.length;
  assert(record.offset == position_ && length >= kRecordAlign && length % kRecordAlign == 0);
  assert(length <= end_ - position_);
  position_ += length;
}

bool WalReader::HeaderIsValid(const RecordHeader& header, uint64_t offset) const {
  assert(offset < end_);
  return header.type != 0 && header.length >= sizeof(RecordHeader) && header.length % kRecordAlign == 0 &&
         header.length <= kRecordBytesMax && header.length <= end_ - offset &&
         header.header_crc == RecordHeaderCrc(header, header_.id, offset);
}

Result<RecordState> WalReader::Classify(uint64_t expected_sequence, WalRecord* record) {
  return ClassifyAt(position_, expected_sequence, record);
}

Result<RecordState> WalReader::ReadAt(uint64_t offset, WalRecord* record) {
  if (offset < kSegmentDataStart) return RecordState::kBadHeader;
  window_bytes_min_ = 0;
  const Result<RecordState> state = ClassifyAt(offset, 0, record);  // no record has this number
  if (!state.ok() || state.value() != RecordState::kWrongSequence) return state;
  return ClassifyAt(offset, record->header.sequence, record);
}

Result<RecordState> WalReader::ClassifyAt(uint64_t offset, uint64_t expected_sequence, WalRecord* record) {
  if (offset >= end_) return RecordState::kEndOfSegment;
  Result<Piece> piece = View(offset, sizeof(RecordHeader));
  if (!piece.ok()) return piece.status();
  if (piece->unreadable) return RecordState::kUnreadable;
  if (piece->at == nullptr) return RecordState::kMissing;
  record->offset = offset;
  std::memcpy(&record->header, piece->at, sizeof(RecordHeader));
  const RecordHeader& header = record->header;
  if (!HeaderIsValid(header, offset)) {
    const bool written_over = (header_.flags & kSegmentWrittenOver) != 0;
    const bool unwritten = written_over || IsZero(piece->at, sizeof(RecordHeader));
    return unwritten ? RecordState::kUnwritten : RecordState::kBadHeader;
  }
  piece = View(offset, header.length);
  if (!piece.ok()) return piece.status();
  if (piece->at == nullptr && !piece->unreadable) return RecordState::kMissing;
  if (header.sequence != expected_sequence) return RecordState::kWrongSequence;
  if (piece->unreadable) return BadBodyOf(record->type());
  const bool body_right =
      header.body_crc == Crc32c(piece->at + sizeof(RecordHeader), header.length - sizeof(RecordHeader));
  const bool known = header.type <= kRecordTypeMax;
  if (body_right && !known) {
    return (header.flags & kRecordFlagIgnorable) != 0 ? RecordState::kUnknownIgnorable : RecordState::kUnknown;
  }
  if (body_right && ParseBody(piece->at, header_.width, record)) return RecordState::kGood;
  return BadBodyOf(record->type());
}

Result<Follow> WalReader::LookAhead(uint64_t expected_sequence) {
  if (!scanned_) {
    if (Status status = ScanAhead(); !status.ok()) return status;
    scanned_ = true;
  }
  // A record that says so lies behind the current position: it has a higher sequence than any that it names.
  if (acked_highest_ >= expected_sequence) return Follow::kAcked;
  return sequence_highest_ > expected_sequence ? Follow::kUnacked : Follow::kNone;
}

Status WalReader::ScanAhead() {
  for (uint64_t at = position_; at < end_; at += kRecordAlign) {
    const Result<Piece> piece = View(at, sizeof(RecordHeader));
    if (!piece.ok()) return piece.status();
    if (piece->unreadable) continue;
    if (piece->at == nullptr) break;
    if (IsZero(piece->at, sizeof(RecordHeader))) continue;
    RecordHeader header;
    std::memcpy(&header, piece->at, sizeof(header));
    // A valid header is evidence enough, whatever became of the body.
    if (!HeaderIsValid(header, at)) continue;
    sequence_highest_ = std::max(sequence_highest_, header.sequence);
    acked_highest_ = std::max(acked_highest_, header.acked_through);
  }
  return {};
}

Result<uint64_t> WalReader::Resync(uint64_t expected_sequence) {
  for (uint64_t at = position_; at < end_; at += kRecordAlign) {
    const Result<Piece> piece = View(at, sizeof(RecordHeader));
    if (!piece.ok()) return piece.status();
    if (piece->unreadable) continue;
    if (piece->at == nullptr) break;
    RecordHeader header;
    std::memcpy(&header, piece->at, sizeof(header));
    if (!HeaderIsValid(header, at) || header.sequence <= expected_sequence) continue;
    WalRecord record;
    const Result<RecordState> state = ClassifyAt(at, header.sequence, &record);
    if (!state.ok()) return state.status();
    if (state.value() != RecordState::kGood) continue;
    position_ = at;
    return header.sequence;
  }
  return uint64_t{0};
}

}  // namespace sutra
