// Messages byte by byte: what is a request, what is an answer, and what is neither.
#include "engine/control/control_frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "shm/handshake_messages.h"

namespace sutra {
namespace {

std::span<const char> Bytes(const std::string& message) { return {message.data(), message.size()}; }

std::string Request(uint32_t command, std::string_view body = {}) {
  return MakeControlMessage({.request_id = 5, .command = command}, body);
}
std::string Request(ControlCommand command, std::string_view body = {}) {
  return Request(static_cast<uint32_t>(command), body);
}
template <typename T>
std::string With(std::string message, size_t offset, T value) {
  std::memcpy(message.data() + offset, &value, sizeof(value));
  return message;
}
StatusCode CodeOf(const std::string& message) { return ParseRequest(Bytes(message)).code(); }

StandbyHello Hello() {
  return {.identity = std::string(64, 'c'), .precision = "bf16", .width = 384, .pid = 9, .state = StandbyState::kReady};
}

TEST(ControlFrame, ARequestComesBackAsItWasMade) {
  const StandbyBody body = ToBody(Hello());
  const Result<ControlRequest> request = ParseRequest(Bytes(Request(ControlCommand::kRegisterStandby, BytesOf(body))));
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(request.value().command, ControlCommand::kRegisterStandby);
  EXPECT_EQ(request.value().standby.identity, std::string(64, 'c'));
  EXPECT_EQ(request.value().standby.precision, "bf16");
  EXPECT_EQ(request.value().standby.width, 384U);
  EXPECT_EQ(request.value().standby.pid, 9U);
  EXPECT_EQ(request.value().standby.state, StandbyState::kReady);
}

TEST(ControlFrame, EveryShorterMessageIsAViolation) {
  const LogLevelBody body = {.verbosity = 1, .reserved = 0};
  const std::string whole = Request(ControlCommand::kSetLogLevel, BytesOf(body));
  ASSERT_TRUE(ParseRequest(Bytes(whole)).ok());
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(CodeOf(whole.substr(0, bytes)), StatusCode::kProtocolViolation) << bytes;
  }
  EXPECT_EQ(CodeOf(whole + "x"), StatusCode::kProtocolViolation);
}

TEST(ControlFrame, EveryFieldOfTheHeaderIsChecked) {
  const std::string whole = Request(ControlCommand::kStatus);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, magic), kHandshakeMagic)), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, version), 2u)), StatusCode::kRefused);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, body_bytes), 1u)), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, body_bytes), UINT32_MAX)), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, status), 1u)), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, retry_after_ms), 1u)), StatusCode::kProtocolViolation);
  EXPECT_EQ(CodeOf(With(whole, offsetof(ControlHeader, reserved), 1u)), StatusCode::kProtocolViolation);
}

TEST(ControlFrame, AnUnknownCommandIsABadOptionThatNamesIt) {
  for (const uint32_t command : {0u, 17u, UINT32_MAX}) {
    const Result<ControlRequest> request = ParseRequest(Bytes(Request(command)));
    EXPECT_EQ(request.code(), StatusCode::kBadOption);
    EXPECT_NE(request.status().message().find("control command " + std::to_string(command)), std::string::npos);
  }
}

TEST(ControlFrame, UndefinedValuesAreBadOptions) {
  const LogLevelBody level = {.verbosity = 5, .reserved = 0};
  EXPECT_EQ(CodeOf(Request(ControlCommand::kSetLogLevel, BytesOf(level))), StatusCode::kBadOption);
  const StandbyStateBody state = {.state = 0, .reserved = 0};
  EXPECT_EQ(CodeOf(Request(ControlCommand::kUpdateStandby, BytesOf(state))), StatusCode::kBadOption);
  StandbyBody standby = ToBody(Hello());
  standby.state = 3;
  EXPECT_EQ(CodeOf(Request(ControlCommand::kRegisterStandby, BytesOf(standby))), StatusCode::kBadOption);
  const StandbyBody empty = {};
  EXPECT_EQ(CodeOf(Request(ControlCommand::kRegisterStandby, BytesOf(empty))), StatusCode::kBadOption);
}

TEST(ControlFrame, ABodyThatTheCommandDoesNotTakeIsAViolation) {
  for (const ControlCommand command : {ControlCommand::kStatus, ControlCommand::kHandOver, ControlCommand::kSetLogLevel,
                                       ControlCommand::kRegisterStandby, ControlCommand::kUpdateStandby}) {
    EXPECT_EQ(CodeOf(Request(command, "abc")), StatusCode::kProtocolViolation) << static_cast<uint32_t>(command);
  }
}

TEST(ControlFrame, AStringOfAPeerHasNoControlCharactersAndNeedsNoEnd) {
  StandbyBody body = ToBody(Hello());
  std::memset(body.identity, '\n', sizeof(body.identity));
  const Result<ControlRequest> request = ParseRequest(Bytes(Request(ControlCommand::kRegisterStandby, BytesOf(body))));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request.value().standby.identity, std::string(sizeof(body.identity), '?'));
}

// A valid body of each cache command.
CacheCallBody Fitting(ControlCommand command) {
  CacheCallBody body = {};
  if (command == ControlCommand::kCacheCommit) body.token = 7;
  if (command == ControlCommand::kCachePage) body.bytes_max = 1;
  if (command == ControlCommand::kCacheDropIdentity) std::memset(body.identity, 'a', 64);
  if (command == ControlCommand::kCacheErase || command == ControlCommand::kCacheGet) body.payload_bytes = 1;
  if (command == ControlCommand::kCacheImport) body.payload_bytes = 1;
  return body;
}
constexpr ControlCommand kCacheCalls[] = {ControlCommand::kCachePreview,      ControlCommand::kCacheCommit,
                                          ControlCommand::kCacheErase,        ControlCommand::kCacheGet,
                                          ControlCommand::kCachePage,         ControlCommand::kCacheImport,
                                          ControlCommand::kCacheCompact,      ControlCommand::kCacheIdentities,
                                          ControlCommand::kCacheDropIdentity, ControlCommand::kCacheInfo};

TEST(ControlFrame, ACacheCommandComesBackAsItWasAsked) {
  CacheCallBody body = Fitting(ControlCommand::kCachePreview);
  body.flags = kCacheNeverHit;
  body.older_than_s = UINT64_MAX;
  body.payload_bytes = kCacheContainsBytesMax;
  const std::string message = Request(ControlCommand::kCachePreview, BytesOf(body));
  const Result<ControlRequest> request = ParseRequest(Bytes(message));
  ASSERT_TRUE(request.ok()) << request.status().message();
  EXPECT_EQ(request->cache.command, ControlCommand::kCachePreview);
  EXPECT_EQ(BytesOf(request->cache.body), BytesOf(body));
  const std::string drop =
      Request(ControlCommand::kCacheDropIdentity, BytesOf(Fitting(ControlCommand::kCacheDropIdentity)));
  EXPECT_EQ(ParseRequest(Bytes(drop)).value().cache.identity, std::string(64, 'a'));
}

TEST(ControlFrame, EachFieldOfACacheCommandIsForThoseThatHaveIt) {
  using Command = ControlCommand;
  struct Field {
    const char* name;
    void (*set)(CacheCallBody*);
    std::vector<Command> of;
    StatusCode otherwise = StatusCode::kProtocolViolation;
  };
  const Field fields[] = {
      {"token", [](CacheCallBody* body) { body->token = 9; }, {Command::kCacheCommit}},
      {"cursor", [](CacheCallBody* body) { body->cursor = 9; }, {Command::kCachePage}},
      {"older_than_s", [](CacheCallBody* body) { body->older_than_s = 9; }, {Command::kCachePreview}},
      {"variant", [](CacheCallBody* body) { body->variant = 9; }, {Command::kCacheErase, Command::kCacheGet}},
      {"bytes_max", [](CacheCallBody* body) { body->bytes_max = 9; }, {Command::kCachePage}},
      {"identity", [](CacheCallBody* body) { body->identity[0] = 'b'; }, {Command::kCacheDropIdentity}},
      {"everything",
       [](CacheCallBody* body) { body->flags = kCacheEverything; },
       {Command::kCachePreview},
       StatusCode::kBadOption},
      {"never hit",
       [](CacheCallBody* body) { body->flags = kCacheNeverHit; },
       {Command::kCachePreview},
       StatusCode::kBadOption},
      {"hot", [](CacheCallBody* body) { body->flags = kCacheHotOnly; }, {Command::kCachePage}, StatusCode::kBadOption},
      {"unknown flag", [](CacheCallBody* body) { body->flags = 8; }, {}, StatusCode::kBadOption},
      {"payload",
       [](CacheCallBody* body) { body->payload_bytes = 9; },
       {Command::kCachePreview, Command::kCacheErase, Command::kCacheGet, Command::kCacheImport},
       StatusCode::kBadOption},
  };
  for (const Command command : kCacheCalls) {
    EXPECT_EQ(CodeOf(Request(command, BytesOf(Fitting(command)))), StatusCode::kOk) << static_cast<uint32_t>(command);
    EXPECT_EQ(CodeOf(Request(command)), StatusCode::kProtocolViolation) << static_cast<uint32_t>(command);
    for (const Field& field : fields) {
      CacheCallBody body = Fitting(command);
      field.set(&body);
      const bool has = std::find(field.of.begin(), field.of.end(), command) != field.of.end();
      EXPECT_EQ(CodeOf(Request(command, BytesOf(body))), has ? StatusCode::kOk : field.otherwise)
          << field.name << " of " << static_cast<uint32_t>(command);
    }
  }
}

TEST(ControlFrame, ACacheCommandsFieldsAreBounded) {
  const auto code = [](ControlCommand command, const auto& change) {
    CacheCallBody body = Fitting(command);
    change(&body);
    return CodeOf(Request(command, BytesOf(body)));
  };
  using Command = ControlCommand;
  const auto payload = [](uint32_t bytes) { return [bytes](CacheCallBody* body) { body->payload_bytes = bytes; }; };
  EXPECT_EQ(code(Command::kCachePreview, payload(kCacheContainsBytesMax + 1)), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCacheErase, payload(0)), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCacheErase, payload(16u << 20)), StatusCode::kOk);
  EXPECT_EQ(code(Command::kCacheErase, payload((16u << 20) + 1)), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCacheGet, payload(UINT32_MAX)), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCacheImport, payload(kCachePayloadBytesMax)), StatusCode::kOk);
  EXPECT_EQ(code(Command::kCacheImport, payload(kCachePayloadBytesMax + 1)), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCacheCommit, [](CacheCallBody* body) { body->token = 0; }), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCachePage, [](CacheCallBody* body) { body->bytes_max = 0; }), StatusCode::kBadOption);
  EXPECT_EQ(code(Command::kCachePage, [](CacheCallBody* body) { body->bytes_max = kCachePageBytesMax + 1; }),
            StatusCode::kBadOption);
  const auto identity = [&](const std::string& text) {
    return code(Command::kCacheDropIdentity, [&](CacheCallBody* body) {
      std::memset(body->identity, 0, sizeof(body->identity));
      text.copy(body->identity, sizeof(body->identity));
    });
  };
  EXPECT_EQ(identity(std::string(16, '0')), StatusCode::kOk);
  for (const char* text : {"", "../../etc/passwd", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0"}) {
    EXPECT_EQ(identity(text), StatusCode::kBadOption) << text;
  }
  EXPECT_EQ(identity(std::string(72, 'a')), StatusCode::kBadOption);
}

TEST(ControlFrame, APieceOfAPayloadIsAnyBytesButSome) {
  const std::string message = Request(ControlCommand::kCachePayload, "any\n");
  EXPECT_EQ(ParseRequest(Bytes(message)).value().piece, "any\n");
  EXPECT_EQ(CodeOf(Request(ControlCommand::kCachePayload)), StatusCode::kProtocolViolation);
}

TEST(ControlFrame, ARefusalOfAPieceAnswersItsCommand) {
  const ControlCall piece = {.request_id = 5, .command = static_cast<uint32_t>(ControlCommand::kCachePayload)};
  const std::string answer = MakeControlMessage(piece, "why", StatusCode::kOverloaded);
  const auto parsed = [&answer](ControlCommand command) {
    return ParseAnswer(Bytes(answer), {.request_id = 5, .command = static_cast<uint32_t>(command)}).ok();
  };
  EXPECT_TRUE(parsed(ControlCommand::kCacheErase));
  EXPECT_FALSE(parsed(ControlCommand::kStatus));
}

TEST(ControlFrame, AnAnswerMustBelongToTheCall) {
  const ControlCall call = {.request_id = 5, .command = 1};
  const std::string answer = MakeControlMessage(call, "why", StatusCode::kOverloaded, 40);
  const Result<ControlAnswer> parsed = ParseAnswer(Bytes(answer), call);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().code, StatusCode::kOverloaded);
  EXPECT_EQ(parsed.value().retry_after_ms, 40U);
  EXPECT_EQ(parsed.value().body, "why");
  EXPECT_FALSE(ParseAnswer(Bytes(answer), {.request_id = 6, .command = 1}).ok());
  EXPECT_FALSE(ParseAnswer(Bytes(answer), {.request_id = 5, .command = 2}).ok());
  EXPECT_FALSE(ParseAnswer(Bytes(answer + "x"), call).ok());
  EXPECT_FALSE(ParseAnswer(Bytes(With(answer, offsetof(ControlHeader, status), 19u)), call).ok());
  EXPECT_FALSE(ParseAnswer({}, call).ok());
}

TEST(ControlFrame, ARefusalOfTheAttachIsAnAnswer) {
  WelcomeMessage welcome = {};
  welcome.magic = kHandshakeMagic;
  welcome.status = static_cast<uint32_t>(StatusCode::kShuttingDown);
  std::strcpy(welcome.message, "the engine leaves");
  const std::string bytes(BytesOf(welcome));
  const Result<ControlAnswer> parsed = ParseAnswer(Bytes(bytes), {.request_id = 1, .command = 1});
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value().code, StatusCode::kShuttingDown);
  EXPECT_EQ(parsed.value().body, "the engine leaves");
  EXPECT_FALSE(ParseAnswer(Bytes(With(bytes, offsetof(WelcomeMessage, status), 0u)), {}).ok()) << "a served client";
  EXPECT_FALSE(ParseAnswer(Bytes(bytes.substr(1)), {}).ok());
}

}  // namespace
}  // namespace sutra
