// At most one line a second of what clients can provoke; the next line says how many were left out.
// Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

#include "shm/sleep_wake.h"

namespace sutra {

class LogLimiter {
 public:
  explicit LogLimiter(std::function<void(const std::string&)> sink) : sink_(std::move(sink)) {}

  void operator()(const std::string& line) {
    std::lock_guard lock(mutex_);
    const uint64_t now_ns = MonotonicNs();
    if (now_ns < next_ns_) {
      ++left_out_;
      return;
    }
    next_ns_ = now_ns + kNsPerSecond;
    if (!sink_) return;
    sink_(left_out_ == 0 ? line : line + " (" + std::to_string(left_out_) + " lines left out before)");
    left_out_ = 0;
  }

 private:
  const std::function<void(const std::string&)> sink_;
  std::mutex mutex_;
  uint64_t next_ns_ = 0;
  uint64_t left_out_ = 0;
};

}  // namespace sutra
