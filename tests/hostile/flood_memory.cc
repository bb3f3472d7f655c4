// Attacks with the memory of a client's own lane.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstring>
#include <thread>

#include "shm/base/time.h"
#include "tests/hostile/flood_client.h"
#include "tests/kit/raw_client.h"

namespace sutra::test {
namespace {

// Beyond it lie texts and nothing that the engine would take for a request.
uint64_t FirstText(const HeldFile& file, const LaneGeometry& geometry) {
  return file.name.find("request") != std::string::npos ? geometry.text_heads() : 0;
}

void Fill(const HeldFile& file, uint64_t from) {
  static const std::string kBytes(1 << 20, 'x');
  for (uint64_t offset = from; offset < file.bytes; offset += kBytes.size()) {
    const size_t bytes = std::min<uint64_t>(kBytes.size(), file.bytes - offset);
    static_cast<void>(!pwrite(file.fd, kBytes.data(), bytes, static_cast<off_t>(offset)));
  }
}

struct Parked {
  SharedWord<uint32_t>* word;
  std::atomic<uint64_t> waiting{0}, woken{0};
};

void* Park(void* argument) {
  auto& parked = *static_cast<Parked*>(argument);
  const uint32_t value = parked.word->load(std::memory_order_relaxed);
  parked.waiting.fetch_add(1);
  const long result = syscall(SYS_futex, parked.word, FUTEX_WAIT, value, nullptr, nullptr, 0);
  if (result == 0) parked.woken.fetch_add(1);
  pause();
  return nullptr;
}

}  // namespace

// Says "attached", then `rounds` times fills the text memory of its lane of `slots` slots and punches a hole over every
// file that it may write, while another thread keeps the lane busy; says "punched", then "START END ..." of the punches
// in one line.
int PunchHoles(const FloodArguments& arguments) {
  HelloMessage hello = RawClient::Hello();
  hello.slots = static_cast<uint32_t>(arguments.Number("slots", 4096));
  RawClient client = RawClient::Attach(arguments.socket, hello);
  if (!client.lane_ready()) return kFloodCannotAttach;
  Say("attached");
  std::atomic<bool> stop{false};
  std::thread busy([&] {  // a lane that is silent need not be looked at
    for (; !stop.load(); Pause(200)) client.Ring();
  });
  std::string times;
  for (uint64_t round = 0; round < arguments.Number("rounds", 5); ++round) {
    for (const HeldFile& file : HeldLaneFiles()) {
      if ((fcntl(file.fd, F_GETFL) & O_ACCMODE) != O_RDWR || file.name.find("reply") != std::string::npos) continue;
      Fill(file, FirstText(file, client.geometry()));
      const uint64_t start = MonotonicNs();
      static_cast<void>(
          fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(file.bytes)));
      times += std::to_string(start) + " " + std::to_string(MonotonicNs()) + " ";
    }
  }
  stop.store(true);
  busy.join();
  Say("punched");
  Say(times);
  return 0;
}

// Attaches `rounds` times, each time keeps the descriptors and detaches; says "accepted N", "refused N", "hinted N"
// (refusals that name a time to try again) and "held BYTES" (pages of lane memory that only its descriptors keep).
int HoardMemory(const FloodArguments& arguments) {
  HelloMessage hello = RawClient::Hello();
  hello.slots = static_cast<uint32_t>(arguments.Number("slots", 4096));
  hello.text_bytes_max = 256;
  uint64_t accepted = 0, refused = 0, hinted = 0;
  std::string reason;
  for (uint64_t round = 0; round < arguments.Number("rounds", 150); ++round) {
    RawClient client = RawClient::Connect(arguments.socket);  // step by step: the library would wait and try again
    const bool welcome = client.Send(&hello, sizeof(hello)) == 0 && client.ReceiveWelcome(10'000).has_value() &&
                         client.welcome().status == 0;
    if (!welcome || !client.MapLane() || !client.TakeLock() || client.SendLocked() != 0 ||
        !client.ReceiveServing(10'000).has_value()) {
      ++refused;
      reason = client.welcome().message;
      hinted += client.welcome().status == static_cast<uint32_t>(StatusCode::kOverloaded) &&
                client.welcome().retry_after_ms > 0;
      Pause(2'000);
      continue;
    }
    ++accepted;
    for (const HeldFile& file : HeldLaneFiles()) {
      if (file.fd < 1000) fcntl(file.fd, F_DUPFD, 1000);
    }
  }
  Pause(500'000);  // for what the engine takes back after a detach
  uint64_t held = 0;
  for (const HeldFile& file : HeldLaneFiles()) held += file.fd >= 1000 ? file.bytes_held : 0;
  Say("accepted " + std::to_string(accepted));
  Say("refused " + std::to_string(refused));
  Say("hinted " + std::to_string(hinted));
  Say("held " + std::to_string(held));
  Say("reason " + reason);
  return 0;
}

// Parks `threads` threads on the futex word of its lane, says "parked N", and asks one text; says "woken N", the
// threads that its answer woke. self=1: wakes them all itself.
int ParkThreads(const FloodArguments& arguments) {
  RawClient client = RawClient::Attach(arguments.socket);
  if (!client.lane_ready()) return kFloodCannotAttach;
  Parked parked = {.word = &client.reply().engine().futex_word};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 131072);
  uint64_t made = 0;
  for (pthread_t thread; made < arguments.Number("threads", 2000); ++made) {
    if (pthread_create(&thread, &attributes, Park, &parked) != 0) break;
  }
  while (parked.waiting.load() < made) Pause(1000);
  Pause(200'000);  // from there into the kernel
  client.request().client().sleepers.store(static_cast<uint32_t>(made), std::memory_order_seq_cst);
  Say("parked " + std::to_string(made));
  const uint64_t sequence = client.Submit(0, "one answer");
  if (client.WaitAnswer(0, sequence, 60'000) != StatusCode::kOk) return 1;
  if (arguments.Number("self", 0) == 1) {
    syscall(SYS_futex, parked.word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
  uint64_t woken = UINT64_MAX;
  for (int calm = 0; calm < 5; woken = parked.woken.load(), Pause(100'000)) {
    calm = woken == parked.woken.load() ? calm + 1 : 0;
  }
  Say("woken " + std::to_string(parked.woken.load()));
  _exit(0);  // the threads never end
}

}  // namespace sutra::test
