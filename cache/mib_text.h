// Sizes in messages. Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>

namespace sutra {

// Rounded up: what takes up room is not called "0 MiB".
inline std::string MiBText(uint64_t bytes) {
  constexpr uint64_t kMiB = 1u << 20;
  return std::to_string((bytes + kMiB - 1) / kMiB) + " MiB";
}

}  // namespace sutra
