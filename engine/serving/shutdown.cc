// Signals are blocked in all threads and read from a signalfd, so that no handler interrupts anything.
#include "engine/serving/shutdown.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace sutra {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

Result<Shutdown> Shutdown::Prepare() {
  // A client that closed its event pipe must not kill the engine.
  signal(SIGPIPE, SIG_IGN);
  const sigset_t set = StopSignals();
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) {
    return Status::FromErrno(StatusCode::kStorageError, "blocking SIGTERM", errno);
  }
  Shutdown shutdown;
  shutdown.signal_fd_ = UniqueFd(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!shutdown.signal_fd_) return Status::FromErrno(StatusCode::kStorageError, "creating a signalfd", errno);
  return shutdown;
}

bool Shutdown::OnSignal() {
  bool first = false;
  signalfd_siginfo info;
  while (read(signal_fd_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (signal_number_ != 0) _exit(128 + static_cast<int>(info.ssi_signo));
    signal_number_ = static_cast<int>(info.ssi_signo);
    first = true;
  }
  return first;
}

void Shutdown::LeaveOnNextSignal() {
  const sigset_t set = StopSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace sutra
