// Log lines: where they go, and a rate limit for those that clients can cause.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
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

// Kinds of lines that clients can cause. Each has a budget of its own: a client that causes one kind hides no other.
enum class LogKind : uint8_t {
  kAttachRefused,    // of a client that may attach
  kStrangerRefused,  // of a user that may not
  kAcceptFailed,     // no descriptor, no memory
  kLaneDied,
  kLaneViolated,
  kWatchFailed,
  kModelFailed,
  kControl,         // a command that changes the engine
  kControlRefused,  // a session that was refused or ended
  kStandbyCame,
  kStandbyGone,
  kCount
};

// Where a part of the engine sends its lines, with their kinds. Built from a plain LogLine it passes all of them on.
class KindLog {
 public:
  using Sink = std::function<void(LogKind, LogLevel, const std::string&)>;

  KindLog() = default;  // drops all lines
  template <typename Line, typename = std::enable_if_t<std::is_convertible_v<Line, LogLine> &&
                                                       !std::is_same_v<std::decay_t<Line>, KindLog>>>
  KindLog(Line line) {
    if (LogLine plain = std::move(line)) {
      sink_ = [plain](LogKind, LogLevel level, const std::string& text) { plain(level, text); };
    }
  }
  explicit KindLog(Sink sink) : sink_(std::move(sink)) {}

  explicit operator bool() const { return bool(sink_); }
  void operator()(LogKind kind, LogLevel level, const std::string& line) const {
    if (sink_) sink_(kind, level, line);
  }

 private:
  Sink sink_;
};

// A limiter per kind. Outlives the logs that it hands out.
class LogBudgets {
 public:
  explicit LogBudgets(const LogLine& sink, uint64_t (*now_ns)() = MonotonicNs) {
    for (auto& limiter : limiters_) limiter.emplace(sink, now_ns);
  }

  KindLog log() {
    return KindLog([this](LogKind kind, LogLevel level, const std::string& line) {
      assert(kind < LogKind::kCount);
      (*limiters_[static_cast<size_t>(kind)])(level, line);
    });
  }

 private:
  std::array<std::optional<LogLimiter>, static_cast<size_t>(LogKind::kCount)> limiters_;
};

}  // namespace sutra
