// Says in the log how far a long task is, once a second at most.
// Thread rule: any thread.
#pragma once

#include <spdlog/spdlog.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "shm/base/time.h"

namespace sutra::cpu {

class ProgressLine {
 public:
  // "int8: 3 of 7 WHAT"; no line within the first second.
  explicit ProgressLine(std::string what) : what_(std::move(what)), next_ns_(MonotonicNs() + kNsPerSecond) {}

  void Say(size_t done, size_t all) {
    const uint64_t now_ns = MonotonicNs();
    // Relaxed: the exchange decides who writes the line; it publishes nothing.
    uint64_t next_ns = next_ns_.load(std::memory_order_relaxed);
    if (now_ns < next_ns) return;
    if (!next_ns_.compare_exchange_strong(next_ns, now_ns + kNsPerSecond, std::memory_order_relaxed)) return;
    spdlog::info("int8: {} of {} {}", done, all, what_);
  }

 private:
  const std::string what_;
  std::atomic<uint64_t> next_ns_;
};

}  // namespace sutra::cpu
