// The log of the process: spdlog behind the types that parts of the engine know. Thread rule: any thread.
#pragma once

#include <string>

#include "shm/base/log_line.h"
#include "shm/control_messages.h"

namespace sutra {

void WriteLog(LogLevel level, const std::string& line);

LogVerbosity LogVerbosityNow();
// Tells what it was before; the line about it is shown whichever of the two levels shows it.
void SetLogVerbosity(LogVerbosity verbosity);

}  // namespace sutra
