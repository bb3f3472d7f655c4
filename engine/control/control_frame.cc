// Size first, then the header's fields in their order, then the body that the command takes.
#include "engine/control/control_frame.h"

#include <algorithm>
#include <cassert>

#include "shm/base/enum_names.h"
#include "shm/base/hex.h"
#include "shm/base/printable.h"
#include "shm/handshake_messages.h"
#include "shm/layout.h"

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

// Which fields of a CacheCallBody a command has; what is not said here is 0.
struct CacheFields {
  ControlCommand command;
  uint32_t flags_known = 0;
  bool token = false, cursor = false, age = false, variant = false, bytes_max = false, identity = false;
  uint32_t payload_bytes_min = 0, payload_bytes_max = 0;
};
constexpr CacheFields kCacheFields[] = {
    {.command = ControlCommand::kCachePreview,
     .flags_known = kCacheEverything | kCacheNeverHit,
     .age = true,
     .payload_bytes_max = kCacheContainsBytesMax},
    {.command = ControlCommand::kCacheCommit, .token = true},
    {.command = ControlCommand::kCacheErase,
     .variant = true,
     .payload_bytes_min = 1,
     .payload_bytes_max = kTextBytesMaxLimit},
    {.command = ControlCommand::kCacheGet,
     .variant = true,
     .payload_bytes_min = 1,
     .payload_bytes_max = kTextBytesMaxLimit},
    {.command = ControlCommand::kCachePage, .flags_known = kCacheHotOnly, .cursor = true, .bytes_max = true},
    {.command = ControlCommand::kCacheImport, .payload_bytes_min = 1, .payload_bytes_max = kCachePayloadBytesMax},
    {.command = ControlCommand::kCacheCompact},
    {.command = ControlCommand::kCacheIdentities},
    {.command = ControlCommand::kCacheDropIdentity, .identity = true},
    {.command = ControlCommand::kCacheInfo},
};

Status ReadCacheCall(const CacheCallBody& body, CacheCall* call) {
  const auto fields = std::find_if(std::begin(kCacheFields), std::end(kCacheFields),
                                   [call](const CacheFields& item) { return item.command == call->command; });
  assert(fields != std::end(kCacheFields));
  const bool foreign = (!fields->token && body.token != 0) || (!fields->cursor && body.cursor != 0) ||
                       (!fields->age && body.older_than_s != 0) || (!fields->variant && body.variant != 0) ||
                       (!fields->bytes_max && body.bytes_max != 0) || (!fields->identity && body.identity[0] != '\0');
  if (foreign) return Violation("a field that must be 0 is not");
  if ((body.flags & ~fields->flags_known) != 0) return BadOption("a flag that is not known to this engine");
  if (fields->token && body.token == 0) return BadOption("a commit names the token of a preview");
  if (body.payload_bytes < fields->payload_bytes_min || body.payload_bytes > fields->payload_bytes_max) {
    return BadOption(std::string("`") + NameOf(kControlCommandNames, call->command) + "` takes " +
                     std::to_string(fields->payload_bytes_min) + " to " + std::to_string(fields->payload_bytes_max) +
                     " bytes, not " + std::to_string(body.payload_bytes));
  }
  if (fields->bytes_max && (body.bytes_max == 0 || body.bytes_max > kCachePageBytesMax)) {
    return BadOption("a page is asked for with 1 to " + std::to_string(kCachePageBytesMax) + " bytes");
  }
  call->body = body;
  call->identity = FieldView(body.identity);
  const bool hex =
      std::all_of(call->identity.begin(), call->identity.end(), [](char digit) { return HexDigitValue(digit) >= 0; });
  if (fields->identity && !(hex && (call->identity.size() == 16 || call->identity.size() == 64))) {
    return BadOption("an identity is 64 hex digits, or the first 16 of them");
  }
  return {};
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
    case ControlCommand::kCachePayload: {
      request->piece = bytes;
      return bytes.empty() ? wrong_size() : Status();
    }
    case ControlCommand::kCachePreview:
    case ControlCommand::kCacheCommit:
    case ControlCommand::kCacheErase:
    case ControlCommand::kCacheGet:
    case ControlCommand::kCachePage:
    case ControlCommand::kCacheImport:
    case ControlCommand::kCacheCompact:
    case ControlCommand::kCacheIdentities:
    case ControlCommand::kCacheDropIdentity:
    case ControlCommand::kCacheInfo: {
      CacheCallBody body = {};
      if (!BodyFrom(bytes, &body)) return wrong_size();
      request->cache.command = request->command;
      return ReadCacheCall(body, &request->cache);
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
  const bool of_piece = header.command == static_cast<uint32_t>(ControlCommand::kCachePayload) &&
                        IsCacheCall(static_cast<ControlCommand>(call.command));
  if (header.request_id != call.request_id || (header.command != call.command && !of_piece)) {
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
