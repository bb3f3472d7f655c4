// Writes go to the descriptors and not through stdio: its buffers report a full disk at exit, when nobody looks.
#include "tools/lib/program.h"

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <sstream>

#include "shm/base/standard_descriptors.h"

namespace sutra {

namespace {

volatile std::sig_atomic_t interrupted_by = 0;

// 0, or the errno of the write that failed.
int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace

void StartProgram() {
  if (!OpenStandardDescriptors()) _exit(127);  // no /dev/null: nothing can be said either
  std::signal(SIGXFSZ, SIG_IGN);  // a write past `ulimit -f` is then an error with a message
}

Status Print(std::string_view text) {
  const int error = WriteAll(STDOUT_FILENO, text);
  return error == 0 ? Status() : Status::FromErrno(StatusCode::kStorageError, "writing standard output", error);
}

void SayAsIs(std::string_view text) { (void)WriteAll(STDERR_FILENO, text); }

void Say(std::string_view program, std::string_view message) {
  SayAsIs(std::string(program) + ": " + std::string(message) + "\n");
}

int Fail(std::string_view program, int code, std::string_view message) {
  Say(program, message);
  return code;
}

std::optional<int> ParseArguments(CLI::App* app, int argc, char** argv, int usage_code, int output_code) {
  try {
    app->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, errors;
    const bool asked = app->exit(error, out, errors) == 0;  // --help
    SayAsIs(errors.str());
    if (!asked) return usage_code;
    const Status status = Print(out.str());
    return status.ok() ? 0 : Fail(app->get_name(), output_code, status.message());
  }
}

void CatchInterruptions() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { interrupted_by = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // and without SA_RESTART: a blocked read or write returns
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int InterruptedBy() { return interrupted_by; }

}  // namespace sutra
