// Whether a peer is alive: the kernel decides, never a timer. Each side holds a POSIX write lock (F_SETLK, byte 0) on
// the lane it writes, as long as it lives; the other side asks with F_GETLK. A stopped process keeps its lock. A killed
// one loses it at once, even if a forked child still has the descriptors. (OFD locks and flock would be wrong here:
// SCM_RIGHTS shares the open file description, so they would belong to both sides.)
//
// Header-only, libc only. Thread rule: any thread.
// Rules for the holder: the lock is lost when the process closes ANY descriptor of that file, so keep exactly one.
// F_GETLK cannot see a lock of the calling process: code under test in one process gets another PeerAliveFunction.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace sutra {

// Whether the process `pid` holds the lock on `fd`.
using PeerAliveFunction = bool (*)(int fd, int pid);

// RETURNS true if the calling process now holds the lock on `fd` (opened for writing).
[[nodiscard]] inline bool TakeLock(int fd) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  int result;
  do {
    result = fcntl(fd, F_SETLK, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

// RETURNS false only if the kernel says that no other process holds the lock on `fd`. A failed call proves nothing.
[[nodiscard]] inline bool LockHolderAlive(int fd) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  if (fcntl(fd, F_GETLK, &lock) != 0) return true;
  return lock.l_type != F_UNLCK;
}

// RETURNS false if the kernel says that no process, or another one than `pid`, holds the lock on `fd`. `pid` is that of
// SO_PEERCRED, and 0 for a process that this PID namespace does not see: its lock bears a 0, too, and so does that of
// every other process out there. A lock that belongs to an open file description (F_OFD_SETLK) bears a -1: it would
// last as long as our own descriptor, and proves nothing.
[[nodiscard]] inline bool LockHeldBy(int fd, int pid) {
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  if (fcntl(fd, F_GETLK, &lock) != 0) return true;  // proves nothing
  return lock.l_type != F_UNLCK && lock.l_pid == pid;
}

// RETURNS true if the process of `pid_fd` has ended, with all its threads. Without a pidfd (-1) that is not known.
[[nodiscard]] inline bool ProcessEnded(int pid_fd) {
  struct pollfd item = {pid_fd, POLLIN, 0};
  return pid_fd >= 0 && poll(&item, 1, 0) == 1;
}

// A pidfd of the process that connected `socket`, readable when that process has ended.
// RETURNS -1 and errno if the kernel has neither SO_PEERPIDFD nor a pid visible in this PID namespace, or the engine no
// descriptor for it.
[[nodiscard]] inline int PeerPidFd(int socket) {
  constexpr int kSoPeerPidFd = 77;  // Linux 6.5; works across sibling PID namespaces, unlike SO_PEERCRED
  int pid_fd = -1;
  socklen_t length = sizeof(pid_fd);
  if (getsockopt(socket, SOL_SOCKET, kSoPeerPidFd, &pid_fd, &length) == 0) {
    fcntl(pid_fd, F_SETFD, FD_CLOEXEC);
    return pid_fd;
  }
  // If the pid was reused meanwhile, it names another process: but then the one that connected has ended.
  struct {
    int pid;
    unsigned uid, gid;
  } credentials = {};
  length = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 || credentials.pid <= 0) return -1;
  constexpr long kPidfdOpen = 434;
  return static_cast<int>(syscall(kPidfdOpen, credentials.pid, 0));
}

}  // namespace sutra
