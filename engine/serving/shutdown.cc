// Signals are blocked in all threads and read from a signalfd, so that no handler interrupts anything.
#include "engine/serving/shutdown.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <string>
#include <utility>

namespace sutra {
namespace {

constexpr int kStopSignals[] = {SIGTERM, SIGINT};
constexpr std::pair<int, const char*> kIgnoredSignals[] = {
    {SIGHUP, "SIGHUP"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}};

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kStopSignals) sigaddset(&set, number);
  return set;
}

// All that the signalfd gives.
sigset_t ReadSignals() {
  sigset_t set = StopSignals();
  for (const auto& [number, name] : kIgnoredSignals) sigaddset(&set, number);
  return set;
}

// Null: not one of them.
const char* IgnoredName(int number) {
  for (const auto& [ignored, name] : kIgnoredSignals) {
    if (ignored == number) return name;
  }
  return nullptr;
}

}  // namespace

Status Shutdown::BlockSignals() {
  // A client that closed its event pipe must not kill the engine, nor a log that meets the limit of a file's size.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  const sigset_t set = ReadSignals();
  const int error = pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return error == 0 ? Status() : Status::FromErrno(StatusCode::kStorageError, "blocking SIGTERM", error);
}

Result<Shutdown> Shutdown::Prepare(LogLine log) {
  if (Status status = BlockSignals(); !status.ok()) return status;
  const sigset_t set = ReadSignals();
  Shutdown shutdown;
  shutdown.log_ = std::move(log);
  shutdown.signal_fd_ = UniqueFd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!shutdown.signal_fd_) return Status::FromErrno(StatusCode::kStorageError, "creating a signalfd", errno);
  return shutdown;
}

bool Shutdown::OnSignal() {
  bool first = false;
  signalfd_siginfo info;
  while (read(signal_fd_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (const char* name = IgnoredName(static_cast<int>(info.ssi_signo)); name != nullptr) {
      if (log_) try {
          log_(LogLevel::kInfo, std::string(name) + " is ignored (sent by pid " + std::to_string(info.ssi_pid) +
                                    "): there is nothing to reload or reopen; SIGTERM stops the engine");
        } catch (const std::bad_alloc&) {  // a line less; a stop that came with it must not be lost
        }
      continue;
    }
    first = true;
    if (requested_ && info.ssi_pid == static_cast<uint32_t>(getpid())) continue;
    if (signal_number_ != 0) _exit(128 + static_cast<int>(info.ssi_signo));
    signal_number_ = static_cast<int>(info.ssi_signo);
  }
  return first;
}

// Through the signalfd, so that there is one way to stop. It is blocked in every thread, hence pending at once.
void Shutdown::Request() {
  if (requested_ || signal_number_ != 0) return;
  requested_ = true;
  kill(getpid(), SIGTERM);
}

void Shutdown::LeaveOnNextSignal() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace sutra
