#include "shm/base/standard_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>

namespace sutra {
namespace {

bool IsNull(int fd) {
  struct stat opened = {}, null = {};
  return fstat(fd, &opened) == 0 && stat("/dev/null", &null) == 0 && S_ISCHR(opened.st_mode) &&
         opened.st_rdev == null.st_rdev;
}

bool Same(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

// In a child: 0, 1 and 2 are pipes (never /dev/null), those in `closed` are closed; then the call. The exit code tells
// what went wrong, since the child may have no standard error to say it on.
int CodeAfterClosing(const std::set<int>& closed) {
  const pid_t child = fork();
  if (child == 0) {
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    struct stat before = {};
    if (fstat(ends[0], &before) != 0) _exit(1);
    for (int fd = 0; fd <= 2; ++fd) {
      if (dup2(ends[0], fd) != fd) _exit(1);
    }
    for (const int fd : closed) close(fd);
    const int next_before = fcntl(3, F_DUPFD, 3);
    close(next_before);
    if (!OpenStandardDescriptors()) _exit(2);
    for (int fd = 0; fd <= 2; ++fd) {
      struct stat after = {};
      if (fstat(fd, &after) != 0) _exit(3);
      if (IsNull(fd) != (closed.count(fd) == 1)) _exit(4);
      if (closed.count(fd) == 0 && !Same(before, after)) _exit(5);
      if ((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) _exit(6);
    }
    char byte = 0;
    if (closed.count(0) == 1 && (read(0, &byte, 1) != -1 || errno != EBADF)) _exit(7);
    if (closed.count(1) == 1 && (write(1, "x", 1) != -1 || errno != EBADF)) _exit(10);
    if (closed.count(2) == 1 && write(2, "x", 1) != 1) _exit(8);
    const int next_after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    _exit(next_after == next_before ? 0 : 9);  // nothing was left open above 2
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

TEST(StandardDescriptors, AMissingInputOrOutputFailsWhenUsedAndTheOthersAreLeftAlone) {
  for (int mask = 0; mask < 8; ++mask) {
    std::set<int> closed;
    for (int fd = 0; fd <= 2; ++fd) {
      if ((mask >> fd & 1) != 0) closed.insert(fd);
    }
    EXPECT_EQ(CodeAfterClosing(closed), 0) << "closed: mask " << mask;
  }
}

}  // namespace
}  // namespace sutra
