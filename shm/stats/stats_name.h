// The name under which an engine's statistics are found in /dev/shm, from the path of its socket. Stateless.
#pragma once

#include <cstdint>
#include <string>

#include "shm/base/status.h"

namespace sutra {

inline constexpr char kStatsNamePrefix[] = "sutra-stat.";  // then the owner's uid

// `socket_path` with its directory resolved; the socket need not exist, its directory must.
Result<std::string> RealSocketPath(const std::string& socket_path);
// "sutra-stat.<uid>.<16 hex of SHA-256 of the socket's real path>".
Result<std::string> StatsSegmentName(const std::string& socket_path, uint32_t uid);

}  // namespace sutra
