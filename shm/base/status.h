// The outcome of an operation: a closed set of codes shared by every process, and Status / Result<T>, the error
// values our own code returns instead of throwing.
//
// The numbers cross process boundaries and are written into result words: they are never reused or renumbered. A
// reader that meets an unknown number treats it as kModelError. `producer/include/sutra/embed.h` repeats them for C;
// a static_assert in producer/api_status.cc keeps the two equal.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

namespace sutra {

enum class StatusCode : uint8_t {
  kOk = 0,
  kNotReady = 1,    // a wait timed out; the ticket stays valid
  kFull = 2,        // no free slot in the lane
  kOverloaded = 3,  // the engine refuses work for now
  kEmptyText = 4,   // zero bytes (NUL is an ordinary character)
  kInvalidUtf8 = 5,
  kTextTooLong = 6,  // over the slot's bytes, or over the token limit with `reject`
  kBadOption = 7,    // unknown option bit, width the model does not have, ...
  kDeadlineExceeded = 8,
  kCancelled = 9,
  kEngineGone = 10,  // died, or came back with another layout or model
  kShuttingDown = 11,
  kModelError = 12,
  kStorageError = 13,
  kRefused = 14,            // permission, quota or version
  kProtocolViolation = 15,  // the peer broke the lane protocol
  kOutOfMemory = 16,
  kForked = 17,       // the lane belongs to the parent process
  kBadArgument = 18,  // a caller's null pointer, or a structure without a valid size
};
inline constexpr int kStatusCodeCount = 19;

constexpr const char* StatusName(StatusCode code) {
  constexpr const char* kNames[kStatusCodeCount] = {"ok",
                                                    "not ready",
                                                    "full",
                                                    "overloaded",
                                                    "empty text",
                                                    "invalid UTF-8",
                                                    "text too long",
                                                    "bad option",
                                                    "deadline exceeded",
                                                    "cancelled",
                                                    "engine gone",
                                                    "shutting down",
                                                    "model error",
                                                    "storage error",
                                                    "refused",
                                                    "protocol violation",
                                                    "out of memory",
                                                    "forked",
                                                    "bad argument"};
  const auto index = static_cast<unsigned>(code);
  return index < kStatusCodeCount ? kNames[index] : "model error";
}

// A code plus a message that names the object, the likely cause and the fix; `os_error` keeps errno (0 if none).
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message, int os_error = 0)
      : code_(code), os_error_(os_error), message_(std::move(message)) {}

  // "opening /x/y: Permission denied" from an operation name and errno.
  static Status FromErrno(StatusCode code, const std::string& operation, int os_error) {
    return Status(code, operation + ": " + std::strerror(os_error), os_error);
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  int os_error() const { return os_error_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  int os_error_ = 0;
  std::string message_;
};

// A value or the Status that explains its absence. Reading the value of a failed result is our own bug: it asserts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose, `return value;`
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  StatusCode code() const { return status_.code(); }
  T& value() & {
    assert(ok());
    return *value_;
  }
  const T& value() const& {
    assert(ok());
    return *value_;
  }
  T&& value() && {
    assert(ok());
    return std::move(*value_);
  }
  T* operator->() {
    assert(ok());
    return &*value_;
  }
  const T* operator->() const {
    assert(ok());
    return &*value_;
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace sutra
