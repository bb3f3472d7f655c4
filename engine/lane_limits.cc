// One client process cannot take what others need; one user can only where there are no others.
#include "engine/lane_limits.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "shm/layout.h"

namespace sutra {
namespace {

// A lane takes five descriptors and its process one.
constexpr uint64_t kFilesPerLane = 6, kFilesOfOthers = 64;

template <typename T>
T GivenOr(T given, T otherwise) {
  return given != 0 ? given : otherwise;
}

// For how many users it must suffice.
uint32_t UsersOf(const EngineConfig& config) {
  const bool one = config.allow_gids.empty() && std::all_of(config.allow_uids.begin(), config.allow_uids.end(),
                                                            [](uid_t uid) { return uid == geteuid(); });
  return one ? 1 : 8;
}

// The first bound that does not hold one lane as clients get it that ask for nothing.
Status CheckOneLane(const EngineConfig& config, const ClientTable::Limits& limits, uint64_t lane_bytes) {
  const struct {
    uint64_t bytes;
    const char* option;
  } bounds[] = {{limits.total.bytes, "--lane-bytes-max"},
                {limits.per_uid.bytes, "--lane-bytes-per-uid-max"},
                {limits.per_client.bytes, "--lane-bytes-per-client-max"}};
  for (const auto& bound : bounds) {
    if (bound.bytes >= lane_bytes) continue;
    return Status(StatusCode::kBadOption, "a lane of " + std::to_string(config.slots) +
                                              " slots (--slots) and texts of " + std::to_string(config.text_bytes_max) +
                                              " bytes (--text-bytes-max) has " + std::to_string(lane_bytes) +
                                              " bytes, over the " + std::to_string(bound.bytes) + " of " +
                                              bound.option + ": raise that, or lower --slots or --text-bytes-max");
  }
  return {};
}

}  // namespace

Result<ClientTable::Limits> LaneLimits(const EngineConfig& config, uint64_t files, uint32_t width, const LogLine& log) {
  ClientTable::Limits limits;
  uint32_t lanes = config.lanes_max;
  const uint64_t files_needed = kFilesPerLane * lanes + kFilesOfOthers;
  // Fewer lanes are served than by default: a client that is refused is better off than one that waits for a
  // descriptor. What an operator asked for is not lowered in silence.
  if (files < files_needed) {
    lanes = static_cast<uint32_t>((std::max(files, kFilesOfOthers + kFilesPerLane) - kFilesOfOthers) / kFilesPerLane);
    limits.lanes_raised_by = "limit of open files (ulimit -n, LimitNOFILE=)";
    lanes = std::min(lanes, config.lanes_max);
    const std::string why = "the limit of " + std::to_string(files) + " open files carries " + std::to_string(lanes) +
                            " lanes, not the " + std::to_string(config.lanes_max) +
                            " of --lanes-max: raise LimitNOFILE= (ulimit -n) to " + std::to_string(files_needed);
    const bool fewer = lanes < config.lanes_max;  // a single lane is tried with whatever there is
    if (fewer && config.lanes_max_given) return Status(StatusCode::kBadOption, why + ", or lower --lanes-max");
    if (fewer) log(LogLevel::kWarn, why);
  }
  const uint32_t users = UsersOf(config);
  const uint64_t lane_bytes = LaneGeometry{config.slots, config.text_bytes_max, width}.charged_bytes();
  const auto bytes_share = [&](uint64_t given, uint64_t parts) {
    return GivenOr(given, std::max(config.lane_bytes_max / parts, lane_bytes));
  };
  limits.total = {.lanes = lanes, .bytes = config.lane_bytes_max};
  limits.per_uid = {.lanes = GivenOr(config.lanes_per_uid_max, std::max(lanes / users, 1u)),
                    .bytes = bytes_share(config.lane_bytes_per_uid_max, users)};
  limits.per_client = {.lanes = config.lanes_per_client_max, .bytes = bytes_share(config.lane_bytes_per_client_max, 4)};
  if (Status status = CheckOneLane(config, limits, lane_bytes); !status.ok()) return status;
  return limits;
}

}  // namespace sutra
