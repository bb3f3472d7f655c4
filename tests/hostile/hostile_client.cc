// A hostile client as a process of its own, for attacks that stop, fork, exec or kill it, or run it as another user.
//   sutra-hostile-client DUTY SOCKET
// Prints "ready" (or "grandchild PID") on standard output when it has got as far as its duty requires.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/lane_ring.h"
#include "shm/peer_liveness.h"
#include "tests/kit/raw_client.h"

namespace sutra::test {
namespace {

constexpr int kWaitMs = 60'000;

void Say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

int StopInsideSubmit(const std::string& socket) {
  RawClient client = RawClient::Attach(socket);
  client.FillSlot(0, "never published", 1);
  raise(SIGSTOP);
  client.PublishEntry(0, RingEntry(0, 0));
  client.Ring();
  return client.WaitAnswer(0, 1, kWaitMs) == StatusCode::kOk ? 0 : 1;
}

// The grandchild inherits socket, descriptors and mappings, but not the lock; with `drops_lock` nobody has that.
int ForkAndWait(const std::string& socket, bool drops_lock) {
  RawClient client = RawClient::Attach(socket);
  if (drops_lock) client.DropLock();
  const pid_t grandchild = fork();
  if (grandchild == 0) {
    alarm(120);
    client.Submit(0, "from the grandchild");
    Say("grandchild " + std::to_string(getpid()));
  }
  pause();
  return 1;
}

int Exec(const std::string& socket) {
  RawClient client = RawClient::Attach(socket);
  client.FillSlot(0, "half of a submission", 1);
  execlp("sleep", "sleep", "120", nullptr);
  return 1;
}

int Stream(const std::string& socket) {
  RawClient client = RawClient::Attach(socket);
  Say("ready");
  for (uint32_t slot = 0;; slot = (slot + 1) % client.geometry().slots) {
    const uint64_t sequence = client.Submit(slot, "until killed " + std::to_string(slot));
    static_cast<void>(client.WaitAnswer(slot, sequence, 1000));
  }
}

// Sends first and expects the reason for its refusal: 3 no message, 4 not refused, 5 a message without its uid.
int BeRefused(const std::string& socket) {
  for (int i = 0; i < 50; ++i) {
    RawClient client = RawClient::Connect(socket);
    const HelloMessage hello = RawClient::Hello();
    static_cast<void>(client.Send(&hello, sizeof(hello)));
    const std::optional<WelcomeMessage> welcome = client.ReceiveWelcome(kWaitMs);
    if (!welcome.has_value()) return 3;
    if (static_cast<StatusCode>(welcome->status) != StatusCode::kRefused) return 4;
    if (std::string(welcome->message).find(std::to_string(getuid())) == std::string::npos) return 5;
  }
  return 0;
}

// A child lends its identity, in which the engine shall not see this process: it connects and, for `says_hello`, says
// hello, before it hands the socket over; then it ends, or with `lives` it does not. This process does the rest.
// Says "served" or "refused".
int BorrowSocket(const std::string& path, bool says_hello, bool lives) {
  int pair[2] = {-1, -1};
  static_cast<void>(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
  RawClient lender, borrower, client;
  lender.socket_owner() = UniqueFd(pair[0]);
  borrower.socket_owner() = UniqueFd(pair[1]);
  const HelloMessage hello = RawClient::Hello();
  const pid_t child = fork();
  if (child == 0) {
    const RawClient connected = RawClient::Connect(path);
    if (says_hello) static_cast<void>(connected.Send(&hello, sizeof(hello)));
    static_cast<void>(lender.Send("", 1, {connected.socket()}));
    if (lives) pause();
    _exit(0);
  }
  if (!lives) waitpid(child, nullptr, 0);
  char byte = 0;
  int fd = -1;
  size_t fds = 0, received = 0;
  static_cast<void>(
      ReceiveMessage(borrower.socket(), &byte, 1, &fd, 1, &fds, &received, MonotonicNs() + 10 * kNsPerSecond));
  client.socket_owner() = UniqueFd(fd);
  if (!says_hello) static_cast<void>(client.Send(&hello, sizeof(hello)));
  if (!client.ReceiveWelcome(kWaitMs).has_value() || !client.MapLane() || !client.TakeLock()) return 3;
  static_cast<void>(client.SendLocked());
  const std::optional<ServingMessage> serving = client.ReceiveServing(kWaitMs);
  Say(serving.has_value() && serving->status == 0 ? "served" : "refused");
  if (lives) kill(child, SIGKILL);
  return 0;
}

// A child attaches, and ends; this process has its socket and its memory, and takes the lock as soon as it is free.
// With `shares_files` the two have one table of descriptors: the lock then outlives the child, under its number. Says
// "attached", ends the child, and says "closed" when the lane is.
int InheritLane(const std::string& path, bool shares_files) {
  int pair[2] = {-1, -1}, end[2] = {-1, -1};
  static_cast<void>(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
  static_cast<void>(!pipe(end));
  RawClient giver, taker, lane;
  giver.socket_owner() = UniqueFd(pair[0]);
  taker.socket_owner() = UniqueFd(pair[1]);
  const long flags = SIGCHLD | (shares_files ? CLONE_FILES : 0);
  const auto child = static_cast<pid_t>(syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
  if (child == 0) {
    const RawClient client = RawClient::Attach(path);
    static_cast<void>(giver.Send(client.lane_ready() ? "y" : "n", 1, {client.socket(), client.request_fd()}));
    char byte = 0;
    static_cast<void>(!read(end[0], &byte, 1));
    _exit(0);
  }
  char byte = 0;
  int fds[2] = {-1, -1};
  size_t count = 0, received = 0;
  static_cast<void>(
      ReceiveMessage(taker.socket(), &byte, 1, fds, 2, &count, &received, MonotonicNs() + 10 * kNsPerSecond));
  if (byte != 'y') return 3;
  lane.socket_owner() = UniqueFd(fds[0]);
  Say("attached");
  static_cast<void>(!write(end[1], "x", 1));
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  if (!shares_files && fcntl(fds[1], F_SETLKW, &lock) != 0) return 4;
  waitpid(child, nullptr, 0);
  Say(lane.HungUp(kWaitMs) ? "closed" : "open");
  return 0;
}

int Main(const std::string& duty, const std::string& socket) {
  if (duty == "stop-inside-submit") return StopInsideSubmit(socket);
  if (duty == "fork-and-wait") return ForkAndWait(socket, false);
  if (duty == "fork-without-lock") return ForkAndWait(socket, true);
  if (duty == "borrow-of-the-dead") return BorrowSocket(socket, false, false);
  if (duty == "borrow-of-the-living") return BorrowSocket(socket, false, true);
  if (duty == "borrow-after-hello") return BorrowSocket(socket, true, true);
  if (duty == "inherit-lane") return InheritLane(socket, false);
  if (duty == "inherit-files") return InheritLane(socket, true);
  if (duty == "exec") return Exec(socket);
  if (duty == "stream") return Stream(socket);
  if (duty == "be-refused") return BeRefused(socket);
  return 2;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return argc == 3 ? sutra::test::Main(argv[1], argv[2]) : 2; }
