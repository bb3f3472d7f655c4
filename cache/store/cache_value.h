// What an entry of the cache holds in addition to its vector. Plain data.
#pragma once

#include <cstdint>

namespace sutra {

// `vector` has unit length (or is all zero); raw = vector * norm.
struct CacheValue {
  float norm = 0;
  uint32_t token_count = 0;
  bool truncated = false;
};

}  // namespace sutra
