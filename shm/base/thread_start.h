// How a start says that the system gives it no thread, and how a thread says that it is not in a hurry. Header-only;
// stateless.
#pragma once

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <system_error>

#include "shm/base/status.h"

namespace sutra {

// Runs `start`, which starts the thread called `name`. kOutOfMemory: there is none; names the limits to raise.
template <typename Start>
Status StartThread(const char* name, const Start& start) {
  try {
    start();
    return {};
  } catch (const std::system_error& error) {
    return Status(StatusCode::kOutOfMemory,
                  std::string("cannot start the thread of ") + name + ": " + error.what() +
                      "; raise the limits on processes and memory (ulimit -u, ulimit -v, pids.max of the container)",
                  error.code().value());
  }
}

// The calling thread runs, and uses the disk, when no other wants to; where it is not allowed, it works as any other.
inline void YieldToOtherThreads() {
  constexpr int kProcess = 1, kIdleClass = 3 << 13;  // linux/ioprio.h, which older systems lack
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  static_cast<void>(setpriority(PRIO_PROCESS, thread, 19));
  static_cast<void>(syscall(SYS_ioprio_set, kProcess, thread, kIdleClass));
}

}  // namespace sutra
