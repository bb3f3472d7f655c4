// Log lines: where they go, and a rate limit for those that clients can cause.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "shm/base/mutex.h"
#include "shm/base/time.h"

namespace sutra {

// kWarn: something works less well than it should, and goes on. kError: something is lost or refused until an operator
// acts. Faults are never kInfo: with `--log-level warn` an operator sees all of them.
enum class LogLevel : uint8_t { kInfo, kWarn, kError };

// Takes one line per call, without the newline. An empty function drops all lines.
using LogLine = std::function<void(LogLevel, const std::string&)>;

// At most one line per second; the next line says how many were left out. Thread-safe.
class LogLimiter {
 public:
  explicit LogLimiter(LogLine sink, uint64_t (*now_ns)() = MonotonicNs) : sink_(std::move(sink)), now_ns_(now_ns) {}

  void operator()(LogLevel level, const std::string& line) {
    MutexLock lock(mutex_);
    const uint64_t now_ns = now_ns_();
    if (now_ns < next_ns_) {
      ++left_out_;
      return;
    }
    next_ns_ = now_ns + kNsPerSecond;
    if (!sink_) return;
    sink_(level, left_out_ == 0 ? line : line + " (" + std::to_string(left_out_) + " lines left out before)");
    left_out_ = 0;
  }

 private:
  const LogLine sink_;
  uint64_t (*const now_ns_)();
  Mutex mutex_;
  uint64_t next_ns_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t left_out_ SUTRA_GUARDED_BY(mutex_) = 0;
};

}  // namespace sutra
