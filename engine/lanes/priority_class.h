// The classes of service, in the order in which they are served. The wire has its own numbers (RequestPriority in
// shm/layout.h), where 0 is the class of a request that names none; only this file translates between the two.
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
