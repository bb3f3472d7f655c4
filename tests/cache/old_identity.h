// Directories of models that were served once, as a real shard leaves them. Thread rule: one thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "cache/shard_directory.h"
#include "shm/base/time.h"
#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra::test {

struct OldEntry {
  std::string text;
  uint64_t ttl_s = 0;
};

// A configuration of the model whose identity begins with this digit.
inline CacheConfig OldConfig(const std::string& data, char digit) {
  CacheConfig config = SmallConfig(data);
  config.model_identity[0] = digit;
  config.model_name = std::string("model ") + digit;
  return config;
}

// Serves it at `wall_ns` and ends in order. RETURNS the directory's name.
inline std::string ServeOnce(const CacheConfig& config, const std::vector<OldEntry>& entries,
                             uint64_t wall_ns = WallNs()) {
  sim::ManualClock clock(wall_ns);
  const std::unique_ptr<DiskIo> io = MakePosixDiskIo(false);
  std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), &clock).value();
  for (const OldEntry& entry : entries) Put(shard.get(), entry.text, 1, entry.ttl_s);
  EXPECT_TRUE(shard->Sync().ok());
  shard->Close();
  return ShardName(config.model_identity);
}

// How many of these texts the next start finds.
inline size_t FoundLater(const CacheConfig& config, const std::vector<OldEntry>& entries, uint64_t wall_ns) {
  sim::ManualClock clock(wall_ns);
  const std::unique_ptr<DiskIo> io = MakePosixDiskIo(false);
  const std::unique_ptr<CacheShard> shard = CacheShard::Open(config, io.get(), &clock).value();
  size_t found = 0;
  for (const OldEntry& entry : entries) found += VersionOf(shard.get(), entry.text) == 1 ? 1 : 0;
  return found;
}

}  // namespace sutra::test
