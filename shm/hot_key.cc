#include "shm/hot_key.h"

#include <string.h>

// The client library may need no other library than libc.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sutra {

HotKey::HotKey(std::string_view text, uint32_t variant, uint64_t seed) : text_(text), seed_(seed), variant_(variant) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(text.data(), text.size(), seed ^ variant);
  place_ = hash.low64;
  tag_ = static_cast<uint32_t>(hash.high64 >> 32);
}

void HotKey::Compute() {
  uint8_t prefix[sizeof(seed_) + sizeof(variant_)];
  memcpy(prefix, &seed_, sizeof(seed_));
  memcpy(prefix + sizeof(seed_), &variant_, sizeof(variant_));
  digest_ = ShortSha256(prefix, sizeof(prefix), text_.data(), text_.size());
  digested_ = true;
}

}  // namespace sutra
