// What the cache's benchmarks share: a private directory, a configuration of the real size, texts and vectors.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "cache/cache_shard.h"

namespace sutra::bench {

inline constexpr uint32_t kWidth = 384;

class BenchDirectory {
 public:
  explicit BenchDirectory(const std::string& base) : path_(base + "/sutra-bench.XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create a directory in " + base);
  }
  ~BenchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  BenchDirectory(const BenchDirectory&) = delete;
  BenchDirectory& operator=(const BenchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline CacheConfig ConfigFor(const std::string& directory) {
  CacheConfig config;
  config.directory = directory;
  config.model_identity = std::string(64, 'a');
  config.model_name = "bench";
  config.width = kWidth;
  config.entries_max =
      2 * kCacheEntriesDefault;  // entries fall unevenly on the stripes: the fullest must hold its share
  return config;
}

// 200 bytes, different for each number.
inline std::string TextOf(uint64_t number) {
  std::string text = "concept " + std::to_string(number) + ": ";
  while (text.size() < 200) text += "the quarterly report of the company ";
  text.resize(200);
  return text;
}

// 27 bytes, different for each number below 10^10.
inline constexpr uint64_t kShortTextBytes = 27;
inline std::string ShortTextOf(uint64_t number) {
  std::string text = std::to_string(number);
  return "text number " + std::string(10 - std::min<size_t>(10, text.size()), '0') + text + " here";
}

inline std::vector<float> VectorFor(uint64_t number) {
  std::vector<float> vector(kWidth);
  for (uint32_t i = 0; i < kWidth; ++i) vector[i] = static_cast<float>((number * 31 + i * 17) % 1000) / 1000.0f;
  return vector;
}

}  // namespace sutra::bench
