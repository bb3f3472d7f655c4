// What the two processes of late_write_test share.
#pragma once

#include <fcntl.h>

#include <string>

#include "tests/cache/cache_test_support.h"

namespace sutra::test {

inline constexpr uint32_t kInsertsPerRound = 10'000;
inline constexpr uint32_t kLateWriteWidth = 128;

inline CacheConfig LateWriteConfig(const std::string& directory) {
  CacheConfig config = SmallConfig(directory, kLateWriteWidth);
  config.wal_segment_bytes = 2 << 20;
  config.wal_bytes_max = 256 << 20;  // nothing is evicted
  config.interval_us_max = 200;      // one write after another
  config.sync_us_max = 5'000;
  return config;
}

inline std::string LateWriteKey(const std::string& round, uint32_t number) {
  return "round " + round + " number " + std::to_string(number);
}

inline int LockFile(const std::string& directory) {
  return open((directory + "/LOCK").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

// As an engine holds it: of the open file. Returns when it is free.
inline bool WaitForLock(int fd) {
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_len = 1;
  return fcntl(fd, F_OFD_SETLKW, &range) == 0;
}

}  // namespace sutra::test
