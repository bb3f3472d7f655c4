// Segments stay after their engine, so that what it last said can be read; nobody comes back for those whose socket's
// folder is gone (temporary directories, removed installations). Each holds 60 KB of /dev/shm until it is removed here.
// Stateless.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sutra {

struct PrunedSegment {
  std::string name;
  std::string socket;
};

// Removes the segments of this user whose engine has ended (its lock is not held, and it is not alive otherwise) and
// whose socket's folder does not exist; says which. Segments that cannot be read or judged stay.
std::vector<PrunedSegment> PruneStats(uint32_t uid);

}  // namespace sutra
