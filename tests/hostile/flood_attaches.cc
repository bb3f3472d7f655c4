// Attacks by attaching: too often, too large, without a word, and dying at any step.
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <sutra/embed.hpp>
#include <thread>
#include <utility>

#include "shm/base/time.h"
#include "shm/handshake.h"
#include "tests/hostile/flood_client.h"
#include "tests/kit/fake_model_answers.h"
#include "tests/kit/raw_client.h"

namespace sutra::test {
namespace {

int ConnectTo(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

// Of a child that is dead when this returns.
RawClient BorrowedSocket(const std::string& path) {
  int pair[2] = {-1, -1};
  static_cast<void>(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
  RawClient lender, borrower;
  lender.socket_owner() = UniqueFd(pair[0]);
  borrower.socket_owner() = UniqueFd(pair[1]);
  const pid_t child = fork();
  if (child == 0) {
    const RawClient connected = RawClient::Connect(path);
    const char byte = 1;
    static_cast<void>(lender.Send(&byte, 1, {connected.socket()}));
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  char byte = 0;
  int fd = -1;
  size_t fds = 0, received = 0;
  static_cast<void>(ReceiveMessage(borrower.socket(), &byte, 1, &fd, 1, &fds, &received, MonotonicNs() + kNsPerSecond));
  RawClient client;
  client.socket_owner() = UniqueFd(fd);
  return client;
}

struct Lives {
  uint64_t attached = 0, wrong = 0, failed = 0;
  std::string problem;
};

void Check(const embed::Client& client, const std::string& text, Lives* lives) {
  const embed::Embedding answer = client.Embed(text);
  const bool right =
      answer.status == SUTRA_OK && SameVector(answer.vector, ExpectedVector(text, false, client.info().width));
  if (right) return;
  ++lives->wrong;
  lives->problem = std::string("status ") + sutra_status_text(answer.status);
}

// The texts of all lives are few, so that the cache does not grow by them.
std::string LifeText(uint64_t number, size_t bytes) {
  return "life " + std::to_string(number % 16) + std::string(bytes, 'l');
}

// What a client may do between attach and its end; it need not reach its end.
void Live(const embed::Client& client, std::mt19937_64& random, Lives* lives) {
  switch (random() % 6) {
    case 0: break;  // attached and gone
    case 1: Check(client, LifeText(random(), 10), lives); break;
    case 2: {  // answers that nobody reads
      for (uint64_t i = 0; i < 1 + random() % 32; ++i) {
        sutra_ticket ticket = 0;
        const std::string text = LifeText(random(), 100);
        static_cast<void>(sutra_submit(client.get(), text.data(), text.size(), nullptr, &ticket));
      }
      break;
    }
    case 3: Check(client, LifeText(random(), 60'000), lives); break;
    case 4: {  // threads, each with a lane of its own
      std::vector<std::thread> threads;
      const uint64_t number = random();
      std::vector<Lives> parts(4);
      for (uint64_t i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] { Check(client, LifeText(number + i, 20), &parts[i]); });
      }
      for (std::thread& thread : threads) thread.join();
      for (const Lives& part : parts) {
        lives->wrong += part.wrong;
        if (!part.problem.empty()) lives->problem = part.problem;
      }
      break;
    }
    default: {  // long texts under way
      for (uint64_t i = 0; i < 8; ++i) {
        sutra_ticket ticket = 0;
        const std::string text = LifeText(i, 50'000);
        static_cast<void>(sutra_submit(client.get(), text.data(), text.size(), nullptr, &ticket));
      }
      Check(client, LifeText(random(), 300), lives);
    }
  }
}

// False: the engine refused it for now, which is no life.
bool AttachForALife(const FloodArguments& arguments, std::mt19937_64& random, embed::Client* client, Lives* lives) {
  sutra_attach_options options = embed::AttachOptions();
  options.slots = 32u << random() % 4;
  options.timeout_ms = 20'000;
  const sutra_status status = client->Attach(arguments.socket, options);
  if (status == SUTRA_OK) {
    ++lives->attached;
    return true;
  }
  if (status != SUTRA_OVERLOADED) {
    ++lives->failed;
    lives->problem = sutra_error_text();
  }
  Pause(2000);
  return false;
}

// A life as a process, killed up to 3 ms after its birth, sometimes much later: then its lane has been silent.
void LiveAndBeKilled(const FloodArguments& arguments, std::mt19937_64& random) {
  const uint64_t seed = random();
  const bool parks = random() % 256 == 0;
  const pid_t child = fork();
  if (child == 0) {
    std::mt19937_64 own(seed);
    Lives lives;
    embed::Client client;
    for (;;) {
      if (!AttachForALife(arguments, own, &client, &lives)) continue;
      Live(client, own, &lives);
      if (parks) pause();
      if (own() % 4 == 0) _exit(0);  // without a detach
    }
  }
  Pause(parks ? 400'000 : random() % 3000);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

}  // namespace

// Attaches with `slots` slots and detaches until killed or `rounds` times; says "storming" first and at the end, in a
// line each, "START END ..." of all attaches and of the `calm_ms` after each detach.
int StormAttaches(const FloodArguments& arguments) {
  sutra_attach_options options = embed::AttachOptions();
  options.lanes_max = 1;
  options.slots = static_cast<uint32_t>(arguments.Number("slots", 4096));
  Say("storming");
  const uint64_t calm_ms = arguments.Number("calm_ms", 0);
  std::string times, calm_times;
  int failed = 0;
  for (uint64_t accepted = 0; accepted < arguments.Number("rounds", UINT64_MAX);) {
    embed::Client client;
    const uint64_t start = MonotonicNs();
    const sutra_status status = client.Attach(arguments.socket, options);
    if (status == SUTRA_OK) {
      times += std::to_string(start) + " " + std::to_string(MonotonicNs()) + " ";
      ++accepted;
      client.Detach();
      const uint64_t detached = MonotonicNs();
      Pause(calm_ms * 1000);
      calm_times += std::to_string(detached) + " " + std::to_string(MonotonicNs()) + " ";
    } else if (++failed < 500) {
      Pause(10'000);
    } else {
      std::fprintf(stderr, "attach: %s\n", sutra_error_text());
      return kFloodCannotAttach;
    }
  }
  Say(times);
  Say(calm_times);
  return 0;
}

// Keeps `connections` connections open that say nothing, and opens a new one for each that the engine closes. With
// hello=1 they ask for a lane of 4,096 slots and say nothing more; with vanish=1 they hang up at once. Says "silent"
// when they were all tried once.
int ConnectSilently(const FloodArguments& arguments) {
  std::vector<int> fds(arguments.Number("connections", 500), -1);
  const bool says_hello = arguments.Number("hello", 0) == 1, vanishes = arguments.Number("vanish", 0) == 1;
  HelloMessage hello = RawClient::Hello();
  hello.slots = 4096;
  hello.text_bytes_max = 256;
  for (bool told = false;; Pause(1000)) {
    for (int& fd : fds) {
      char byte = 0;
      const bool open = fd >= 0 && (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) > 0 || errno == EAGAIN);
      if (open) continue;
      if (fd >= 0) close(fd);
      fd = ConnectTo(arguments.socket);
      if (fd >= 0 && says_hello) static_cast<void>(!send(fd, &hello, sizeof(hello), MSG_NOSIGNAL));
      if (fd >= 0 && vanishes) close(std::exchange(fd, -1));
    }
    if (!told) Say("silent");
    told = true;
  }
}

// Tries `tries` times to attach over a socket that a child connected and handed over before it ended: to the engine
// each would have another peer. Says "attached LANES" and keeps them.
int BorrowIdentities(const FloodArguments& arguments) {
  std::vector<RawClient> clients;
  const HelloMessage hello = RawClient::Hello();
  for (uint64_t tries = 0; tries < arguments.Number("tries", 50); ++tries) {
    RawClient client = BorrowedSocket(arguments.socket);
    if (client.Send(&hello, sizeof(hello)) != 0 || !client.ReceiveWelcome(10'000).has_value()) continue;
    if (client.welcome().status != 0 || !client.MapLane() || !client.TakeLock() || client.SendLocked() != 0) continue;
    const std::optional<ServingMessage> serving = client.ReceiveServing(10'000);
    if (serving.has_value() && serving->status == 0) clients.push_back(std::move(client));
  }
  Say("attached " + std::to_string(clients.size()));
  pause();
  return 0;
}

// `lives` attaches, half of them processes that are killed at random, the rest in this process with or without answers
// read. Says "attached N", "wrong N", "failed N" and "problem TEXT".
int LiveManyLives(const FloodArguments& arguments) {
  std::mt19937_64 random(arguments.Number("seed", 1));
  Lives lives;
  uint64_t killed = 0;
  const uint64_t wanted = arguments.Number("lives", 100);
  while (lives.attached + killed < wanted && lives.failed < 10) {
    if (random() % 2 == 0) {
      LiveAndBeKilled(arguments, random);
      ++killed;
      continue;
    }
    embed::Client client;
    if (AttachForALife(arguments, random, &client, &lives)) Live(client, random, &lives);
  }
  Say("attached " + std::to_string(lives.attached));
  Say("killed " + std::to_string(killed));
  Say("wrong " + std::to_string(lives.wrong));
  Say("failed " + std::to_string(lives.failed));
  Say("problem " + lives.problem);
  return 0;
}

}  // namespace sutra::test
