#include "producer/fork_detector.h"

#include <sys/mman.h>

#include "shm/layout.h"

namespace sutra::client {
namespace {

constexpr int kWipeOnFork = 18;  // MADV_WIPEONFORK, spelled out for C libraries that hide it

}  // namespace

// A word that reads 1 here and 0 in any forked child, for the price of a load; the process id where the kernel
// cannot do that.
ForkDetector MakeForkDetector() {
  ForkDetector detector;
  detector.pid = getpid();
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return detector;
  if (madvise(page, kPageBytes, kWipeOnFork) != 0) {
    munmap(page, kPageBytes);
    return detector;
  }
  auto* word = static_cast<uint32_t*>(page);
  *word = 1;
  detector.not_forked = word;
  return detector;
}

void DestroyForkDetector(ForkDetector* detector) {
  if (detector->not_forked != nullptr) munmap(const_cast<uint32_t*>(detector->not_forked), kPageBytes);
  *detector = ForkDetector();
}

}  // namespace sutra::client
