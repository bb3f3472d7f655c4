// What a thread that tokenises keeps between texts: recent words with their ids, the word and the marks under way, and
// what is known of code points. Header-only.
//
// Thread rule: ThreadScratch is the calling thread's own.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace sutra {

// A remembered word: one cache line. Words never hold NUL bytes (see CanCache), so that zero padding is unambiguous.
inline constexpr size_t kCachedBytes = 24;
inline constexpr size_t kCachedIds = 8;
struct alignas(64) CachedWord {
  uint64_t key[3];
  int32_t ids[kCachedIds];
  uint32_t owner;  // serial of the tokenizer; 0: empty
  uint32_t count;
};
static_assert(sizeof(CachedWord) == 64);
inline constexpr unsigned kCacheBits = 12;

struct CombiningMark {
  char32_t code_point;
  uint8_t order;
};

// Code points that were seen to leave a word open: 136 KiB, made for the first word that is too long.
struct OpenEnds {
  static constexpr size_t kCodePoints = 0x110000;
  uint32_t owner = 0;  // serial of the tokenizer
  std::vector<bool> seen;
};

// What each thread keeps between texts, about 260 KiB, or 400.
struct Scratch {
  std::unique_ptr<CachedWord[]> cache = std::make_unique<CachedWord[]>(size_t{1} << kCacheBits);
  std::vector<char> word;
  std::vector<CombiningMark> marks;
  OpenEnds open_ends;
};

inline Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// The word's bytes, zero-padded, as three integers. REQUIRES: size <= kCachedBytes, kCachedBytes readable bytes.
inline void LoadKey(const char* bytes, size_t size, uint64_t* key) {
  std::memcpy(key, bytes, kCachedBytes);
  for (size_t part = 0; part < 3; ++part) {
    const size_t kept = std::min<size_t>(size - std::min(size, part * 8), 8);
    key[part] &= kept == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * kept)) - 1;
  }
}

inline size_t CacheSlot(const uint64_t* key) {
  const uint64_t mixed = (key[0] ^ std::rotl(key[1], 23) ^ std::rotl(key[2], 47)) * 0x9E3779B97F4A7C15u;
  return static_cast<size_t>((mixed ^ (key[1] + key[2]) * 0xC2B2AE3D27D4EB4Fu) >> (64 - kCacheBits));
}

}  // namespace sutra
