// The same reader and the same decisions as recovery's; here every byte that was not as written is named.
#include "cache/segment_verifier.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cache/disk/disk_io.h"
#include "shm/base/crc32c.h"
#include "shm/base/utf8.h"

namespace sutra {
namespace {

constexpr double kUnitTolerance = 1e-3;
constexpr uint64_t kGoOnBytes = 4u << 20;

// What is wrong with an entry whose checksums are right; "" if nothing is.
std::string WhatIsWrong(const WalRecord& record) {
  std::vector<float> vector(record.insert.width);
  std::memcpy(vector.data(), record.vector.data(), record.vector.size());
  double square = 0;
  for (size_t i = 0; i < vector.size(); ++i) {
    if (!std::isfinite(vector[i])) return "float " + std::to_string(i) + " of the vector is not finite";
    square += double{vector[i]} * double{vector[i]};
  }
  if (square != 0 && std::abs(std::sqrt(square) - 1) > kUnitTolerance) {
    return "the vector has the length " + std::to_string(std::sqrt(square)) + ", neither 1 nor 0";
  }
  if (!std::isfinite(record.insert.norm) || record.insert.norm < 0) return "the vector's norm is no length";
  if (!IsValidUtf8(record.text)) return "the text is not UTF-8";
  return "";
}

const char* TextOf(RecordState state) {
  switch (state) {
    case RecordState::kEndOfSegment: return "the segment ends where a record should be";
    case RecordState::kMissing: return "the file ends where a record should be";
    case RecordState::kUnwritten: return "there are zeros where a record should be";
    case RecordState::kUnreadable: return "the disk cannot read the block in which a record should be";
    case RecordState::kBadHeader: return "the header of a record is damaged";
    case RecordState::kBadInsertBody: return "an entry's text, vector or values are damaged";
    case RecordState::kBadWatermark: return "padding, which holds nothing, is damaged";
    case RecordState::kBadBody: return "the body of a removal is damaged";
    case RecordState::kWrongSequence: return "a record before this one is missing";
    case RecordState::kUnknown: return "a record of a later version";
    case RecordState::kGood:
    case RecordState::kUnknownIgnorable: break;
  }
  return "a record";
}

bool HeaderIsRight(RecordState state) {
  return state == RecordState::kBadInsertBody || state == RecordState::kBadWatermark ||
         state == RecordState::kUnknownIgnorable;
}

}  // namespace

void VerifiedEntries::Insert(const WalRecord& record, uint64_t hash_seed, const std::string& path) {
  const KeyDigest digest = DigestOf(record.text, record.insert.variant, hash_seed);
  Erase(digest);
  Clear(record.header.slot);
  slots_[record.header.slot] = digest;
  keys_[digest] = record.header.slot;
  if (std::string what = WhatIsWrong(record); !what.empty()) {
    faults_[record.header.slot] = {path, record.offset, std::move(what)};
  }
}

void VerifiedEntries::Clear(uint32_t slot) {
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return;
  keys_.erase(found->second);
  slots_.erase(found);
  faults_.erase(slot);
}

void VerifiedEntries::Erase(const KeyDigest& digest) {
  const auto found = keys_.find(digest);
  if (found != keys_.end()) Clear(found->second);
}

void VerifiedEntries::DropAll() {
  slots_.clear();
  keys_.clear();
  faults_.clear();
}

void VerifiedEntries::Report(VerifyReport* report) const {
  for (const auto& [slot, fault] : faults_) {
    report->Add(VerifyFinding::Kind::kDamage, fault.path, fault.offset,
                "the checksums are right, but " + fault.what + " (entry " + std::to_string(slot) + ")");
  }
}

Status SegmentVerifier::CheckHeader(const SegmentExpectation& expected) {
  const Result<FileHandle> file = io_->Open(path_, OpenMode::kRead);
  if (!file.ok()) return file.status();
  std::vector<std::byte> first;
  for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
    std::vector<std::byte> block(kWalBlockBytes);
    const Result<size_t> read = io_->Read(*file, copy * kWalBlockBytes, block);
    SegmentHeader header;
    const bool right = read.ok() && *read == block.size() &&
                       ParseSegmentHeader(block, expected, &header) == HeaderState::kGood &&
                       (first.empty() || first == block);
    if (right && first.empty()) first = block;
    if (!right)
      Damage(copy * kWalBlockBytes, "copy " + std::to_string(copy + 1) + " of the segment's header is damaged");
  }
  io_->Close(*file);
  return {};
}

Status SegmentVerifier::CheckRecords(const SegmentHeader& header, const SegmentHeader* next, const GoOn& go_on) {
  const SegmentExpectation expected{header.number, header.model, header.width, header.id};
  Result<std::unique_ptr<WalReader>> opened = WalReader::Open(io_, path_, expected);
  if (!opened.ok()) return opened.status();
  const std::unique_ptr<WalReader> reader = std::move(opened).value();
  reader->Believe(header);
  if (reader->file_bytes() != header.segment_bytes) {
    Damage(reader->file_bytes(), "the file has " + std::to_string(reader->file_bytes()) +
                                     " bytes, but its header says " + std::to_string(header.segment_bytes));
  }
  if (Status status = ReadIndex(header, reader.get()); !status.ok()) return status;
  if (Status status = ReadRecords(header, next, reader.get(), go_on); !status.ok()) return status;
  CompareIndex(header, next);
  ++report_->segments;
  if (next != nullptr && next->removals < removals_) {
    Damage(std::nullopt, "the next segment counts fewer removals than this one holds");
  }
  return {};
}

// A damaged trailer cannot be told from none by a reader; by a checker it can, where a part of it is right.
Status SegmentVerifier::ReadIndex(const SegmentHeader& header, WalReader* reader) {
  const Result<IndexState> state = reader->ReadIndex(&index_);
  if (!state.ok()) return state.status();
  index_state_ = *state;
  if (index_state_ == IndexState::kDamaged) Damage(index_.trailer.records_end, "the index is damaged");
  if (index_state_ != IndexState::kNone || reader->file_bytes() < header.segment_bytes) return {};
  const uint64_t at = header.segment_bytes - sizeof(IndexTrailer);
  const Result<FileHandle> file = io_->Open(path_, OpenMode::kRead);
  if (!file.ok()) return file.status();
  IndexTrailer trailer;
  const Result<size_t> read = io_->Read(*file, at, std::as_writable_bytes(std::span(&trailer, 1)));
  io_->Close(*file);
  if (!read.ok()) {
    Damage(at, "the end of the segment cannot be read");
  } else if (trailer.id == header.id || (trailer.magic == kIndexMagic && (header.flags & kSegmentWrittenOver) == 0)) {
    Damage(at, "the trailer of the index is damaged");
  }
  return {};
}

Status SegmentVerifier::ReadRecords(const SegmentHeader& header, const SegmentHeader* next, WalReader* reader,
                                    const GoOn& go_on) {
  removals_ = header.removals;
  uint64_t expected = header.previous_valid_through + 1;
  uint64_t go_on_at = kGoOnBytes;
  for (;;) {
    const Bound bound = next == nullptr                           ? Bound::kOpen
                        : expected > next->previous_valid_through ? Bound::kReached
                                                                  : Bound::kBelow;
    if (bound == Bound::kReached) return {};
    if (reader->position() >= go_on_at) {
      if (!go_on(reader->position())) return Status(StatusCode::kCancelled, "stopped");
      go_on_at = reader->position() + kGoOnBytes;
    }
    WalRecord record;
    const Result<RecordState> state = reader->Classify(expected, &record);
    if (!state.ok()) return state.status();
    if (*state == RecordState::kGood) {
      Take(record, header);
      reader->Skip(record);
      records_end_ = reader->position();
      ++expected;
      continue;
    }
    Follow follow = Follow::kNone;
    if (NeedsLookAhead(bound, *state)) {
      const Result<Follow> seen = reader->LookAhead(expected);
      if (!seen.ok()) return seen.status();
      follow = *seen;
    }
    const Result<bool> on = Judge(DecideRecord(bound, *state, follow), *state, record, reader, &expected);
    if (!on.ok() || !*on) return on.status();
  }
}

void SegmentVerifier::Take(const WalRecord& record, const SegmentHeader& header) {
  ++report_->records;
  const uint64_t counted = removals_ + (IsRemoval(record.type()) ? 1 : 0);
  if (record.header.removals != counted) {
    Damage(record.offset, "record " + std::to_string(record.header.sequence) + " counts " +
                              std::to_string(record.header.removals) + " removals, but " + std::to_string(counted) +
                              " are in the log");
  }
  removals_ = record.header.removals;
  switch (record.type()) {
    case RecordType::kInsert: entries_->Insert(record, header.hash_seed, path_); break;
    case RecordType::kErase: entries_->Erase({record.erase.digest_low, record.erase.digest_high}); break;
    case RecordType::kClear: entries_->Clear(record.header.slot); break;
    case RecordType::kDropAll: entries_->DropAll(); break;
    case RecordType::kNone:
    case RecordType::kWatermark: return;
  }
  if (index_state_ == IndexState::kGood) seen_.push_back(IndexEntryOf(record, header.hash_seed));
}

Result<bool> SegmentVerifier::Judge(RecordDecision decision, RecordState state, const WalRecord& record,
                                    WalReader* reader, uint64_t* expected) {
  const uint64_t at = reader->position();
  switch (decision) {
    case RecordDecision::kEnd: return false;
    case RecordDecision::kCleanEnd:
    case RecordDecision::kCutTorn:
    case RecordDecision::kCutUnordered:
      // A segment that was closed says where its records end, so this is not a crash's work.
      if (IndexedThrough() >= *expected) break;
      if (decision == RecordDecision::kCleanEnd) return false;
      return TornTail(at, reader->file_bytes());
    case RecordDecision::kSkip:
    case RecordDecision::kReplay:
    case RecordDecision::kDropInsert:
    case RecordDecision::kSkipWatermark: return PassOver(state, record, reader, expected);
    case RecordDecision::kRefuse:
    case RecordDecision::kVoid: break;
  }
  if (HeaderIsRight(state)) return PassOver(state, record, reader, expected);
  whole_ = false;
  Damage(at, TextOf(state));
  if (decision == RecordDecision::kRefuse) return false;
  const Result<uint64_t> resumed = reader->Resync(*expected);
  if (!resumed.ok()) return resumed.status();
  if (*resumed == 0) {
    report_->wrong_records += std::max(IndexedThrough(), *expected) - *expected + 1;
    return false;
  }
  report_->wrong_records += *resumed - *expected;
  report_->Add(VerifyFinding::Kind::kNote, path_, reader->position(),
               "records go on here, " + std::to_string(*resumed - *expected) + " are missing before");
  *expected = *resumed;
  WalRecord next;
  const Result<RecordState> found = reader->Classify(*expected, &next);
  if (!found.ok()) return found.status();
  removals_ = next.header.removals - (IsRemoval(next.type()) ? 1 : 0);
  return true;
}

// A record whose header is right, so that it is known where the next one is.
Result<bool> SegmentVerifier::PassOver(RecordState state, const WalRecord& record, WalReader* reader,
                                       uint64_t* expected) {
  if (state != RecordState::kUnknownIgnorable) {
    whole_ = false;
    Damage(reader->position(), TextOf(state));
    if (state != RecordState::kBadWatermark) ++report_->wrong_records;
  }
  removals_ = record.header.removals;
  reader->Skip(record);
  records_end_ = reader->position();
  ++*expected;
  return true;
}

uint64_t SegmentVerifier::IndexedThrough() const {
  return index_state_ == IndexState::kNone ? 0 : index_.trailer.sequence_last;
}

Result<bool> SegmentVerifier::TornTail(uint64_t from, uint64_t end) {
  const Result<uint64_t> torn = TornBytes(from, end);
  if (!torn.ok()) return torn.status();
  report_->torn_bytes += *torn;
  report_->Add(VerifyFinding::Kind::kNote, path_, from,
               "torn tail: " + std::to_string(*torn) + " bytes, as after a crash; nobody was told that they are safe");
  return false;
}

// What lies behind the last record and is not zero, in whole blocks.
Result<uint64_t> SegmentVerifier::TornBytes(uint64_t from, uint64_t end) {
  const Result<FileHandle> file = io_->Open(path_, OpenMode::kRead);
  if (!file.ok()) return file.status();
  std::vector<std::byte> chunk(1u << 20);
  uint64_t last = from;
  for (uint64_t at = from; at < end;) {
    const Result<size_t> read =
        io_->Read(*file, at, std::span(chunk).first(std::min<uint64_t>(chunk.size(), end - at)));
    if (!read.ok() || *read == 0) break;
    for (size_t i = *read; i > 0; --i) {
      if (chunk[i - 1] == std::byte{0}) continue;
      last = at + i;
      break;
    }
    at += *read;
  }
  io_->Close(*file);
  return last - from;
}

void SegmentVerifier::CompareIndex(const SegmentHeader& header, const SegmentHeader* next) {
  if (index_state_ != IndexState::kGood) return;
  ++report_->indexes;
  const IndexTrailer& trailer = index_.trailer;
  const uint64_t at = header.segment_bytes - sizeof(IndexTrailer);
  if (trailer.hash_seed != header.hash_seed) Damage(at, "the index is of a log with another seed");
  if (!whole_) return;
  if (next != nullptr && trailer.sequence_last != next->previous_valid_through) return;  // of no use to a start
  if (trailer.records_end != records_end_) {
    Damage(at, "the index says that the records end at byte " + std::to_string(trailer.records_end) +
                   ", but they end at " + std::to_string(records_end_));
  }
  if (trailer.removals != removals_) Damage(at, "the index counts other removals than the records");
  if (index_.entries.size() != seen_.size()) {
    Damage(at, "the index has " + std::to_string(index_.entries.size()) + " entries for " +
                   std::to_string(seen_.size()) + " records");
    return;
  }
  for (size_t i = 0; i < seen_.size(); ++i) {
    if (std::memcmp(&seen_[i], &index_.entries[i], sizeof(IndexEntry)) == 0) continue;
    Damage(uint64_t{seen_[i].place} * kRecordAlign,
           "entry " + std::to_string(i) + " of the index says something else than this record");
  }
}

}  // namespace sutra
