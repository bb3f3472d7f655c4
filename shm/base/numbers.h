// Arithmetic on sizes and offsets. Header-only, constexpr and free of the C++ runtime: the client library includes it.
#pragma once

#include <cstdint>

namespace sutra {

// REQUIRES: unit > 0, and a result that fits (callers bound their sizes first).
constexpr uint64_t DivideRoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }
constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) { return DivideRoundUp(value, unit) * unit; }

static_assert(RoundUp(0, 64) == 0 && RoundUp(1, 64) == 64 && RoundUp(64, 64) == 64 && RoundUp(65, 64) == 128);

}  // namespace sutra
