// Writes go to the descriptors and not through stdio: its buffers report a full disk at exit, when nobody looks.
#include "tools/lib/program.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <sstream>

#include "shm/base/standard_descriptors.h"

namespace sutra {

namespace {

volatile std::sig_atomic_t interrupted_by = 0;

constexpr int kLookAroundMs = 40;  // a blocked write looks this often for an interruption

// False: the program is interrupted, and the output takes nothing.
bool WaitWritable(int fd) {
  for (;;) {
    const bool interrupted = InterruptedBy() != 0;
    pollfd ready{fd, POLLOUT, 0};
    const int polled = poll(&ready, 1, kLookAroundMs);
    if (polled > 0 || (polled < 0 && errno != EINTR)) return true;  // if only to fail
    if (polled == 0 && interrupted) return false;
  }
}

}  // namespace

void StartProgram() {
  if (!OpenStandardDescriptors()) _exit(127);  // no /dev/null: nothing can be said either
  std::signal(SIGXFSZ, SIG_IGN);               // a write past `ulimit -f` is then an error with a message
}

// Not by making the descriptor non-blocking: that would change it for every process that shares it. A pipe that is
// ready takes PIPE_BUF bytes without blocking.
int WriteAll(int fd, std::string_view* rest) {
  struct stat info = {};
  const bool may_block = fstat(fd, &info) != 0 || !S_ISREG(info.st_mode);
  while (!rest->empty()) {
    if (may_block && !WaitWritable(fd)) return ECANCELED;
    const ssize_t written =
        write(fd, rest->data(), may_block ? std::min<size_t>(rest->size(), PIPE_BUF) : rest->size());
    if (written < 0 && (errno == EINTR || (errno == EAGAIN && may_block))) continue;
    if (written < 0) return errno;
    rest->remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

Status Print(std::string_view text) {
  const int error = WriteAll(STDOUT_FILENO, &text);
  if (error == 0) return Status();
  return Status::FromErrno(error == ECANCELED ? StatusCode::kCancelled : StatusCode::kStorageError,
                           "writing standard output", error);
}

void SayAsIs(std::string_view text) { (void)WriteAll(STDERR_FILENO, &text); }

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
