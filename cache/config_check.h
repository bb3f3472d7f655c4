// What a shard requires of its configuration before it touches a disk. Plain function.
#pragma once

#include "cache/cache_shard.h"
#include "shm/base/status.h"

namespace sutra {

// kBadOption with the member's name and what is allowed, for the first member that is out of bounds.
Status CheckConfig(const CacheConfig& config);

}  // namespace sutra
