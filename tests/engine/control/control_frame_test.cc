// Messages byte by byte: what is a request, what is an answer, and what is neither.
#include "engine/control/control_frame.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>

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
  for (const uint32_t command : {0u, 6u, UINT32_MAX}) {
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
