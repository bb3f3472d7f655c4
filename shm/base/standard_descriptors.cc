// A new descriptor gets the lowest free number, so opening until the number is above 2 fills the gaps and no more.
#include "shm/base/standard_descriptors.h"

#include <fcntl.h>
#include <unistd.h>

namespace sutra {

bool OpenStandardDescriptors() {
  for (;;) {
    // Without O_CLOEXEC: they are for the programs started from here as much as for this one.
    const int fd = open("/dev/null", O_RDWR);
    if (fd < 0) return false;
    if (fd <= STDERR_FILENO) continue;
    close(fd);
    return true;
  }
}

}  // namespace sutra
