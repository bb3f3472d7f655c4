// How the engine learns that it must stop: SIGTERM and SIGINT through a signalfd. The first signal starts the drain;
// the second ends the process at once, whatever it is doing (the next start recovers).
//
// Thread rule: Prepare runs before any thread is started, so that every thread inherits the blocked signals; the rest
// belongs to the loop thread.
#pragma once

#include <cstdint>

#include "shm/base/status.h"
#include "shm/lane_memory.h"

namespace sutra {

class Shutdown {
 public:
  // Blocks the signals, ignores SIGPIPE, creates the signalfd.
  static Result<Shutdown> Prepare();

  int fd() const { return signal_fd_.get(); }

  // The signalfd is readable: takes the pending signals. True for the first signal; for the second it does not return.
  bool OnSignal();

  // From here on the next signal ends the process without asking the loop.
  void LeaveOnNextSignal();

  int signal_number() const { return signal_number_; }

 private:
  UniqueFd signal_fd_;
  int signal_number_ = 0;  // of the first signal
};

}  // namespace sutra
