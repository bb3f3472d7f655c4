// What all lanes, those of one user and those of one client process may claim: from the options, the limit of open
// files and the size of one lane. Whatever is derived leaves a client that asks for nothing special its lane; where
// what was asked for does not, the engine does not start.
#pragma once

#include <cstdint>

#include "engine/config.h"
#include "engine/lanes/client_table.h"
#include "shm/base/log_line.h"
#include "shm/base/status.h"

namespace sutra {

// `files` is how many descriptors the engine may have, `width` that of its vectors. kBadOption gives numbers and fix.
Result<ClientTable::Limits> LaneLimits(const EngineConfig& config, uint64_t files, uint32_t width, const LogLine& log);

}  // namespace sutra
