// An operator's commands to a live engine, for sutra-engine itself and for tools: each opens a control session, asks,
// and closes it. A session that another operator holds is waited for until the deadline.
//
// Thread rule: any thread; no state. Deadlines are on CLOCK_MONOTONIC. Errors beside those of control_link.h:
//   kRefused       this user may not control the engine, or it refuses the command: the message says why, and the fix
//   kShuttingDown  it is leaving
//   kOverloaded    other sessions held the place until the deadline
//   kBadOption     the engine is of another version and does not know the command
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/control/control_frame.h"
#include "shm/base/status.h"

namespace sutra {

struct EngineStatus {
  struct Standby {
    uint64_t pid = 0;
    std::string state;
    uint64_t waits_ms = 0;
  };
  uint64_t pid = 0;
  std::string engine_generation;  // 16 hex digits; another engine has another one
  std::string version, socket, state, model, identity, precision, device, log_level;
  uint64_t width = 0, uptime_ms = 0, lanes = 0, clients = 0;
  std::vector<Standby> standbys;
  std::string json;  // as the engine sent it
};
// kProtocolViolation: `json` is no status. Fields that are not known are left alone; missing ones are empty.
Result<EngineStatus> ParseEngineStatus(const std::string& json);
// For people; the last line ends with a newline.
std::string EngineStatusText(const EngineStatus& status);

Result<EngineStatus> AskStatus(const std::string& socket_path, uint64_t deadline_ns);
// Begins a hand-over. RETURNS when the engine has confirmed it; it drains from then on.
Result<HandOverBody> AskHandOver(const std::string& socket_path, uint64_t deadline_ns);
// RETURNS when another engine than `before` answers at the socket. kDeadlineExceeded: none did.
Result<EngineStatus> WaitForNextEngine(const std::string& socket_path, const HandOverBody& before,
                                       uint64_t deadline_ns);
// RETURNS the level that it had.
Result<LogVerbosity> AskLogLevel(const std::string& socket_path, LogVerbosity verbosity, uint64_t deadline_ns);

}  // namespace sutra
