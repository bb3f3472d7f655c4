// sutra-cache as a program, on data directories that the cache library has made.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cache/disk/disk_io.h"
#include "shm/base/clock.h"
#include "tests/cache/files_at_rest.h"
#include "tests/kit/child_process.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {

inline const std::string kOtherIdentity = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
inline constexpr int kToolMs = 60'000;  // only a hang takes longer

class CacheToolTest : public ::testing::Test {
 protected:
  using Json = nlohmann::json;

  std::string data() const { return temp_ / "data"; }
  std::string Shard(const std::string& name = kShardName) const { return data() + "/" + name; }

  CacheConfig Config(const std::string& identity) const {
    CacheConfig config = SmallConfig(data());
    config.model_identity = identity;
    config.wal_segment_bytes = segment_bytes_;
    config.wal_bytes_max = 256 << 20;
    return config;
  }
  // A cache of these texts, closed as an engine closes it.
  void Fill(const std::vector<std::string>& texts, const std::string& identity = kIdentity,
            const std::string& model = "test model") {
    CacheConfig config = Config(identity);
    config.model_name = model;
    const auto shard = CacheShard::Open(config, disk_.get(), Clock::Real()).value();
    for (const std::string& text : texts) PutUnit(shard.get(), text);
    ASSERT_TRUE(shard->Sync().ok());
    shard->Close();
  }
  static std::vector<std::string> Numbered(int count, const std::string& word = "text") {
    std::vector<std::string> texts;
    for (int i = 0; i < count; ++i) texts.push_back(word + " " + std::to_string(i));
    return texts;
  }
  // What a start finds there.
  std::map<std::string, std::vector<float>> Entries(const std::string& identity = kIdentity) {
    const auto shard = CacheShard::Open(Config(identity), disk_.get(), Clock::Real()).value();
    std::map<std::string, std::vector<float>> entries;
    uint64_t cursor = 0;
    EXPECT_TRUE(shard
                    ->Visit(CacheAdmin::Which::kAll, &cursor,
                            [&](const CacheEntry& entry) {
                              entries[entry.text] = entry.vector;
                              return true;
                            })
                    .ok());
    shard->Close();
    return entries;
  }

  Finished Run(std::vector<std::string> args) {
    args.insert(args.begin(), SUTRA_CACHE_PROGRAM);
    SpawnOptions spawn;
    spawn.args = std::move(args);
    spawn.environment = environment_;
    return RunToEnd(spawn, kToolMs);
  }
  // With --data, and the expected exit code.
  Finished RunAtRest(std::vector<std::string> args, int code) {
    args.insert(args.end(), {"--data", data()});
    Finished finished = Run(args);
    EXPECT_TRUE(finished.status.exited && finished.status.code == code)
        << args[0] << ": " << ToText(finished.status) << "\n"
        << finished.output << finished.errors;
    return finished;
  }
  static std::vector<Json> Lines(const std::string& output) {
    std::vector<Json> lines;
    std::istringstream stream(output);
    for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
    return lines;
  }

  Watchdog watchdog_{std::chrono::seconds(300)};
  TempDir temp_;
  uint64_t segment_bytes_ = 64 << 10;
  std::vector<std::string> environment_;  // of the tool
  std::unique_ptr<DiskIo> disk_ = MakePosixDiskIo(false);
};

}  // namespace sutra::test
