// What an entry of the cache holds in addition to its vector. Plain data.
#pragma once

#include <cstdint>

namespace sutra {

// Names an entry that a lookup has found, for CacheShard::Touch: its slot, and bits of its key's hash. An entry of the
// same key that came to the same slot later is the same one here.
struct CacheHandle {
  uint32_t slot = UINT32_MAX;
  uint32_t tag = 0;
  bool operator==(const CacheHandle&) const = default;
};

// `vector` has unit length (or is all zero); raw = vector * norm.
struct CacheValue {
  float norm = 0;
  uint32_t token_count = 0;
  bool truncated = false;
  // Of lookups; an insert ignores them.
  uint64_t expires_ns = 0;  // on the boot clock
  CacheHandle handle = {};
};

}  // namespace sutra
