// What signals do to the engine. SIGTERM and SIGINT, through a signalfd: the first one starts the drain, the second
// ends the process at once, whatever it is doing (the next start recovers). SIGHUP, SIGUSR1 and SIGUSR2 are ignored
// with a line each: a reload, a rotation of logs or a closed terminal must not end an engine. SIGPIPE and SIGXFSZ are
// ignored: the write that caused them fails, and says so.
//
// Thread rule: BlockSignals and Prepare run before any thread is started, so that every thread inherits the blocked
// signals; the rest belongs to the loop thread, and while the model loads to the LoadWatch.
#pragma once

#include <cstdint>

#include "shm/base/log_line.h"
#include "shm/base/status.h"
#include "shm/lane_memory.h"

namespace sutra {

class Shutdown {
 public:
  // Blocks or ignores all of these. First of all in main: the first line of a log that is full, or that nobody reads
  // any more, must not end the start.
  static Status BlockSignals();
  // The same, and creates the signalfd. `log` gets the lines about signals.
  static Result<Shutdown> Prepare(LogLine log = {});

  int fd() const { return signal_fd_.get(); }

  // The signalfd is readable: takes the pending signals. True for the first one that stops; for the second it does not
  // return.
  bool OnSignal();

  // From here on the next signal ends the process without asking the loop.
  void LeaveOnNextSignal();

  int signal_number() const { return signal_number_; }

 private:
  UniqueFd signal_fd_;
  LogLine log_;
  int signal_number_ = 0;  // of the first signal that stops
};

}  // namespace sutra
