// The classes of service, in the order in which they are served. The wire has numbers of its own (RequestPriority in
// shm/layout.h), of which 0 is the class of a request that says nothing; they meet here and nowhere else.
#pragma once

#include <cstdint>
#include <optional>

#include "shm/layout.h"

namespace sutra {

enum PriorityClass : uint8_t { kClassQuery = 0, kClassNormal = 1, kClassBulk = 2, kClassCount = 3 };

// Nothing for a number that is not a RequestPriority.
constexpr std::optional<PriorityClass> ClassOfWire(uint64_t priority) {
  switch (priority) {
    case kPriorityQuery: return kClassQuery;
    case kPriorityNormal: return kClassNormal;
    case kPriorityBulk: return kClassBulk;
    default: return std::nullopt;
  }
}
static_assert(uint32_t{kClassCount} == uint32_t{kPriorityCount});

}  // namespace sutra
