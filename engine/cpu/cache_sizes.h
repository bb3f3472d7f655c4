// How much cache a core has to itself, which decides how many tokens go through the layers at once.
// Thread rule: any thread.
#pragma once

#include <cstddef>
#include <string>

namespace sutra::cpu {

struct CacheSizes {
  size_t l2_bytes = size_t{1} << 20;        // of one core; what is here stands where the kernel does not tell
  size_t l3_share_bytes = size_t{2} << 20;  // the last level, divided by the CPUs that share it
};

// From /sys/devices/system/cpu/cpu0/cache below `root`, which is "/" outside of tests.
CacheSizes ReadCacheSizes(const std::string& root);

}  // namespace sutra::cpu
