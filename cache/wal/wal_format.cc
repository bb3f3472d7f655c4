// Encoding and checking of segment headers and records.
#include "cache/wal/wal_format.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstring>

#include "shm/base/crc32c.h"
#include "shm/base/hex.h"

namespace sutra {
namespace {

constexpr std::array<std::byte, kRecordAlign> kZeros = {};

void Finish(UnplacedRecord* record) {
  const uint64_t used = sizeof(RecordHeader) + record->fixed_bytes + record->vector.size() + record->text.size();
  assert(used <= kRecordBytesMax);
  record->length = static_cast<uint32_t>(RoundUp(used, kRecordAlign));
  uint32_t crc = Crc32c(record->fixed.data(), record->fixed_bytes);
  crc = Crc32c(record->vector.data(), record->vector.size(), crc);
  crc = Crc32c(record->text.data(), record->text.size(), crc);
  record->body_crc = Crc32c(kZeros.data(), record->length - used, crc);
}

bool OnlyZeros(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// One copy on its own: kGood, kOlder, kNewer, kMisplaced or kBad.
HeaderState ReadHeaderBlock(std::span<const std::byte> block, const SegmentExpectation& expected,
                            SegmentHeader* header) {
  uint32_t crc;
  std::memcpy(&crc, block.data() + kSegmentHeaderCrcOffset, sizeof(crc));
  std::memcpy(header, block.data(), sizeof(*header));
  if (header->magic != kSegmentMagic || crc != Crc32c(block.data(), kSegmentHeaderCrcOffset)) return HeaderState::kBad;
  if (header->format_major != kFormatMajor || header->incompatible_flags != 0 ||
      header->block_bytes != kWalBlockBytes) {
    return HeaderState::kNewer;
  }
  if (header->format_minor < kFormatMinor) return HeaderState::kOlder;
  const bool fits = header->number == expected.number && header->model == expected.model &&
                    header->width == expected.width && header->previous_number < header->number &&
                    (!expected.id || *expected.id == header->id);
  return fits ? HeaderState::kGood : HeaderState::kMisplaced;
}

}  // namespace

UnplacedRecord UnplacedRecord::Insert(const InsertBody& body, std::span<const std::byte> vector,
                                      std::string_view text) {
  UnplacedRecord record;
  record.type = RecordType::kInsert;
  std::memcpy(record.fixed.data(), &body, sizeof(body));
  record.fixed_bytes = sizeof(body);
  record.vector = vector;
  record.text = text;
  Finish(&record);
  return record;
}

UnplacedRecord UnplacedRecord::Erase(const EraseBody& body) {
  UnplacedRecord record;
  record.type = RecordType::kErase;
  std::memcpy(record.fixed.data(), &body, sizeof(body));
  record.fixed_bytes = sizeof(body);
  Finish(&record);
  return record;
}

UnplacedRecord UnplacedRecord::Clear(uint32_t slot) {
  UnplacedRecord record;
  record.type = RecordType::kClear;
  record.slot = slot;
  Finish(&record);
  return record;
}

UnplacedRecord UnplacedRecord::DropAll() {
  UnplacedRecord record;
  record.type = RecordType::kDropAll;
  Finish(&record);
  return record;
}

void UnplacedRecord::CopyTo(std::byte* at) const {
  RecordHeader header;
  header.body_crc = body_crc;
  header.length = length;
  header.type = static_cast<uint8_t>(type);
  header.slot = slot;
  std::byte* to = at;
  const auto append = [&to](const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    to += bytes;
  };
  append(&header, sizeof(header));
  append(fixed.data(), fixed_bytes);
  append(vector.data(), vector.size());
  append(text.data(), text.size());
  assert(to <= at + length);
  std::memset(to, 0, static_cast<size_t>(at + length - to));
}

void EncodeWatermark(std::byte* at, uint32_t length) {
  assert(length >= sizeof(RecordHeader) && length % kRecordAlign == 0);
  std::memset(at, 0, length);
  RecordHeader header;
  header.body_crc = Crc32c(at + sizeof(header), length - sizeof(header));
  header.length = length;
  header.type = static_cast<uint8_t>(RecordType::kWatermark);
  std::memcpy(at, &header, sizeof(header));
}

uint32_t RecordHeaderCrc(const RecordHeader& header, const SegmentId& id, uint64_t offset) {
  std::array<std::byte, sizeof(SegmentId) + sizeof(offset) + sizeof(RecordHeader) - sizeof(uint32_t)> bytes;
  std::memcpy(bytes.data(), id.data(), id.size());
  std::memcpy(bytes.data() + id.size(), &offset, sizeof(offset));
  const auto* raw = static_cast<const std::byte*>(static_cast<const void*>(&header));
  std::memcpy(bytes.data() + id.size() + sizeof(offset), raw + sizeof(uint32_t), sizeof(header) - sizeof(uint32_t));
  return Crc32c(bytes.data(), bytes.size());
}

void StampRecord(std::byte* at, const SegmentId& id, uint64_t offset, const RecordStamp& stamp) {
  assert(offset >= kSegmentDataStart && offset % kRecordAlign == 0);
  RecordHeader header;
  std::memcpy(&header, at, sizeof(header));
  header.sequence = stamp.sequence;
  header.acked_through = stamp.acked_through;
  header.wall_highest_ns = stamp.wall_highest_ns;
  header.removals = stamp.removals;
  header.header_crc = RecordHeaderCrc(header, id, offset);
  std::memcpy(at, &header, sizeof(header));
}

bool ParseBody(const std::byte* at, uint32_t width, WalRecord* record) {
  assert(record->header.length >= sizeof(RecordHeader));  // the caller checked the header
  const uint64_t body_bytes = record->header.length - sizeof(RecordHeader);
  const std::byte* body = at + sizeof(RecordHeader);
  const auto text_at = [](const std::byte* from, size_t bytes) {
    return std::string_view(static_cast<const char*>(static_cast<const void*>(from)), bytes);
  };
  if (record->type() == RecordType::kInsert) {
    if (body_bytes < sizeof(InsertBody) || record->header.slot == kNoRecordSlot) return false;
    std::memcpy(&record->insert, body, sizeof(InsertBody));
    const uint64_t vector_bytes = static_cast<uint64_t>(width) * sizeof(float);
    if (record->insert.width != width || vector_bytes > body_bytes - sizeof(InsertBody)) return false;
    if (record->insert.text_bytes > body_bytes - sizeof(InsertBody) - vector_bytes) return false;
    record->vector = {body + sizeof(InsertBody), static_cast<size_t>(vector_bytes)};
    record->text = text_at(body + sizeof(InsertBody) + vector_bytes, record->insert.text_bytes);
  } else if (record->type() == RecordType::kErase) {
    if (body_bytes < sizeof(EraseBody)) return false;
    std::memcpy(&record->erase, body, sizeof(EraseBody));
  } else if (record->type() == RecordType::kClear) {
    return record->header.slot != kNoRecordSlot;
  }
  return true;
}

void EncodeSegmentHeader(const SegmentHeader& header, std::byte* block) {
  std::memset(block, 0, kWalBlockBytes);
  std::memcpy(block, &header, sizeof(header));
  const uint32_t crc = Crc32c(block, kSegmentHeaderCrcOffset);
  std::memcpy(block + kSegmentHeaderCrcOffset, &crc, sizeof(crc));
}

HeaderState ParseSegmentHeader(std::span<const std::byte> blocks, const SegmentExpectation& expected,
                               SegmentHeader* header) {
  uint64_t misplaced = 0;
  bool older = false, newer = false;
  for (uint64_t copy = 0; copy < kSegmentHeaderCopies; ++copy) {
    if (blocks.size() < (copy + 1) * kWalBlockBytes) break;
    SegmentHeader candidate;
    switch (ReadHeaderBlock(blocks.subspan(copy * kWalBlockBytes, kWalBlockBytes), expected, &candidate)) {
      case HeaderState::kGood: *header = candidate; return HeaderState::kGood;
      case HeaderState::kOlder: older = true; break;
      case HeaderState::kNewer: newer = true; break;
      case HeaderState::kMisplaced: ++misplaced; break;
      default: break;
    }
  }
  if (newer) return HeaderState::kNewer;
  if (older) return HeaderState::kOlder;
  if (misplaced == kSegmentHeaderCopies) return HeaderState::kMisplaced;
  return OnlyZeros(blocks) ? HeaderState::kZero : HeaderState::kBad;
}

std::string SegmentName(uint64_t number) {
  char name[32];
  std::snprintf(name, sizeof(name), "wal-%016llx.log", static_cast<unsigned long long>(number));
  return name;
}

uint64_t SegmentNumber(std::string_view name) {
  if (name.size() != 24 || name.substr(0, 4) != "wal-" || name.substr(20) != ".log") return 0;
  uint64_t number = 0;
  for (const char c : name.substr(4, 16)) {
    const int value = HexDigitValue(c);
    if (value < 0) return 0;
    number = number << 4 | static_cast<uint64_t>(value);
  }
  return number;
}

bool ParseIdentity(std::string_view hex, ModelIdentity* identity) {
  if (hex.size() != 2 * identity->size()) return false;
  for (size_t i = 0; i < hex.size(); ++i) {
    const int value = HexDigitValue(hex[i]);
    if (value < 0) return false;
    uint8_t& byte = (*identity)[i / 2];
    byte = static_cast<uint8_t>(i % 2 == 0 ? value << 4 : byte | value);
  }
  return true;
}

}  // namespace sutra
