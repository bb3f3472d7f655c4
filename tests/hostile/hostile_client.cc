// A hostile client as a process of its own, for attacks that stop, fork, exec or kill it, or run it as another user.
//   sutra-hostile-client DUTY SOCKET
// Prints "ready" (or "grandchild PID") on standard output when it has got as far as its duty requires.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "shm/lane_ring.h"
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

// The grandchild inherits socket, descriptors and mappings, but not the lock.
int ForkAndWait(const std::string& socket) {
  RawClient client = RawClient::Attach(socket);
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

int Main(const std::string& duty, const std::string& socket) {
  if (duty == "stop-inside-submit") return StopInsideSubmit(socket);
  if (duty == "fork-and-wait") return ForkAndWait(socket);
  if (duty == "exec") return Exec(socket);
  if (duty == "stream") return Stream(socket);
  if (duty == "be-refused") return BeRefused(socket);
  return 2;
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return argc == 3 ? sutra::test::Main(argv[1], argv[2]) : 2; }
