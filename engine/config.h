// The engine's options: parsed from the command line and, with --config FILE, from a file of `name=value` lines (the
// command line wins). Every option has its unit in its name, a default and a range; an unknown one is an error.
// Plain data, immutable after ParseConfig.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "engine/model/compute_options.h"
#include "shm/base/host.h"
#include "shm/base/status.h"

namespace sutra {

// What answers: a model directory, or a function of the text for tests. The option's word for a model is "torch", from
// the time when torch computed all of them; --executor chooses who computes one.
enum class Backend : uint8_t { kModel, kFake };
inline constexpr const char* kBackendNames[] = {"torch", "fake"};
constexpr const char* Name(Backend backend) { return kBackendNames[static_cast<size_t>(backend)]; }

struct EngineConfig {
  // Model.
  std::string model;
  Backend backend = Backend::kModel;
  uint32_t fake_width = 384;
  Executor executor = Executor::kAuto;
  Precision precision = Precision::kAuto;
  Device device = Device::kCpu;
  uint32_t threads = 1;  // default: the CPUs this process may use, at most kThreadsMax

  // Who may attach, and where.
  std::string socket;
  mode_t socket_mode = 0;         // 0 = 0600, or 0666 when other users are allowed (SO_PEERCRED decides)
  std::vector<uid_t> allow_uids;  // the engine's own uid is always allowed
  std::vector<gid_t> allow_gids;
  uint32_t lanes_max = 256;
  uint32_t lanes_per_uid_max = 256;
  uint64_t lane_bytes_max = 8ull << 30;
  uint32_t slots = 256;
  uint32_t text_bytes_max = 65'536;

  // Cache.
  std::string data;
  bool cache = true;
  uint64_t cache_entries_max = 1'000'000;
  uint64_t cache_bytes_max = 2ull << 30;
  uint64_t ttl_s = 86'400;
  DurabilityPolicy durability = DurabilityPolicy::kInterval;
  uint64_t wal_bytes_max = 4ull << 30;
  uint64_t wal_segment_bytes = 32ull << 20;
  DiskIoKind disk_io = DiskIoKind::kAuto;
  bool strict_recovery = false;

  // Scheduling.
  uint32_t batch_tokens_max = 4096;
  uint32_t queue_texts_max = 65'536;
  uint32_t spin_us = 50;
  uint32_t drain_s = 30;

  // Watching.
  mode_t stats_mode = 0640;
  std::string log_level = "info";
};

struct ParsedConfig {
  bool run = true;  // false: `text` (help or version) is all that was asked for
  std::string text;
  EngineConfig config;
  std::vector<std::string> lines;  // "name=value" of every option, for the log; readable again with --config
};

// `args` without the program's name; `cpus` gives --threads its default. Errors (kBadOption) name the option, the value
// and the range.
Result<ParsedConfig> ParseConfig(const std::vector<std::string>& args, uint32_t cpus = UsableCpus());

// The version shown by --version and written into the stats segment.
extern const char* const kEngineVersion;

}  // namespace sutra
