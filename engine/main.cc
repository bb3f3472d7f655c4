// sutra-engine: one process that serves one model at one Unix socket. Main follows the design: parse the configuration,
// lock, load the model, open the cache, serve, drain, stop. A standby loads first and locks when its turn comes.
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/exit_code.h"
#include "engine/serving/shutdown.h"
#include "shm/base/printable.h"
#include "shm/base/standard_descriptors.h"

namespace sutra {
namespace {

// The message of a line without control characters: a path with a newline in it would otherwise begin a line that is
// neither of the log nor of the file for --config, and could pass for one of either.
class PrintableMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& line) override {
    const std::string text = Printable({message.payload.data(), message.payload.size()}, HighBytes::kKeep);
    line.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::custom_flag_formatter> clone() const override { return std::make_unique<PrintableMessage>(); }
};

void SetUpLog(const EngineConfig& config) {
  auto logger = spdlog::stderr_logger_mt("sutra-engine");
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<PrintableMessage>('v').set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v");
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(config.log_level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

// The options as a file for --config, between lines that are comments to it. Not through the log, whose every line
// begins with a time.
void PrintOptions(const ParsedConfig& parsed) {
  if (!spdlog::should_log(spdlog::level::info)) return;
  std::string text = std::string("# the options of sutra-engine ") + kEngineVersion + ", as a file for --config:\n";
  for (const std::string& line : parsed.lines) text += line + "\n";
  text += "# end of the options\n";
  std::fputs(text.c_str(), stderr);
}

// Reports a failed start; the message names object, cause and fix.
ExitCode CannotStart(const Status& status, ExitCode code = kExitCannotStart) {
  spdlog::error("cannot start: {}", status.message());
  return code;
}

// To standard output: what was asked for instead of a start.
ExitCode Print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return kExitClean;
  std::fprintf(stderr, "sutra-engine: writing standard output: %s\n", std::strerror(errno));
  return kExitCannotStart;
}

// How a standby ends that never serves.
ExitCode NoTurn(const Status& status) {
  if (status.code() != StatusCode::kCancelled) {
    return CannotStart(status, status.code() == StatusCode::kRefused ? kExitOtherModel : kExitCannotStart);
  }
  spdlog::info("standby: {}", status.message());
  return kExitClean;
}

ExitCode RunEngine(const EngineConfig& config) {
  Engine engine(config);
  if (Status status = engine.PrepareProcess(); !status.ok()) return CannotStart(status);
  if (!config.standby) {
    if (Status status = engine.Lock(); !status.ok()) {
      return CannotStart(status, status.code() == StatusCode::kRefused ? kExitLocked : kExitCannotStart);
    }
  }
  if (Status status = engine.LoadModel(); !status.ok()) return CannotStart(status);
  if (config.standby) {
    if (Status status = engine.LockInTurn(); !status.ok()) return NoTurn(status);
  }
  if (Status status = engine.Reserve(); !status.ok()) return CannotStart(status);
  if (Status status = engine.OpenCache(); !status.ok()) return CannotStart(status);
  if (Status status = engine.Show(); !status.ok()) return CannotStart(status);
  const EngineLoop::End end = engine.Serve();  // returns after a signal, when the drain is over
  const ExitCode code = engine.Stop(end);
  spdlog::info("stopped, exit code {}", static_cast<int>(code));
  return code;
}

}  // namespace
}  // namespace sutra

int main(int argc, char** argv) {
  if (!sutra::OpenStandardDescriptors()) return sutra::kExitCannotStart;  // and nowhere to say why
  if (!sutra::Shutdown::BlockSignals().ok()) return sutra::kExitCannotStart;
  const sutra::Result<sutra::ParsedConfig> parsed = sutra::ParseConfig({argv + 1, argv + argc});
  if (!parsed.ok()) {
    std::fprintf(stderr, "sutra-engine: %s\nRun sutra-engine --help for the options.\n",
                 parsed.status().message().c_str());
    return sutra::kExitUsage;
  }
  if (parsed.value().operator_call.has_value()) {
    const sutra::OperatorResult result = sutra::RunOperatorCall(*parsed.value().operator_call);
    if (result.exit_code == sutra::kExitClean) return sutra::Print(result.text);
    std::fprintf(stderr, "sutra-engine: %s", result.text.c_str());
    return result.exit_code;
  }
  if (!parsed.value().run) return sutra::Print(parsed.value().text);
  sutra::SetUpLog(parsed.value().config);
  spdlog::info("sutra-engine {}, pid {}", sutra::kEngineVersion, getpid());
  sutra::PrintOptions(parsed.value());
  try {
    return sutra::RunEngine(parsed.value().config);
  } catch (const std::exception& error) {  // std::bad_alloc: everything else is returned as a Status
    spdlog::critical("fatal: {}", error.what());
    return sutra::kExitCannotStart;
  }
}
