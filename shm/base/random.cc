#include "shm/base/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sutra {

bool FillRandom(void* data, size_t size) {
  auto* bytes = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = getrandom(bytes, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    bytes += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  while (seed == 0) {
    if (!FillRandom(&seed, sizeof(seed))) {
      std::fprintf(stderr,
                   "sutra: the kernel provides no random numbers (getrandom: %s); allow getrandom in the seccomp "
                   "filter of this service or container\n",
                   std::strerror(errno));
      std::abort();
    }
  }
  return seed;
}

}  // namespace sutra
