#include "shm/stats/stats_name.h"

#include <stdlib.h>

#include <cerrno>

#include "shm/base/sha256.h"

namespace sutra {

// The engine replaces the socket by rename, so a link at the last component is never followed; its directory is.
Result<std::string> RealSocketPath(const std::string& socket_path) {
  const size_t slash = socket_path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : socket_path.substr(0, slash);
  const std::string file = slash == std::string::npos ? socket_path : socket_path.substr(slash + 1);
  if (file.empty()) return Status(StatusCode::kBadOption, "socket path '" + socket_path + "' does not name a file");
  char* real = realpath(directory.c_str(), nullptr);
  if (real == nullptr) {
    return Status::FromErrno(StatusCode::kBadOption, "directory " + directory + " of socket " + socket_path, errno);
  }
  std::string path(real);
  free(real);
  if (path != "/") path += '/';
  return path + file;
}

Result<std::string> StatsSegmentName(const std::string& socket_path, uint32_t uid) {
  Result<std::string> path = RealSocketPath(socket_path);
  if (!path.ok()) return path.status();
  const Result<std::string> hex = Sha256Hex(*path);
  if (!hex.ok()) return hex.status();
  return kStatsNamePrefix + std::to_string(uid) + "." + hex->substr(0, 16);
}

}  // namespace sutra
