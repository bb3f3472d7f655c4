// What a spin loop executes between two checks: leaves the core's resources to its sibling thread for a moment.
// Header-only and free of the C++ runtime: the client library includes it.
#pragma once

namespace sutra {

inline void CpuPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace sutra
