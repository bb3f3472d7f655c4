// Tells a forked child from the process that attached, where the lanes' mappings do not exist.
// Thread rule: created and destroyed by one thread; IsForked by any.
#pragma once

#include <stdint.h>
#include <unistd.h>

namespace sutra::client {

struct ForkDetector {
  pid_t pid = 0;
  const uint32_t* not_forked = nullptr;  // 1; its page is zeroed in a forked child; nullptr = compare pid instead
};

ForkDetector MakeForkDetector();
void DestroyForkDetector(ForkDetector* detector);

inline bool IsForked(const ForkDetector& detector) {
  return detector.not_forked != nullptr ? *detector.not_forked == 0 : getpid() != detector.pid;
}

}  // namespace sutra::client
