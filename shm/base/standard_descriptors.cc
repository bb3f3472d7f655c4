// A new descriptor gets the lowest free number: gone through from 0 upwards, each missing one gets its own.
#include "shm/base/standard_descriptors.h"

#include <fcntl.h>
#include <unistd.h>

namespace sutra {

bool OpenStandardDescriptors() {
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_RDWR};
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // Without O_CLOEXEC: they are for the programs started from here as much as for this one.
    if (open("/dev/null", kModes[fd]) != fd) return false;
  }
  return true;
}

}  // namespace sutra
