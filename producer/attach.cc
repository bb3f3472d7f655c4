#include "producer/attach.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "producer/high_fd.h"
#include "producer/no_cancel.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"
#include "shm/handshake.h"
#include "shm/peer_liveness.h"
#include "shm/sleep_wake.h"

namespace sutra::client {
namespace {

bool GoesOn(const AttachPatience& patience) { return patience.go_on == nullptr || patience.go_on(patience.context); }

// RETURNS false where it is given up.
bool Pause(uint64_t pause_ns, const AttachPatience& patience) {
  const uint64_t until_ns = MonotonicNs() + pause_ns;
  for (uint64_t now_ns = MonotonicNs(); now_ns < until_ns; now_ns = MonotonicNs()) {
    const uint64_t left_ns = until_ns - now_ns;
    const bool slice = patience.go_on != nullptr && left_ns > kLookAroundNs;
    poll(nullptr, 0, static_cast<int>(((slice ? kLookAroundNs : left_ns) + kNsPerMs - 1) / kNsPerMs));
    if (!GoesOn(patience)) return false;
  }
  return true;
}

// step(deadline_ns), which sends or receives a message, again and again until the deadline.
template <typename Step>
MessageOutcome Patiently(const AttachPatience& patience, const Step& step) {
  for (;;) {
    const uint64_t slice_ns = MonotonicNs() + kLookAroundNs;
    const bool last = patience.go_on == nullptr || slice_ns >= patience.deadline_ns;
    const MessageOutcome outcome = step(last ? patience.deadline_ns : slice_ns);
    if (last || outcome != MessageOutcome::kTimeout || !GoesOn(patience)) return outcome;
  }
}

MessageOutcome Send(int socket, const void* message, size_t bytes, const AttachPatience& patience) {
  return Patiently(patience,
                   [&](uint64_t deadline_ns) { return SendMessage(socket, message, bytes, nullptr, 0, deadline_ns); });
}

sutra_status Connect(const char* path, const AttachPatience& patience, int* connected) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t length = strlen(path);
  if (length == 0 || length >= sizeof(address.sun_path)) {
    return Fail(SUTRA_REFUSED, "socket path of %zu bytes: it must have 1 to %zu; use a shorter directory", length,
                sizeof(address.sun_path) - 1);
  }
  memcpy(address.sun_path, path, length);
  const int fd = HighFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd < 0) return Fail(SUTRA_OUT_OF_MEMORY, "opening a socket: %s; raise the limit of open files", strerror(errno));
  for (;;) {
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) break;
    const int cause = errno;
    if (cause == EINTR) continue;
    // The engine's accept queue is full.
    if (cause == EAGAIN && MonotonicNs() < patience.deadline_ns && Pause(kNsPerMs, patience)) continue;
    close(fd);
    switch (cause) {
      case EAGAIN:
        return Fail(SUTRA_DEADLINE_EXCEEDED,
                    "%s: the engine did not accept the connection in time; it is stopped or overloaded", path);
      case ENOENT:
      case ECONNREFUSED:
        return Fail(SUTRA_ENGINE_GONE, "nothing listens at %s (%s): start the engine with --socket %s", path,
                    strerror(cause), path);
      case EPROTOTYPE: return Fail(SUTRA_REFUSED, "%s is a socket of another program (not SOCK_SEQPACKET)", path);
      default:
        return Fail(SUTRA_REFUSED, "connecting to %s: %s; check the permissions of the socket and its directory", path,
                    strerror(cause));
    }
  }
  *connected = fd;
  return SUTRA_OK;
}

sutra_status FailStep(const char* path, const char* step, MessageOutcome outcome) {
  switch (outcome) {
    case MessageOutcome::kTimeout:
      return Fail(SUTRA_DEADLINE_EXCEEDED, "%s: no answer in time at step '%s'; the engine is stopped or overloaded",
                  path, step);
    case MessageOutcome::kClosed:
      return Fail(SUTRA_ENGINE_GONE, "%s: the engine hung up at step '%s'; its log says why", path, step);
    case MessageOutcome::kFdsLost:
      return Fail(SUTRA_OUT_OF_MEMORY, "%s: no descriptors left for a lane at step '%s': raise the limit of open files",
                  path, step);
    case MessageOutcome::kMalformed:
      return Fail(SUTRA_REFUSED, "%s: not a message of layout %u.%u at step '%s'; another program, or another version",
                  path, unsigned{kLayoutMajor}, unsigned{kLayoutMinor}, step);
    default: return Fail(SUTRA_ENGINE_GONE, "%s: step '%s': %s", path, step, strerror(errno));
  }
}

sutra_status CheckWelcome(const char* path, WelcomeMessage* welcome, size_t fds_received) {
  welcome->model[sizeof(welcome->model) - 1] = '\0';
  welcome->identity[sizeof(welcome->identity) - 1] = '\0';
  welcome->message[sizeof(welcome->message) - 1] = '\0';
  if (welcome->magic != kHandshakeMagic) {
    return Fail(SUTRA_REFUSED, "%s: what listens there is not a Sutra engine", path);
  }
  if (welcome->status != SUTRA_OK || welcome->layout_major != kLayoutMajor) {
    // A refusal keeps its own status where a caller can act on it, and is plain `refused` otherwise.
    const sutra_status status = welcome->status == SUTRA_SHUTTING_DOWN || welcome->status == SUTRA_OVERLOADED ||
                                        welcome->status == SUTRA_OUT_OF_MEMORY
                                    ? welcome->status
                                    : SUTRA_REFUSED;
    if (welcome->layout_major != kLayoutMajor) {
      return Fail(status,
                  "%s: the engine has layout %u.%u, this library %u.%u: install the engine's client library%s%s", path,
                  welcome->layout_major, welcome->layout_minor, unsigned{kLayoutMajor}, unsigned{kLayoutMinor},
                  welcome->message[0] != '\0' ? "; it says: " : "", welcome->message);
    }
    return Fail(status, "%s: the engine refused: %s", path,
                welcome->message[0] != '\0' ? welcome->message : sutra_status_text(status));
  }
  if (fds_received < kWelcomeFds) {
    return Fail(SUTRA_REFUSED, "%s: a welcome without a lane: broken engine build", path);
  }
  return SUTRA_OK;
}

sutra_status PrepareEventPipe(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISFIFO(info.st_mode)) {
    return Fail(SUTRA_REFUSED, "the engine's event descriptor is not a pipe: broken engine build");
  }
  // The two ends of a pipe have separate flags: the engine cannot make our reads block, nor we its writes.
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Fail(SUTRA_REFUSED, "the engine's event pipe: %s", strerror(errno));
  }
  return SUTRA_OK;
}

sutra_status Handshake(const char* path, const HelloMessage& hello, const AttachPatience& patience,
                       LaneConnection* lane) {
  const uint64_t before_ns = MonotonicNs();
  MessageOutcome outcome = Send(lane->socket, &hello, sizeof(hello), patience);
  // An engine that refuses a user does not wait for the hello: it says why and hangs up. Its message can still be read.
  if (outcome != MessageOutcome::kOk && outcome != MessageOutcome::kClosed) return FailStep(path, "hello", outcome);

  WelcomeMessage& welcome = lane->welcome;
  int fds[kWelcomeFdsMax] = {-1, -1, -1, -1, -1, -1};
  size_t fds_received = 0, received = 0;
  const auto receive = [&] {
    outcome = Patiently(patience, [&](uint64_t deadline_ns) {
      return ReceiveMessage(lane->socket, &welcome, sizeof(welcome), fds, {kWelcomeFds, kWelcomeFdsMax}, &fds_received,
                            &received, deadline_ns);
    });
  };
  receive();
  // A hello that the engine left unread is reported once, as a reset, before its last message.
  if (outcome == MessageOutcome::kClosed) receive();
  const uint64_t after_ns = MonotonicNs();
  if (outcome == MessageOutcome::kMalformed && received >= 12 && welcome.magic == kHandshakeMagic) {
    welcome.message[0] = '\0';  // another layout's bytes
  } else if (outcome != MessageOutcome::kOk) {
    return FailStep(path, "welcome", outcome);
  }
  bool lost = false;
  for (size_t i = 0; i < fds_received; ++i) {
    fds[i] = HighFd(fds[i]);
    lost = lost || fds[i] < 0;
  }
  lane->request_fd = fds[kFdRequest];
  lane->reply_fd = fds[kFdReply];
  lane->tail_fd = fds[kFdTail];
  lane->event_fd = fds[kFdEvent];
  const int page_fd = fds[kFdPage];
  lane->hot_fd = fds[kFdHot];
  (void)SUTRA_CHECKPOINT("attach.fds_received");

  sutra_status status = lost ? FailStep(path, "welcome", MessageOutcome::kFdsLost)
                        : outcome == MessageOutcome::kMalformed && welcome.layout_major == kLayoutMajor
                            ? FailStep(path, "welcome", outcome)
                            : CheckWelcome(path, &welcome, fds_received);
  if (status == SUTRA_OK) {
    status = MapLane(welcome, {lane->request_fd, lane->reply_fd, lane->tail_fd, page_fd}, &lane->mapping);
  }
  if (page_fd >= 0) close(page_fd);
  if (status == SUTRA_OK) status = PrepareEventPipe(lane->event_fd);
  if (status != SUTRA_OK) return status;
  (void)SUTRA_CHECKPOINT("attach.mapped");

  // A reading between our two comes from the same clock, however late we were scheduled.
  const bool same_clock = welcome.engine_now_ns >= before_ns && welcome.engine_now_ns <= after_ns;
  lane->engine_clock_ahead_ns = same_clock ? 0 : static_cast<int64_t>(welcome.engine_now_ns - after_ns);
  lane->engine_clock_ahead_ns_max = same_clock ? 0 : static_cast<int64_t>(welcome.engine_now_ns - before_ns);

  if (!TakeLock(lane->request_fd)) {
    return Fail(SUTRA_REFUSED, "locking the request lane: %s; another process holds this lane", strerror(errno));
  }
  (void)SUTRA_CHECKPOINT("attach.lock_taken");
  const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
  outcome = Send(lane->socket, &locked, sizeof(locked), patience);
  if (outcome != MessageOutcome::kOk) return FailStep(path, "locked", outcome);

  ServingMessage serving = {};
  outcome = Patiently(patience, [&](uint64_t deadline_ns) {
    return ReceiveMessage(lane->socket, &serving, sizeof(serving), nullptr, 0, &fds_received, &received, deadline_ns);
  });
  if (outcome != MessageOutcome::kOk) return FailStep(path, "serving", outcome);
  if (serving.magic != kHandshakeMagic || serving.status != SUTRA_OK) {
    const bool leaving = serving.magic == kHandshakeMagic && serving.status == SUTRA_SHUTTING_DOWN;
    return Fail(leaving ? SUTRA_SHUTTING_DOWN : SUTRA_REFUSED, "%s: the engine does not serve the lane: %s", path,
                sutra_status_text(serving.status));
  }
  return SUTRA_OK;
}

sutra_status AttachOnce(const char* path, const HelloMessage& hello, const AttachPatience& patience,
                        LaneConnection* lane, uint32_t* retry_after_ms) {
  LaneConnection made;
  sutra_status status = Connect(path, patience, &made.socket);
  if (status != SUTRA_OK) return status;
  (void)SUTRA_CHECKPOINT("attach.socket_connected");
  status = Handshake(path, hello, patience, &made);
  if (status != SUTRA_OK) {
    if (status == SUTRA_OVERLOADED) *retry_after_ms = made.welcome.retry_after_ms;
    const WelcomeMessage said = made.welcome;
    CloseConnection(&made, false);
    lane->welcome = said;
    return status;
  }
  assert(made.socket >= 0 && made.request_fd >= 0 && made.reply_fd >= 0 && made.tail_fd >= 0 && made.event_fd >= 0);
  *lane = made;
  return SUTRA_OK;
}

}  // namespace

// An engine that has too many attaches at a time says when to come again: others start at the same moment, too.
sutra_status AttachLane(const char* path, const HelloMessage& hello, const AttachPatience& patience,
                        LaneConnection* lane) {
  const NoCancel no_cancel;
  for (;;) {
    uint32_t retry_after_ms = 0;
    const sutra_status status = AttachOnce(path, hello, patience, lane, &retry_after_ms);
    if (retry_after_ms == 0 || MonotonicNs() + retry_after_ms * kNsPerMs >= patience.deadline_ns) return status;
    // The engine may exaggerate.
    if (!Pause((retry_after_ms < 1000 ? retry_after_ms : 1000) * kNsPerMs, patience)) return status;
  }
}

void CloseDescriptors(LaneConnection* lane) {
  const NoCancel no_cancel;
  if (lane->request_fd >= 0) close(lane->request_fd);
  (void)SUTRA_CHECKPOINT("detach.lock_dropped");
  if (lane->reply_fd >= 0) close(lane->reply_fd);
  if (lane->tail_fd >= 0) close(lane->tail_fd);
  if (lane->event_fd >= 0) close(lane->event_fd);
  if (lane->hot_fd >= 0) close(lane->hot_fd);
  if (lane->socket >= 0) close(lane->socket);
  lane->request_fd = lane->reply_fd = lane->tail_fd = lane->event_fd = lane->hot_fd = lane->socket = -1;
}

void CloseConnection(LaneConnection* lane, bool forked) {
  const NoCancel no_cancel;
  if (forked) lane->mapping = LaneMapping();
  // The goodbye, by which the engine counts a detach rather than a death.
  const char goodbye = 0;
  if (!forked && lane->socket >= 0) (void)!send(lane->socket, &goodbye, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  UnmapLane(&lane->mapping);
  DropHotTable(lane->hot, forked);
  CloseDescriptors(lane);
  *lane = LaneConnection();
}

}  // namespace sutra::client
