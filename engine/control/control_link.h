// The asking side of a control session: one connection, one question at a time, a deadline for each step.
//
// Thread rule: one thread. Deadlines are on CLOCK_MONOTONIC. Errors name the socket, the cause and the fix:
//   kEngineGone         nothing listens there, or it hung up
//   kRefused            no permission to connect
//   kDeadlineExceeded   something listens and does not answer
//   kProtocolViolation  what answers is no engine
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "engine/control/control_frame.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class ControlLink {
 public:
  static Result<ControlLink> Connect(const std::string& socket_path, uint64_t deadline_ns);

  // One command and the answer to it, whatever its status.
  Result<ControlAnswer> Ask(ControlCommand command, std::string_view body, uint64_t deadline_ns);

  // The same in steps. Tell sends one message of the next command; an engine that has hung up is no error, since why it
  // did may lie there to be read. Hear returns the next answer to that command, and the descriptor that came with it,
  // if `payload` is not null; no other one is ever taken.
  Status Tell(ControlCommand command, std::string_view body, uint64_t deadline_ns);
  Result<ControlAnswer> Hear(ControlCommand command, uint64_t deadline_ns, UniqueFd* payload = nullptr);

  UniqueFd TakeSocket() { return std::move(socket_); }

 private:
  ControlLink(std::string path, UniqueFd socket) : path_(std::move(path)), socket_(std::move(socket)) {}
  Status Silent() const;
  Status HungUp() const;

  std::string path_;
  UniqueFd socket_;
  uint64_t request_ = 1;
};

}  // namespace sutra
