// A registration is the first question on a connection; updates are not answered.
#include "engine/control/standby_link.h"

#include <cassert>

#include "engine/control/control_link.h"
#include "shm/handshake.h"

namespace sutra {

Result<StandbyLink> StandbyLink::Register(const std::string& socket_path, const StandbyHello& hello,
                                          uint64_t deadline_ns) {
  Result<ControlLink> link = ControlLink::Connect(socket_path, deadline_ns);
  if (!link.ok()) return link.status();
  const StandbyBody body = ToBody(hello);
  const Result<ControlAnswer> answer = link->Ask(ControlCommand::kRegisterStandby, BytesOf(body), deadline_ns);
  if (!answer.ok()) return answer.status();
  if (answer.value().code == StatusCode::kShuttingDown) {
    return Status(StatusCode::kEngineGone, "the engine at " + socket_path + " is leaving: " + answer.value().body);
  }
  if (answer.value().code != StatusCode::kOk) return Status(answer.value().code, answer.value().body);
  StandbyLink made(link->TakeSocket());
  assert(made.fd() >= 0);
  return made;
}

Status StandbyLink::Update(StandbyState state) {
  const StandbyStateBody body = {.state = static_cast<uint32_t>(state), .reserved = 0};
  const ControlCall call = {.request_id = next_request_++,
                            .command = static_cast<uint32_t>(ControlCommand::kUpdateStandby)};
  const std::string message = MakeControlMessage(call, BytesOf(body));
  switch (SendMessage(socket_.get(), message.data(), message.size(), nullptr, 0, 0)) {
    case MessageOutcome::kOk: return {};
    case MessageOutcome::kTimeout:
      return Status(StatusCode::kFull, "the running engine reads nothing: it is stopped, or overloaded");
    default: return Status(StatusCode::kEngineGone, "the running engine has ended");
  }
}

}  // namespace sutra
