// What an operator asks of a live engine with the same program: `sutra-engine --status SOCKET`, `--hand-over SOCKET`,
// `--set-log-level LEVEL --socket SOCKET`. Nothing is started; the engine at the socket does it (control/).
//
// Thread rule: the main thread of a process that serves nothing. Blocks for at most kAnswerS, a hand-over for wait_s
// more.
#pragma once

#include <cstdint>
#include <string>

#include "engine/exit_code.h"
#include "shm/control_messages.h"

namespace sutra {

struct OperatorCall {
  enum class Kind : uint8_t { kStatus, kHandOver, kSetLogLevel };
  Kind kind = Kind::kStatus;
  std::string socket = {};
  bool json = false;
  LogVerbosity verbosity = LogVerbosity::kInfo;  // set log level
  uint32_t wait_s = 0;                           // hand-over: for the next engine's first answer
};

inline constexpr uint64_t kAnswerS = 5;  // of an engine that runs: it takes one turn of its loop

struct OperatorResult {
  ExitCode exit_code = kExitClean;
  std::string text;  // for standard output; with an error for standard error. Ends with a newline.
};
OperatorResult RunOperatorCall(const OperatorCall& call);

}  // namespace sutra
