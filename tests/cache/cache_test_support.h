// What the cache's tests share: a configuration, vectors that tell texts and versions apart, and lookups that check
// them.
#pragma once

#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/logged_shard.h"
#include "tests/kit/seed.h"

namespace sutra::test {

inline constexpr uint32_t kWidth = 16;
inline const std::string kIdentity = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
inline const std::string kShardName = "0011223344556677";

inline CacheConfig SmallConfig(const std::string& directory, uint32_t width = kWidth) {
  CacheConfig config;
  config.directory = directory;
  config.model_identity = kIdentity;
  config.model_name = "test model";
  config.width = width;
  config.wal_segment_bytes = 64 << 10;
  config.wal_bytes_max = 1 << 20;
  return config;
}

// A vector that no other text or version has.
inline std::vector<float> VectorOf(const std::string& text, uint32_t version, uint32_t width = kWidth) {
  uint64_t state = std::hash<std::string>()(text) ^ (0x9e3779b97f4a7c15u * (version + 1));
  std::vector<float> vector(width);
  for (float& value : vector) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(state >> 40) / 16777216.0f - 0.5f;
  }
  return vector;
}

inline void Put(CacheShard* shard, const std::string& text, uint32_t version, uint64_t ttl_s = 0,
                uint32_t width = kWidth) {
  shard->Insert(text, 0, VectorOf(text, version, width), CacheValue{static_cast<float>(version), version, false},
                ttl_s);
}

// The version found, -1 for a miss, -2 for a vector or value that was never put there.
inline int VersionOf(CacheShard* shard, const std::string& text, uint32_t width = kWidth) {
  std::vector<float> vector(width);
  CacheValue value;
  if (!shard->Lookup(text, 0, vector.data(), &value)) return -1;
  const bool right = vector == VectorOf(text, value.token_count, width) &&
                     value.norm == static_cast<float>(value.token_count) && !value.truncated;
  return right ? static_cast<int>(value.token_count) : -2;
}

inline LoggedShard::Options Inline() {
  LoggedShard::Options options;
  options.threaded = false;
  return options;
}

}  // namespace sutra::test
