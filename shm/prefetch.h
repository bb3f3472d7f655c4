// Prefetches cache lines that are about to be written. A line that the other side read last must move between cores
// before a store to it can finish, and stores finish in order: moving the 24 lines of a vector one after another costs
// more than everything else in a round trip. Requested together, the transfers overlap. Only a hint: harmless on any
// address of a mapping, and on processors without the instruction. Header-only and free of the C++ runtime.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra {

inline void PrefetchForWrite(const void* address, std::size_t bytes) {
  const auto* line = static_cast<const char*>(address);
  for (std::size_t offset = 0; offset < bytes; offset += 64) {
#if defined(__x86_64__)
    // The builtin falls back to a read prefetch unless the whole program is built for newer processors.
    asm volatile("prefetchw %0" : : "m"(line[offset]));
#else
    __builtin_prefetch(line + offset, 1);
#endif
  }
}

}  // namespace sutra
