// The engine's options: parsed from the command line and, with --config FILE, from a file of `name=value` lines (the
// command line wins). Every option has its unit in its name, a default and a range; an unknown option is an error.
// Plain data, immutable after ParseConfig.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cache/cache_shard.h"
#include "cache/disk/disk_io.h"
#include "engine/limits.h"
#include "engine/model/compute_options.h"
#include "engine/operator_call.h"
#include "shm/base/host.h"
#include "shm/base/status.h"

namespace sutra {

// Where vectors come from: a model directory, or a function of the text for tests. The option calls a model "torch" for
// historical reasons (torch once computed all of them); --executor chooses what computes it.
enum class Backend : uint8_t { kModel, kFake };
inline constexpr std::pair<const char*, Backend> kBackendNames[] = {{"torch", Backend::kModel},
                                                                    {"fake", Backend::kFake}};

struct EngineConfig {
  // Model.
  std::string model;
  Backend backend = Backend::kModel;
  uint32_t fake_width = kFakeWidthRange.otherwise;
  Executor executor = Executor::kAuto;
  Precision precision = Precision::kAuto;
  Device device = Device::kCpu;
  double int8_cosine_min = kInt8CosineMinRange.otherwise;
  CpuIsa cpu_isa = CpuIsa::kAuto;
  uint32_t threads = kThreadsRange.otherwise;         // default: the CPUs this process may use, at most kThreadsMax
  uint32_t core_groups = kCoreGroupsRange.otherwise;  // 0 = one per last-level cache (cpu/core_groups.h)

  // Which clients may attach, and where.
  std::string socket;
  mode_t socket_mode = 0;         // 0 = 0600, or 0666 when other users are allowed (SO_PEERCRED decides)
  std::vector<uid_t> allow_uids;  // the engine's own uid is always allowed
  std::vector<gid_t> allow_gids;
  std::vector<gid_t> control_gids;  // their members may control the engine; its own user and root always may
  std::vector<gid_t> hot_gids;      // their members may map the hot table; the engine's user and root always may
  uint32_t lanes_max = kLanesRange.otherwise;
  bool lanes_max_given = false;  // by the command line or the file
  uint32_t lanes_per_uid_max = kLanesPerUidRange.otherwise;
  uint32_t lanes_per_client_max = kLanesPerClientRange.otherwise;
  uint32_t attach_rate_max = kAttachRateRange.otherwise;
  uint64_t lane_bytes_max = kLaneBytesRange.otherwise;
  uint64_t lane_bytes_per_uid_max = kLaneBytesShareRange.otherwise;     // 0 = derived, as is lanes_per_uid_max
  uint64_t lane_bytes_per_client_max = kLaneBytesShareRange.otherwise;  // 0 = derived
  uint32_t slots = kSlotsRange.otherwise;
  uint32_t text_bytes_max = kTextBytesRange.otherwise;

  // Cache.
  std::string data;
  bool cache = true;
  uint64_t cache_entries_max = kCacheEntriesRange.otherwise;
  uint64_t cache_bytes_max = kCacheBytesRange.otherwise;
  uint64_t hot_bytes_max = kHotBytesRange.otherwise;
  uint64_t ttl_s = kTtlSecondsRange.otherwise;
  DurabilityPolicy durability = DurabilityPolicy::kInterval;
  uint64_t wal_bytes_max = kWalBytesRange.otherwise;
  uint64_t wal_segment_bytes = kSegmentBytesRange.otherwise;
  uint64_t data_bytes_max = kDataBytesRange.otherwise;
  DiskIoKind disk_io = DiskIoKind::kAuto;
  bool strict_recovery = false;

  // Scheduling.
  uint32_t batch_tokens_max = kBatchTokensRange.otherwise;
  uint32_t queue_texts_max = kQueueTextsRange.otherwise;
  uint64_t queue_bytes_max = kQueueBytesRange.otherwise;
  uint32_t spin_us = kSpinUsRange.otherwise;
  uint32_t drain_s = kDrainSecondsRange.otherwise;
  bool standby = false;  // wait for the end of the engine that runs there

  // Monitoring.
  mode_t stats_mode = 0640;
  std::string log_level = "info";
};

struct ParsedConfig {
  bool run = true;  // false: only `text` (help or version) was asked for, or a live engine is to do something
  std::string text;
  std::optional<OperatorCall> operator_call;
  EngineConfig config;
  std::vector<std::string> lines;  // "name=value" of every option, printed at start; readable again with --config
};

// `args` without the program's name; `cpus` gives --threads its default. Errors (kBadOption) name the option, the value
// and the range.
Result<ParsedConfig> ParseConfig(const std::vector<std::string>& args, uint32_t cpus = UsableCpus());

// The version shown by --version and written into the stats segment.
extern const char* const kEngineVersion;

}  // namespace sutra
