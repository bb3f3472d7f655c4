// A Unix socket whose backlog is full answers EAGAIN; it is tried again until the deadline.
#include "engine/control/control_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "shm/base/numbers.h"
#include "shm/base/time.h"
#include "shm/handshake.h"

namespace sutra {
namespace {

constexpr int kConnectAgainMs = 10;

Status ConnectStatus(const std::string& path, int error) {
  const std::string cause = "connecting to " + path + ": " + std::strerror(error);
  switch (error) {
    case ENOENT: return Status(StatusCode::kEngineGone, cause + "; no engine is there: is that its --socket?", error);
    case ECONNREFUSED:
      return Status(StatusCode::kEngineGone, cause + "; no engine listens there any more: start one", error);
    case EACCES:
    case EPERM:
      return Status(StatusCode::kRefused,
                    cause +
                        "; this user may not write to the socket: run as the engine's user or as root, or start "
                        "the engine with --socket-mode 0666 and --control-gid",
                    error);
    case EPROTOTYPE:
      return Status(StatusCode::kProtocolViolation, cause + "; another program's socket is there", error);
    default: return Status(StatusCode::kEngineGone, cause, error);
  }
}

// Until `events` or an end is reported; false at the deadline.
bool WaitFor(int socket, short events, uint64_t deadline_ns) {
  for (;;) {
    const uint64_t now_ns = MonotonicNs();
    const uint64_t left_ms = DivideRoundUp(deadline_ns > now_ns ? deadline_ns - now_ns : 0, kNsPerMs);
    pollfd item = {socket, events, 0};
    const int ready = poll(&item, 1, static_cast<int>(std::min<uint64_t>(left_ms, 60'000)));
    if (ready > 0) return true;
    if (ready == 0 && left_ms <= 60'000) return false;
  }
}

// One message; as recv with MSG_TRUNC. There is room for one descriptor, if one is wanted: the kernel closes the rest.
ssize_t Receive(int socket, std::span<char> buffer, UniqueFd* payload) {
  iovec part = {buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (payload != nullptr) {
    message.msg_control = control;
    // Exactly one: rounded up to CMSG_SPACE, a second one would fit.
    message.msg_controllen = CMSG_LEN(sizeof(int));
  }
  const ssize_t count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
  if (count < 0 || payload == nullptr) return count;
  payload->reset();
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return count;
  payload->reset(*static_cast<const int*>(static_cast<const void*>(CMSG_DATA(header))));
  return count;
}

}  // namespace

Result<ControlLink> ControlLink::Connect(const std::string& socket_path, uint64_t deadline_ns) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof(address.sun_path)) {
    return ConnectStatus(socket_path, socket_path.empty() ? ENOENT : ENAMETOOLONG);
  }
  socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::FromErrno(StatusCode::kOutOfMemory, "creating a socket", errno);
  const void* const generic = &address;
  while (connect(fd.get(), static_cast<const sockaddr*>(generic), sizeof(address)) != 0) {
    const int error = errno;
    if (error != EAGAIN && error != EINTR) return ConnectStatus(socket_path, error);
    if (MonotonicNs() >= deadline_ns) return ControlLink(socket_path, UniqueFd()).Silent();
    static_cast<void>(poll(nullptr, 0, kConnectAgainMs));
  }
  return ControlLink(socket_path, std::move(fd));
}

Status ControlLink::Silent() const {
  return Status(StatusCode::kDeadlineExceeded, "the engine at " + path_ +
                                                   " does not answer: it is stopped (SIGSTOP), swapped out or "
                                                   "overloaded; sutra-stat shows its heartbeat");
}

Status ControlLink::HungUp() const {
  return Status(StatusCode::kEngineGone, "the engine at " + path_ +
                                             " hung up without an answer: it has just ended, or it is of a version "
                                             "without control sessions (sutra-stat shows which; start a newer one)");
}

Result<ControlAnswer> ControlLink::Ask(ControlCommand command, std::string_view body, uint64_t deadline_ns) {
  if (Status status = Tell(command, body, deadline_ns); !status.ok()) return status;
  Result<ControlAnswer> answer = Hear(command, deadline_ns);
  ++request_;
  return answer;
}

Status ControlLink::Tell(ControlCommand command, std::string_view body, uint64_t deadline_ns) {
  const ControlCall call = {.request_id = request_, .command = static_cast<uint32_t>(command)};
  const std::string message = MakeControlMessage(call, body);
  switch (SendMessage(socket_.get(), message.data(), message.size(), nullptr, 0, deadline_ns)) {
    case MessageOutcome::kOk:
    case MessageOutcome::kClosed: return {};
    case MessageOutcome::kTimeout: return Silent();
    default: return Status::FromErrno(StatusCode::kEngineGone, "asking the engine at " + path_, errno);
  }
}

Result<ControlAnswer> ControlLink::Hear(ControlCommand command, uint64_t deadline_ns, UniqueFd* payload) {
  const ControlCall call = {.request_id = request_, .command = static_cast<uint32_t>(command)};
  std::vector<char> buffer(kControlMessageBytesMax + 1);
  bool reset = false;  // it closed with something unread; its last words come after this error
  for (;;) {
    const ssize_t count = Receive(socket_.get(), buffer, payload);
    if (count == 0) return HungUp();
    if (count > 0) {
      const size_t bytes = std::min(static_cast<size_t>(count), buffer.size());
      Result<ControlAnswer> answer = ParseAnswer({buffer.data(), bytes}, call);
      if (!answer.ok()) return Status(answer.code(), path_ + ": " + answer.status().message());
      return answer;
    }
    if (errno == ECONNRESET) {
      if (std::exchange(reset, true)) return HungUp();
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) {
      return Status::FromErrno(StatusCode::kEngineGone, "reading the answer of the engine at " + path_, errno);
    }
    if (!WaitFor(socket_.get(), POLLIN, deadline_ns)) return Silent();
  }
}

}  // namespace sutra
