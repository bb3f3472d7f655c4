// When the log writes and syncs its records; WAL_FORMAT.md, "Writing", says what each policy guarantees. Plain data.
#pragma once

#include <utility>

namespace sutra {

enum class DurabilityPolicy { kNone, kInterval, kGroup, kSync };

// The names that options and messages use.
inline constexpr std::pair<const char*, DurabilityPolicy> kDurabilityPolicyNames[] = {
    {"none", DurabilityPolicy::kNone},
    {"interval", DurabilityPolicy::kInterval},
    {"group", DurabilityPolicy::kGroup},
    {"sync", DurabilityPolicy::kSync},
};

}  // namespace sutra
