// A control message as bytes and as values (shm/control_messages.h). Every field that a peer wrote is checked here,
// once, on a private copy; nothing else reads those bytes.
//
// Thread rule: none; plain functions on plain values. Invariants: a request or answer that is returned has a known
// command and values that are defined; a string has no control characters.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "shm/base/status.h"
#include "shm/control_messages.h"

namespace sutra {

inline constexpr size_t kControlMessageBytesMax = sizeof(ControlHeader) + kControlBodyBytesMax;

// What a standby says about itself. It must agree with the engine that it waits for.
struct StandbyHello {
  std::string identity;   // of its model, 64 hex digits
  std::string precision;  // "fp32", "bf16" or "int8"
  uint32_t width = 0;
  uint32_t pid = 0;
  StandbyState state = StandbyState::kPreparing;
};

// A cache command as it was asked: the fields that it does not have are 0, those that it has are within their bounds.
struct CacheCall {
  ControlCommand command = ControlCommand::kCacheInfo;
  CacheCallBody body = {};
  std::string identity;  // 16 or 64 hex digits, or empty
};

struct ControlRequest {
  ControlCommand command = ControlCommand::kStatus;
  LogVerbosity verbosity = LogVerbosity::kInfo;   // set log level
  StandbyHello standby;                           // register standby
  StandbyState state = StandbyState::kPreparing;  // update standby
  std::string_view piece;                         // cache payload: of the message that was parsed
  CacheCall cache;                                // the other cache commands
};

// The number with which an answer to `message` refers to it, and its command: zeros if it has no whole header.
struct ControlCall {
  uint64_t request_id = 0;
  uint32_t command = 0;
};
ControlCall CallOf(std::span<const char> message);

// `message` is what one recv returned. Fails with kProtocolViolation (no whole message of this protocol), kRefused
// (another version of it) or kBadOption (an unknown command or value; the session may go on).
Result<ControlRequest> ParseRequest(std::span<const char> message);

struct ControlAnswer {
  StatusCode code = StatusCode::kOk;
  uint32_t retry_after_ms = 0;
  std::string body;  // bytes of the command's structure, JSON, or a text
};
// The answer to `call`, or to a piece of its payload. A refusal of the attach (WelcomeMessage) is one too.
// kProtocolViolation: none of them.
Result<ControlAnswer> ParseAnswer(std::span<const char> message, const ControlCall& call);

// One message: the header and `body`. REQUIRES: body.size() <= kControlBodyBytesMax.
std::string MakeControlMessage(const ControlCall& call, std::string_view body, StatusCode status = StatusCode::kOk,
                               uint32_t retry_after_ms = 0);

// The bytes of a body's structure, and back: false if `bytes` has another size.
template <typename Body>
std::string_view BytesOf(const Body& body) {
  const auto bytes = std::as_bytes(std::span(&body, 1));
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}
template <typename Body>
bool BodyFrom(std::string_view bytes, Body* body) {
  if (bytes.size() != sizeof(Body)) return false;
  const auto room = std::as_writable_bytes(std::span(body, 1));
  bytes.copy(static_cast<char*>(static_cast<void*>(room.data())), room.size());
  return true;
}

// The body of a registration. REQUIRES: identity and precision fit.
StandbyBody ToBody(const StandbyHello& hello);

}  // namespace sutra
