// Sizes in messages. Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>

#include "shm/base/numbers.h"

namespace sutra {

// Rounded up: what takes up room is not called "0 MiB".
inline std::string MiBText(uint64_t bytes) { return std::to_string(DivideRoundUp(bytes, uint64_t{1} << 20)) + " MiB"; }

}  // namespace sutra
