// Keeps the library's descriptors away from 0, 1 and 2: a program that closed those and attaches must not get the
// memory of a lane as its standard error. Every descriptor that the library opens or receives goes through here. Thread
// rule: any thread.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

namespace sutra::client {

inline constexpr int kDescriptorMin = 3;

// RETURNS `fd`, or a duplicate at 3 or above in its place, or -1 with errno; `fd` itself is closed then. Before a lock
// is taken on it: closing any descriptor of a file drops the process's locks.
[[nodiscard]] inline int HighFd(int fd) {
  if (fd < 0 || fd >= kDescriptorMin) return fd;
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, kDescriptorMin);
  const int cause = errno;
  close(fd);
  errno = cause;
  return high;
}

}  // namespace sutra::client
