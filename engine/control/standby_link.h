// The standby's side of its registration with the running engine: one connection for as long as it waits. Its hang-up
// tells each of them that the other one is gone.
//
// Thread rule: one thread. Invariant: the engine sends nothing after the registration, so `fd` is readable (or hung up)
// only when that engine has ended or has closed the connection.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "engine/control/control_frame.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class StandbyLink {
 public:
  // Registers with the engine that listens at `socket_path`, until `deadline_ns` (CLOCK_MONOTONIC). Blocks.
  //   kRefused           it serves something else (the message has both), or this user may not control it
  //   kEngineGone        nobody listens there, or that engine is leaving, or it is of a version without standbys
  //   kDeadlineExceeded  somebody listens, and does not answer: stopped, swapped out or overloaded
  //   kOverloaded        it has as many standbys as it takes
  static Result<StandbyLink> Register(const std::string& socket_path, const StandbyHello& hello, uint64_t deadline_ns);

  int fd() const { return socket_.get(); }
  // Tells the engine this standby's state. Never blocks. kEngineGone: it hung up; kFull: it reads nothing.
  Status Update(StandbyState state);

 private:
  explicit StandbyLink(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  uint64_t next_request_ = 2;
};

}  // namespace sutra
