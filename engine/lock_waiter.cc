// A blocking fcntl ends when its lock is granted, or when a signal interrupts it.
#include "engine/lock_waiter.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>

#include "shm/base/thread_start.h"

namespace sutra {
namespace {

constexpr int kInterrupt = SIGURG;  // ignored by default, and by everybody else

Status InstallInterrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART: the call that it interrupts ends
  if (sigaction(kInterrupt, &action, nullptr) == 0) return {};
  return Status::FromErrno(StatusCode::kStorageError, "installing a signal handler", errno);
}

bool Readable(int fd, int timeout_ms) {
  pollfd item = {.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&item, 1, timeout_ms) == 1;
}

}  // namespace

Status LockWaiter::Start(std::vector<std::string> paths) {
  assert(!thread_.joinable());
  if (Status status = InstallInterrupt(); !status.ok()) return status;
  done_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!done_) return Status::FromErrno(StatusCode::kOutOfMemory, "creating an eventfd", errno);
  return StartThread("the locks", [&] { thread_ = std::thread([this, names = std::move(paths)] { Run(names); }); });
}

void LockWaiter::Run(const std::vector<std::string>& paths) {
  pthread_setname_np(pthread_self(), "sutra-lock");
  for (const std::string& path : paths) {
    Result<EngineLock> lock = EngineLock::Wait(path, stop_);
    if (!lock.ok()) {
      status_ = lock.status();
      break;
    }
    locks_.push_back(std::move(lock).value());
  }
  const uint64_t one = 1;
  static_cast<void>(!write(done_.get(), &one, sizeof(one)));
}

Result<std::vector<EngineLock>> LockWaiter::Take() {
  assert(thread_.joinable() && Readable(done_.get(), 0));
  thread_.join();
  if (!status_.ok()) return status_;
  return std::move(locks_);
}

// The signal is sent again until it has met the call: one that comes before it is lost.
void LockWaiter::Stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_relaxed);  // relaxed: the signal comes after it
  do {
    pthread_kill(thread_.native_handle(), kInterrupt);
  } while (!Readable(done_.get(), 1));
  thread_.join();
  for (EngineLock& lock : locks_) lock.RemoveIfCreated();
  locks_.clear();
}

}  // namespace sutra
