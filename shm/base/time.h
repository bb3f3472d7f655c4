// The clocks of this host, in nanoseconds. Code whose tests own the time takes a Clock (clock.h) instead.
// Header-only and free of the C++ runtime: the client library includes it. Thread rule: any thread.
#pragma once

#include <stdint.h>
#include <time.h>

namespace sutra {

inline constexpr uint64_t kNsPerUs = 1'000;
inline constexpr uint64_t kNsPerMs = 1'000'000;
inline constexpr uint64_t kNsPerSecond = 1'000'000'000;

inline uint64_t ToNs(const timespec& time) {
  return static_cast<uint64_t>(time.tv_sec) * kNsPerSecond + static_cast<uint64_t>(time.tv_nsec);
}
inline timespec ToTimespec(uint64_t ns) {
  return {static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
}
inline uint64_t ReadClockNs(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return ToNs(now);
}

// CLOCK_MONOTONIC: every deadline and every duration. The same for all processes of a host.
inline uint64_t MonotonicNs() { return ReadClockNs(CLOCK_MONOTONIC); }
// CLOCK_BOOTTIME: goes on while the host is suspended. For lifetimes, which a suspend must not lengthen.
inline uint64_t BootNs() { return ReadClockNs(CLOCK_BOOTTIME); }
// CLOCK_REALTIME, which may jump either way: only for what outlives the host's uptime or is shown to people.
inline uint64_t WallNs() { return ReadClockNs(CLOCK_REALTIME); }

}  // namespace sutra
