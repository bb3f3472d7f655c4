// Entries of a cache as bytes: what a control session carries, and what a dump consists of.
//
//   CachePageHeader | entries: CachePageEntry, the vector's floats, the text, without padding
//
// A page stands for itself: it names the model whose vectors it holds, its own length and a checksum. Any number of
// them may follow one another in a file. Little-endian.
//
// Thread rule: plain values. Invariants: the reader is total: whatever the bytes are, it reads none beyond them,
// allocates no more than they take, and returns whole entries or an error. What an entry says (finite numbers, UTF-8)
// is CheckEntry's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cache/cache_admin.h"
#include "shm/base/status.h"

namespace sutra {

inline constexpr uint64_t kCachePageMagic = 0x4547415041525453;  // "STRAPAGE"
inline constexpr uint32_t kCachePageVersion = 1;

struct CachePageHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t checksum;  // CRC-32C of all bytes of the page, this word taken as 0
  uint64_t bytes;     // of the page, this header included
  uint32_t width;     // floats per vector
  uint32_t entries;
  char identity[64];  // hex digits, of the model
};
static_assert(sizeof(CachePageHeader) == 96);

struct CachePageEntry {
  uint64_t age_s;
  uint64_t left_s;
  uint32_t variant;
  uint32_t text_bytes;
  uint32_t norm_bits;  // of a float
  uint32_t token_count;
  uint32_t flags;     // kPageTruncated ...
  uint32_t reserved;  // 0
};
static_assert(sizeof(CachePageEntry) == 40);
inline constexpr uint32_t kPageTruncated = 1, kPageHit = 2, kPageHot = 4;

class CachePageWriter {
 public:
  // REQUIRES: 64 hex digits; 1 <= width <= kCacheWidthMax.
  CachePageWriter(std::string_view identity, uint32_t width);
  static uint64_t EntryBytes(const CacheEntry& entry);
  // REQUIRES: a vector of the page's width.
  void Add(const CacheEntry& entry);
  uint64_t bytes() const { return page_.size(); }  // so far
  uint32_t entries() const { return entries_; }
  std::string Take() &&;  // the page; empty ones are pages, too

 private:
  std::string page_;
  uint32_t width_;
  uint32_t entries_ = 0;
};

class CachePageReader {
 public:
  // How long the page is that begins with these bytes, of which there are sizeof(CachePageHeader) at least; for who
  // reads a file of pages. kProtocolViolation: it is no page, of another version, or longer than any.
  static Result<uint64_t> PageBytes(std::string_view begin);
  // `page`: exactly one page, which must outlive the reader. kProtocolViolation: it is not one, or damaged.
  static Result<CachePageReader> Open(std::string_view page);

  const std::string& identity() const { return identity_; }
  uint32_t width() const { return width_; }
  uint32_t entries() const { return entries_; }
  // False: there are no more. kProtocolViolation: what follows is no entry; no call after that. After an error *entry
  // is unspecified.
  Result<bool> Next(CacheEntry* entry);

 private:
  CachePageReader() = default;

  std::string_view rest_;
  std::string identity_;
  uint32_t width_ = 0;
  uint32_t entries_ = 0;
  uint32_t read_ = 0;
};

// Whether an entry that comes from outside may be stored: UTF-8 text within the limits, a finite vector of unit length
// or all zero, a finite norm, a lifetime within kTtlSecondsMax. kBadOption says what is not.
Status CheckEntry(const CacheEntry& entry);

}  // namespace sutra
