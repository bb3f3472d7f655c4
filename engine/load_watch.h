// Lets SIGTERM and SIGINT end a start while the model loads: preparing int8 takes seconds, of a large model minutes,
// and nothing is at risk before the engine serves. Thread rule: while one lives, the Shutdown belongs to its thread,
// before and after that to whoever made it.
#pragma once

#include <functional>
#include <thread>

#include "engine/serving/shutdown.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class LoadWatch {
 public:
  // At the first signal that stops, `leave` is called on the watch's thread; it should end the process. Where no thread
  // can be had, a signal waits until the model is loaded.
  LoadWatch(Shutdown* shutdown, std::function<void()> leave);
  // From here on signals wait for the Shutdown's next reader.
  ~LoadWatch();
  LoadWatch(const LoadWatch&) = delete;
  LoadWatch& operator=(const LoadWatch&) = delete;

 private:
  void Run();

  Shutdown* const shutdown_;
  const std::function<void()> leave_;
  const UniqueFd loaded_;  // an eventfd
  std::thread thread_;
};

}  // namespace sutra
