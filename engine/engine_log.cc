// spdlog's levels and ours.
#include "engine/engine_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "shm/base/enum_names.h"

namespace sutra {
namespace {

constexpr std::pair<LogVerbosity, spdlog::level::level_enum> kVerbosities[] = {
    {LogVerbosity::kTrace, spdlog::level::trace},
    {LogVerbosity::kDebug, spdlog::level::debug},
    {LogVerbosity::kInfo, spdlog::level::info},
    {LogVerbosity::kWarn, spdlog::level::warn},
    {LogVerbosity::kError, spdlog::level::err}};

}  // namespace

void WriteLog(LogLevel level, const std::string& line) {
  switch (level) {
    case LogLevel::kInfo: return spdlog::info("{}", line);
    case LogLevel::kWarn: return spdlog::warn("{}", line);
    case LogLevel::kError: return spdlog::error("{}", line);
  }
}

LogVerbosity LogVerbosityNow() {
  for (const auto& [verbosity, level] : kVerbosities) {
    if (level == spdlog::get_level()) return verbosity;
  }
  return LogVerbosity::kInfo;
}

void SetLogVerbosity(LogVerbosity verbosity) {
  const spdlog::level::level_enum before = spdlog::get_level();
  for (const auto& [known, level] : kVerbosities) {
    if (known != verbosity) continue;
    spdlog::set_level(std::min(before, level));
    spdlog::info("log level {}, before {}", NameOf(kLogVerbosityNames, verbosity),
                 spdlog::level::to_string_view(before));
    spdlog::set_level(level);
  }
}

}  // namespace sutra
