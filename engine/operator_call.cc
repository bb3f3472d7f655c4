// Each call is a question of control/control_client.h, its result as text, and its error as an exit code.
#include "engine/operator_call.h"

#include <nlohmann/json.hpp>

#include "engine/control/control_client.h"
#include "shm/base/enum_names.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

uint64_t InSeconds(uint64_t seconds) { return MonotonicNs() + seconds * kNsPerSecond; }

OperatorResult Failed(const Status& status) {
  OperatorResult result{.exit_code = kExitRefused, .text = status.message() + "\n"};
  if (status.code() == StatusCode::kEngineGone) result.exit_code = kExitNoEngine;
  if (status.code() == StatusCode::kDeadlineExceeded) result.exit_code = kExitNoAnswer;
  return result;
}

OperatorResult ShowStatus(const OperatorCall& call) {
  const Result<EngineStatus> status = AskStatus(call.socket, InSeconds(kAnswerS));
  if (!status.ok()) return Failed(status.status());
  return {.text = call.json ? status.value().json + "\n" : EngineStatusText(status.value())};
}

OperatorResult HandOver(const OperatorCall& call) {
  const uint64_t start_ns = MonotonicNs();
  const Result<HandOverBody> confirmed = AskHandOver(call.socket, InSeconds(kAnswerS));
  if (!confirmed.ok()) return Failed(confirmed.status());
  const Result<EngineStatus> next = WaitForNextEngine(call.socket, confirmed.value(), InSeconds(call.wait_s));
  if (!next.ok()) return Failed(next.status());
  const uint64_t took_ms = (MonotonicNs() - start_ns) / kNsPerMs;
  const uint32_t from = confirmed.value().engine_pid;
  if (call.json) {
    const nlohmann::json json = {{"from_pid", from}, {"to_pid", next.value().pid}, {"took_ms", took_ms}};
    return {.text = json.dump() + "\n"};
  }
  return {.text = "pid " + std::to_string(from) + " handed over to pid " + std::to_string(next.value().pid) + " in " +
                  std::to_string(took_ms) + " ms\n"};
}

OperatorResult SetLogLevel(const OperatorCall& call) {
  const Result<LogVerbosity> before = AskLogLevel(call.socket, call.verbosity, InSeconds(kAnswerS));
  if (!before.ok()) return Failed(before.status());
  const char* const now = NameOf(kLogVerbosityNames, call.verbosity);
  const char* const was = NameOf(kLogVerbosityNames, before.value());
  if (call.json) return {.text = nlohmann::json{{"log_level", now}, {"before", was}}.dump() + "\n"};
  return {.text = std::string("log level ") + now + ", before " + was + "\n"};
}

}  // namespace

OperatorResult RunOperatorCall(const OperatorCall& call) {
  switch (call.kind) {
    case OperatorCall::Kind::kHandOver: return HandOver(call);
    case OperatorCall::Kind::kSetLogLevel: return SetLogLevel(call);
    case OperatorCall::Kind::kStatus: break;
  }
  return ShowStatus(call);
}

}  // namespace sutra
