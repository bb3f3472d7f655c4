#include "shm/handshake.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shm/base/numbers.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

// RETURNS kOk when `events` (or an error state) is reported. Signals do not shorten the wait.
MessageOutcome WaitFor(int socket, short events, uint64_t deadline_ns) {
  for (;;) {
    const uint64_t now_ns = MonotonicNs();
    const uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    const uint64_t left_ms = DivideRoundUp(left_ns, kNsPerMs);
    pollfd item = {socket, events, 0};
    const int ready = poll(&item, 1, static_cast<int>(left_ms < 60'000 ? left_ms : 60'000));
    if (ready > 0) return MessageOutcome::kOk;
    if (ready == 0 && left_ms <= 60'000) return MessageOutcome::kTimeout;
    if (ready < 0 && errno != EINTR) return MessageOutcome::kError;
  }
}

void CloseAll(const int* fds, size_t count) {
  for (size_t i = 0; i < count; ++i) close(fds[i]);
}

}  // namespace

MessageOutcome SendMessage(int socket, const void* bytes, size_t byte_count, const int* fds, size_t fd_count,
                           uint64_t deadline_ns) {
  if (fd_count > kMessageFdsMax) return MessageOutcome::kMalformed;
  iovec part = {const_cast<void*>(bytes), byte_count};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMessageFdsMax)] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd_count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
  }
  for (;;) {
    const ssize_t sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(byte_count)) return MessageOutcome::kOk;
    if (sent >= 0) return MessageOutcome::kMalformed;  // not a SEQPACKET socket
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return MessageOutcome::kClosed;
    if (errno != EAGAIN) return MessageOutcome::kError;
    const MessageOutcome room = WaitFor(socket, POLLOUT, deadline_ns);
    if (room != MessageOutcome::kOk) return room;
  }
}

MessageOutcome ReceiveMessage(int socket, void* bytes, size_t byte_count, int* fds, FdCount fd_count,
                              size_t* fds_received, size_t* received, uint64_t deadline_ns) {
  assert(fd_count.least <= fd_count.most && fd_count.most <= kMessageFdsMax);
  *fds_received = 0;
  *received = 0;
  iovec part = {bytes, byte_count};
  // Room for one descriptor more than the maximum, so that an excess is noticed; the kernel closes any beyond that.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (kMessageFdsMax + 1))];
  msghdr message = {};
  ssize_t count;
  for (;;) {
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    count = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count >= 0) break;
    if (errno == EINTR) continue;
    if (errno == ECONNRESET) return MessageOutcome::kClosed;
    if (errno != EAGAIN) return MessageOutcome::kError;
    const MessageOutcome ready = WaitFor(socket, POLLIN, deadline_ns);
    if (ready != MessageOutcome::kOk) return ready;
  }

  int arrived[kMessageFdsMax + 1];
  size_t arrived_count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t items = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < items; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      if (arrived_count < kMessageFdsMax + 1)
        arrived[arrived_count++] = fd;
      else
        close(fd);
    }
  }
  *received = static_cast<size_t>(count);
  const bool whole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 && *received == byte_count;
  if (count == 0 && arrived_count == 0) return MessageOutcome::kClosed;
  // The kernel hands over as many as the process has room for. Beyond kMessageFdsMax it is the peer that sent too many.
  const bool lost = (message.msg_flags & MSG_CTRUNC) != 0 && arrived_count <= kMessageFdsMax;
  if (lost) {
    CloseAll(arrived, arrived_count);
    return MessageOutcome::kFdsLost;
  }
  const bool expected = arrived_count >= fd_count.least && arrived_count <= fd_count.most;
  if (!whole || (arrived_count != 0 && !expected)) {
    CloseAll(arrived, arrived_count);
    return MessageOutcome::kMalformed;
  }
  assert(arrived_count == 0 || expected);  // nothing else is handed out, so nothing stays open
  if (arrived_count > 0) memcpy(fds, arrived, arrived_count * sizeof(int));
  *fds_received = arrived_count;
  return MessageOutcome::kOk;
}

}  // namespace sutra
