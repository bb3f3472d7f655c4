// The digest of a key: 128 bits of the text's and the variant's XXH3 under a seed. The store places entries by it, the
// log removes by it, and an index at a segment's end names its entries by it. With a seed that no client knows, none
// can aim at a collision; identity is decided by the full text wherever that is in memory.
//
// Thread rule: plain functions and plain data.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string_view>

namespace sutra {

struct KeyDigest {
  uint64_t low = 0, high = 0;
  bool operator==(const KeyDigest&) const = default;
};

inline KeyDigest DigestOf(std::string_view text, uint32_t variant, uint64_t seed) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(text.data(), text.size(), seed ^ variant);
  return {hash.low64, hash.high64};
}

}  // namespace sutra
