// Size first, then the header's fields in their order, then the body that the command takes.
#include "engine/control/control_frame.h"

#include <algorithm>
#include <cassert>

#include "shm/base/enum_names.h"
#include "shm/base/printable.h"
#include "shm/handshake_messages.h"

namespace sutra {
namespace {

Status Violation(const std::string& what) {
  return Status(StatusCode::kProtocolViolation, "no valid control message: " + what);
}

Status BadOption(const std::string& what) { return Status(StatusCode::kBadOption, what); }

bool HasHeader(std::span<const char> message, ControlHeader* header) {
  return message.size() >= sizeof(*header) && BodyFrom({message.data(), sizeof(*header)}, header);
}

template <typename Enum, size_t kCount>
Status ReadEnum(EnumNames<Enum, kCount>& names, const char* what, uint32_t number, Enum* value) {
  for (const auto& [name, known] : names) {
    if (static_cast<uint32_t>(known) != number) continue;
    *value = known;
    return {};
  }
  return BadOption(std::string(what) + " " + std::to_string(number) + " is not known to this engine");
}

Status CheckHeader(const ControlHeader& header, size_t bytes) {
  if (header.magic != kControlMagic) return Violation("another magic");
  if (header.version != kControlVersion) {
    return Status(StatusCode::kRefused, "the control session speaks version " + std::to_string(header.version) +
                                            ", this engine " + std::to_string(kControlVersion) +
                                            ": use a tool of the engine's version");
  }
  if (header.body_bytes != bytes - sizeof(header)) return Violation("its body has another size than it says");
  if (header.status != 0 || header.retry_after_ms != 0 || header.reserved != 0) {
    return Violation("a field that must be 0 is not");
  }
  return {};
}

Status ReadStandby(const StandbyBody& body, StandbyHello* hello) {
  const auto text = [](std::span<const char> field) { return Printable(FieldView(field), HighBytes::kReplace); };
  hello->pid = body.pid;
  hello->width = body.width;
  hello->precision = text(body.precision);
  hello->identity = text(body.identity);
  if (body.reserved != 0) return Violation("a field that must be 0 is not");
  if (hello->width == 0 || hello->precision.empty() || hello->identity.empty()) {
    return BadOption("a standby registers with its model's identity, precision and width");
  }
  return ReadEnum(kStandbyStateNames, "standby state", body.state, &hello->state);
}

Status ReadBody(std::string_view bytes, ControlRequest* request) {
  const auto wrong_size = [&] {
    return Violation(std::string("`") + NameOf(kControlCommandNames, request->command) + "` has no body of " +
                     std::to_string(bytes.size()) + " bytes");
  };
  switch (request->command) {
    case ControlCommand::kStatus:
    case ControlCommand::kHandOver: return bytes.empty() ? Status() : wrong_size();
    case ControlCommand::kSetLogLevel: {
      LogLevelBody body = {};
      if (!BodyFrom(bytes, &body)) return wrong_size();
      if (body.reserved != 0) return Violation("a field that must be 0 is not");
      return ReadEnum(kLogVerbosityNames, "log level", body.verbosity, &request->verbosity);
    }
    case ControlCommand::kRegisterStandby: {
      StandbyBody body = {};
      return BodyFrom(bytes, &body) ? ReadStandby(body, &request->standby) : wrong_size();
    }
    case ControlCommand::kUpdateStandby: {
      StandbyStateBody body = {};
      if (!BodyFrom(bytes, &body)) return wrong_size();
      if (body.reserved != 0) return Violation("a field that must be 0 is not");
      return ReadEnum(kStandbyStateNames, "standby state", body.state, &request->state);
    }
  }
  return BadOption("unreachable: the command is a known one");
}

// The attach's answer to a connection of which it does not know yet that it is a control session.
Result<ControlAnswer> ParseWelcome(std::span<const char> message) {
  WelcomeMessage welcome = {};
  if (!BodyFrom({message.data(), message.size()}, &welcome) || welcome.magic != kHandshakeMagic) {
    return Violation("an answer that is none");
  }
  ControlAnswer answer;
  if (welcome.status == 0 || welcome.status >= kStatusCodeCount) return Violation("a welcome, to no client");
  answer.code = static_cast<StatusCode>(welcome.status);
  answer.retry_after_ms = welcome.retry_after_ms;
  answer.body = FieldView(welcome.message);
  return answer;
}

}  // namespace

ControlCall CallOf(std::span<const char> message) {
  ControlHeader header = {};
  if (!HasHeader(message, &header)) return {};
  return {.request_id = header.request_id, .command = header.command};
}

Result<ControlRequest> ParseRequest(std::span<const char> message) {
  ControlHeader header = {};
  if (!HasHeader(message, &header)) return Violation("shorter than its header");
  if (message.size() > kControlMessageBytesMax) return Violation("longer than any");
  if (Status status = CheckHeader(header, message.size()); !status.ok()) return status;
  ControlRequest request;
  if (Status status = ReadEnum(kControlCommandNames, "control command", header.command, &request.command);
      !status.ok()) {
    return Status(status.code(), status.message() + ": use a tool of the engine's version, or a newer engine");
  }
  const std::string_view body(message.data() + sizeof(header), message.size() - sizeof(header));
  if (Status status = ReadBody(body, &request); !status.ok()) return status;
  assert(static_cast<uint32_t>(request.command) == header.command);
  return request;
}

Result<ControlAnswer> ParseAnswer(std::span<const char> message, const ControlCall& call) {
  ControlHeader header = {};
  if (!HasHeader(message, &header)) return Violation("an answer shorter than its header");
  if (header.magic != kControlMagic) return ParseWelcome(message);
  if (message.size() - sizeof(header) != header.body_bytes || message.size() > kControlMessageBytesMax) {
    return Violation("an answer whose body has another size than it says");
  }
  if (header.request_id != call.request_id || header.command != call.command) {
    return Violation("an answer to another request");
  }
  if (header.status >= kStatusCodeCount) return Violation("an answer with an unknown status");
  ControlAnswer answer;
  answer.code = static_cast<StatusCode>(header.status);
  answer.retry_after_ms = header.retry_after_ms;
  answer.body.assign(message.data() + sizeof(header), message.size() - sizeof(header));
  return answer;
}

std::string MakeControlMessage(const ControlCall& call, std::string_view body, StatusCode status,
                               uint32_t retry_after_ms) {
  assert(body.size() <= kControlBodyBytesMax);
  const ControlHeader header = {.magic = kControlMagic,
                                .version = kControlVersion,
                                .command = call.command,
                                .request_id = call.request_id,
                                .body_bytes = static_cast<uint32_t>(body.size()),
                                .status = static_cast<uint32_t>(status),
                                .retry_after_ms = retry_after_ms,
                                .reserved = 0};
  std::string message(BytesOf(header));
  return message.append(body);
}

StandbyBody ToBody(const StandbyHello& hello) {
  StandbyBody body = {};
  assert(hello.precision.size() < sizeof(body.precision) && hello.identity.size() < sizeof(body.identity));
  body.pid = hello.pid;
  body.state = static_cast<uint32_t>(hello.state);
  body.width = hello.width;
  hello.precision.copy(body.precision, sizeof(body.precision) - 1);
  hello.identity.copy(body.identity, sizeof(body.identity) - 1);
  return body;
}

}  // namespace sutra
