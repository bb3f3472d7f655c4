// One question per session. nlohmann's exceptions stay inside: a field is read only if it has its type.
#include "engine/control/control_client.h"

#include <poll.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "engine/control/control_link.h"
#include "shm/base/enum_names.h"
#include "shm/base/printable.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kAgainMsMax = 100;  // a place may be free earlier than the engine can promise
constexpr uint64_t kLookEveryMs = 2;
constexpr uint64_t kLookMsMax = 1000;  // one question of many, to an engine that may be about to end

void Pause(uint64_t ms) { static_cast<void>(poll(nullptr, 0, static_cast<int>(ms))); }

Result<std::string> Ask(const std::string& path, ControlCommand command, std::string_view body, uint64_t deadline_ns) {
  for (;;) {
    Result<ControlLink> link = ControlLink::Connect(path, deadline_ns);
    if (!link.ok()) return link.status();
    Result<ControlAnswer> answer = link->Ask(command, body, deadline_ns);
    if (!answer.ok()) return answer.status();
    if (answer->code == StatusCode::kOk) return std::move(answer->body);
    const bool again = answer->code == StatusCode::kOverloaded && answer->retry_after_ms > 0;
    const uint64_t wait_ms = std::min<uint64_t>(answer->retry_after_ms, kAgainMsMax);
    if (!again || MonotonicNs() + wait_ms * kNsPerMs >= deadline_ns) {
      return Status(answer->code, path + ": " + Printable(answer->body, HighBytes::kKeep));
    }
    Pause(wait_ms);
  }
}

Status NoStatus(const std::string& what) {
  return Status(StatusCode::kProtocolViolation, "the engine's status is " + what + ": is it of another version?");
}

std::string TextField(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) return {};
  return Printable(found->get_ref<const std::string&>(), HighBytes::kKeep);
}

uint64_t NumberField(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || !found->is_number_unsigned() ? 0 : found->get<uint64_t>();
}

std::string Hex(uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, number);
  return text;
}

}  // namespace

Result<EngineStatus> ParseEngineStatus(const std::string& json) {
  const nlohmann::json object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) return NoStatus("no JSON object");
  EngineStatus status;
  status.pid = NumberField(object, "pid");
  status.engine_generation = TextField(object, "engine_generation");
  if (status.pid == 0 || status.engine_generation.empty()) return NoStatus("without pid and engine_generation");
  status.version = TextField(object, "version");
  status.socket = TextField(object, "socket");
  status.state = TextField(object, "state");
  status.model = TextField(object, "model");
  status.identity = TextField(object, "identity");
  status.precision = TextField(object, "precision");
  status.device = TextField(object, "device");
  status.log_level = TextField(object, "log_level");
  status.width = NumberField(object, "width");
  status.uptime_ms = NumberField(object, "uptime_ms");
  status.lanes = NumberField(object, "lanes");
  status.clients = NumberField(object, "clients");
  if (const auto standbys = object.find("standbys"); standbys != object.end() && standbys->is_array()) {
    for (const nlohmann::json& standby : *standbys) {
      if (!standby.is_object()) return NoStatus("without a valid list of standbys");
      status.standbys.push_back({.pid = NumberField(standby, "pid"),
                                 .state = TextField(standby, "state"),
                                 .waits_ms = NumberField(standby, "waits_ms")});
    }
  }
  status.json = json;
  return status;
}

std::string EngineStatusText(const EngineStatus& status) {
  const auto seconds = [](uint64_t ms) { return std::to_string(ms / 1000) + " s"; };
  std::string text = "engine    " + status.state + ", pid " + std::to_string(status.pid) + ", up " +
                     seconds(status.uptime_ms) + ", version " + status.version + ", generation " +
                     status.engine_generation + "\n";
  text += "model     " + status.model + ", " + std::to_string(status.width) + " floats, " + status.precision + " on " +
          status.device + ", identity " + status.identity + "\n";
  text += "socket    " + status.socket + "   lanes " + std::to_string(status.lanes) + ", clients " +
          std::to_string(status.clients) + ", log level " + status.log_level + "\n";
  if (status.standbys.empty()) text += "standbys  none\n";
  for (const EngineStatus::Standby& standby : status.standbys) {
    text += "standby   pid " + std::to_string(standby.pid) + ", " + standby.state + ", waits for " +
            seconds(standby.waits_ms) + "\n";
  }
  return text;
}

Result<EngineStatus> AskStatus(const std::string& socket_path, uint64_t deadline_ns) {
  Result<std::string> json = Ask(socket_path, ControlCommand::kStatus, {}, deadline_ns);
  if (!json.ok()) return json.status();
  return ParseEngineStatus(json.value());
}

Result<HandOverBody> AskHandOver(const std::string& socket_path, uint64_t deadline_ns) {
  Result<std::string> answer = Ask(socket_path, ControlCommand::kHandOver, {}, deadline_ns);
  if (!answer.ok()) return answer.status();
  HandOverBody body = {};
  if (!BodyFrom(answer.value(), &body)) return Status(StatusCode::kProtocolViolation, "a confirmation of another size");
  return body;
}

Result<EngineStatus> WaitForNextEngine(const std::string& socket_path, const HandOverBody& before,
                                       uint64_t deadline_ns) {
  const std::string generation = Hex(before.engine_generation);
  std::string last = "it is still draining";
  while (MonotonicNs() < deadline_ns) {
    const uint64_t look_ns = std::min(deadline_ns, MonotonicNs() + kLookMsMax * kNsPerMs);
    Result<EngineStatus> now = AskStatus(socket_path, look_ns);
    if (now.ok() && now->engine_generation != generation) return now;
    if (!now.ok()) last = now.status().message();
    Pause(kLookEveryMs);
  }
  return Status(StatusCode::kDeadlineExceeded, "pid " + std::to_string(before.engine_pid) +
                                                   " has confirmed the hand-over, but no other engine answers at " +
                                                   socket_path + " yet: look at the log of the standby, pid " +
                                                   std::to_string(before.standby_pid) + " (last: " + last + ")");
}

Result<LogVerbosity> AskLogLevel(const std::string& socket_path, LogVerbosity verbosity, uint64_t deadline_ns) {
  const LogLevelBody body = {.verbosity = static_cast<uint32_t>(verbosity), .reserved = 0};
  Result<std::string> answer = Ask(socket_path, ControlCommand::kSetLogLevel, BytesOf(body), deadline_ns);
  if (!answer.ok()) return answer.status();
  LogLevelBody before = {};
  const bool known = BodyFrom(answer.value(), &before) && before.verbosity < std::size(kLogVerbosityNames);
  if (!known) return Status(StatusCode::kProtocolViolation, "an answer without a log level");
  return static_cast<LogVerbosity>(before.verbosity);
}

}  // namespace sutra
