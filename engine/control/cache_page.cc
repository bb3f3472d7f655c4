// The header is checked first, then the checksum over everything, then entry after entry with what is left of the page.
#include "engine/control/cache_page.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>

#include "cache/cache_shard.h"
#include "engine/control/control_frame.h"
#include "shm/base/crc32c.h"
#include "shm/base/hex.h"
#include "shm/base/utf8.h"
#include "shm/control_messages.h"
#include "shm/layout.h"

namespace sutra {
namespace {

// Unit vectors from other hardware, or written as text and read again, are off by their rounding.
constexpr double kLengthNear = 1e-3;
constexpr uint32_t kKnownFlags = kPageTruncated | kPageHit | kPageHot;

Status NoPage(const std::string& what) {
  return Status(StatusCode::kProtocolViolation, "no valid page of cache entries: " + what);
}

uint32_t ChecksumOf(CachePageHeader header, std::string_view entries) {
  header.checksum = 0;
  return Crc32c(entries.data(), entries.size(), Crc32c(&header, sizeof(header)));
}

bool AllHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char digit) { return HexDigitValue(digit) >= 0; });
}

Result<CachePageHeader> ReadHeader(std::string_view begin) {
  CachePageHeader header = {};
  if (!BodyFrom(begin.substr(0, sizeof(header)), &header)) return NoPage("shorter than its header");
  if (header.magic != kCachePageMagic) return NoPage("another magic");
  if (header.version != kCachePageVersion) return NoPage("version " + std::to_string(header.version));
  if (header.bytes < sizeof(header) || header.bytes > kCachePayloadBytesMax) return NoPage("its length");
  if (header.width == 0 || header.width > kCacheWidthMax) return NoPage("its width");
  if (!AllHex({header.identity, sizeof(header.identity)})) return NoPage("its model's identity");
  return header;
}

}  // namespace

CachePageWriter::CachePageWriter(std::string_view identity, uint32_t width) : width_(width) {
  assert(width > 0 && width <= kCacheWidthMax);
  CachePageHeader header = {};
  assert(identity.size() == sizeof(header.identity) && AllHex(identity));
  header.magic = kCachePageMagic;
  header.version = kCachePageVersion;
  header.width = width;
  identity.copy(header.identity, sizeof(header.identity));
  page_ = BytesOf(header);
}

uint64_t CachePageWriter::EntryBytes(const CacheEntry& entry) {
  return sizeof(CachePageEntry) + entry.vector.size() * sizeof(float) + entry.text.size();
}

void CachePageWriter::Add(const CacheEntry& entry) {
  assert(entry.vector.size() == width_ && entry.text.size() <= UINT32_MAX);
  const CachePageEntry fixed = {
      .age_s = entry.age_s,
      .left_s = entry.left_s,
      .variant = entry.variant,
      .text_bytes = static_cast<uint32_t>(entry.text.size()),
      .norm_bits = std::bit_cast<uint32_t>(entry.value.norm),
      .token_count = entry.value.token_count,
      .flags = (entry.value.truncated ? kPageTruncated : 0) | (entry.hit ? kPageHit : 0) | (entry.hot ? kPageHot : 0),
      .reserved = 0};
  const auto floats = std::as_bytes(std::span(entry.vector));
  page_.append(BytesOf(fixed));
  page_.append(static_cast<const char*>(static_cast<const void*>(floats.data())), floats.size());
  page_.append(entry.text);
  ++entries_;
}

std::string CachePageWriter::Take() && {
  CachePageHeader header = {};
  const bool whole = BodyFrom(std::string_view(page_).substr(0, sizeof(header)), &header);
  assert(whole);
  static_cast<void>(whole);
  header.bytes = page_.size();
  header.entries = entries_;
  header.checksum = ChecksumOf(header, std::string_view(page_).substr(sizeof(header)));
  page_.replace(0, sizeof(header), BytesOf(header));
  return std::move(page_);
}

Result<uint64_t> CachePageReader::PageBytes(std::string_view begin) {
  const Result<CachePageHeader> header = ReadHeader(begin);
  if (!header.ok()) return header.status();
  return header->bytes;
}

Result<CachePageReader> CachePageReader::Open(std::string_view page) {
  const Result<CachePageHeader> header = ReadHeader(page);
  if (!header.ok()) return header.status();
  if (header->bytes != page.size()) return NoPage("another length than it says");
  CachePageReader reader;
  reader.rest_ = page.substr(sizeof(CachePageHeader));
  if (ChecksumOf(header.value(), reader.rest_) != header->checksum) return NoPage("damaged: its checksum differs");
  reader.identity_.assign(header->identity, sizeof(header->identity));
  reader.width_ = header->width;
  reader.entries_ = header->entries;
  return reader;
}

Result<bool> CachePageReader::Next(CacheEntry* entry) {
  if (read_ == entries_) return rest_.empty() ? Result<bool>(false) : NoPage("more than its entries");
  CachePageEntry fixed = {};
  const uint64_t vector_bytes = uint64_t{width_} * sizeof(float);
  if (!BodyFrom(rest_.substr(0, sizeof(fixed)), &fixed)) return NoPage("it ends within an entry");
  if (fixed.reserved != 0 || (fixed.flags & ~kKnownFlags) != 0) return NoPage("an unknown field of an entry");
  rest_.remove_prefix(sizeof(fixed));
  if (rest_.size() < vector_bytes || rest_.size() - vector_bytes < fixed.text_bytes) {
    return NoPage("it ends within an entry");
  }
  entry->vector.resize(width_);
  const auto room = std::as_writable_bytes(std::span(entry->vector));
  rest_.copy(static_cast<char*>(static_cast<void*>(room.data())), room.size());
  entry->text.assign(rest_.substr(vector_bytes, fixed.text_bytes));
  rest_.remove_prefix(vector_bytes + fixed.text_bytes);
  entry->variant = fixed.variant;
  entry->value.norm = std::bit_cast<float>(fixed.norm_bits);
  entry->value.token_count = fixed.token_count;
  entry->value.truncated = (fixed.flags & kPageTruncated) != 0;
  entry->hit = (fixed.flags & kPageHit) != 0;
  entry->hot = (fixed.flags & kPageHot) != 0;
  entry->age_s = fixed.age_s;
  entry->left_s = fixed.left_s;
  ++read_;
  assert(read_ <= entries_);
  return true;
}

Status CheckEntry(const CacheEntry& entry) {
  const auto refuse = [](const std::string& what) { return Status(StatusCode::kBadOption, what); };
  if (entry.text.empty()) return refuse("an empty text");
  if (entry.text.size() > kTextBytesMaxLimit)
    return refuse("a text of " + std::to_string(entry.text.size()) + " bytes");
  if (!IsValidUtf8(entry.text)) return refuse("a text that is no UTF-8");
  if (!std::isfinite(entry.value.norm) || entry.value.norm < 0) return refuse("a norm that is no length");
  if (entry.left_s == 0 || entry.left_s > kTtlSecondsMax) return refuse("a lifetime that is 0, or beyond ten years");
  double squares = 0;
  for (const float number : entry.vector) {
    if (!std::isfinite(number)) return refuse("a vector with a number that is not finite");
    squares += double{number} * number;
  }
  if (squares != 0 && std::abs(std::sqrt(squares) - 1) > kLengthNear) {
    return refuse("a vector of length " + std::to_string(std::sqrt(squares)) +
                  "; unit vectors and their norms are kept");
  }
  return {};
}

}  // namespace sutra
