// How a start says that the system gives it no thread. Header-only; stateless.
#pragma once

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

}  // namespace sutra
