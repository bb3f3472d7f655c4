// CRC-32C (Castagnoli), the checksum of everything in the log. Uses the SSE4.2 instruction where the CPU has it,
// detected at run time, and a table otherwise; both give the same number. Stateless and thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

// The checksum of `size` bytes at `data`, continuing `crc` (0 to begin): Crc32c(b, Crc32c(a)) == Crc32c(ab).
uint32_t Crc32c(const void* data, size_t size, uint32_t crc = 0);

// The portable path, exposed so that a test can compare the two.
uint32_t Crc32cPortable(const void* data, size_t size, uint32_t crc = 0);

}  // namespace sutra
