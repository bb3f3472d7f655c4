// An engine that lies: performs the handshake, and falsifies the one thing that its behaviour names. A process of its
// own, because a client never sees a lock of its own process.
//   sutra-hostile-engine BEHAVIOUR SOCKET
// Prints "ready" when it listens. Ends with its parent.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "shm/handshake.h"
#include "shm/handshake_messages.h"
#include "shm/lane_memory.h"
#include "shm/lane_ring.h"
#include "shm/sleep_wake.h"
#include "tests/kit/wake_calls.h"

namespace sutra::test {
namespace {

constexpr uint64_t kGeneration = 99;
constexpr auto kRelaxed = std::memory_order_relaxed;

uint64_t Soon() { return MonotonicNs() + 10 * kNsPerSecond; }

// Everything that is sent with the welcome, to be falsified first.
struct Offer {
  WelcomeMessage welcome = {};
  size_t welcome_bytes = sizeof(WelcomeMessage);
  LaneMemory lane;
  EnginePageMemory page;
  UniqueFd event_read, event_write;
  std::vector<UniqueFd> others;  // descriptors sent instead of the genuine ones
  std::vector<int> fds;

  LaneHeader& request_header() {  // the engine maps the request lane read-only: this is another map
    void* base = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, lane.request_fd(), 0);
    return *static_cast<LaneHeader*>(base);
  }
  void Replace(size_t index, int fd) {
    others.emplace_back(fd);
    fds[index] = fd;
  }
};

int Memory(uint64_t bytes, int seals) {
  const int fd = memfd_create("lie", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 || fcntl(fd, F_ADD_SEALS, seals) != 0) std::abort();
  return fd;
}
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

using Spoil = std::function<void(Offer*)>;
const std::map<std::string, Spoil> kOffers = {
    {"short-welcome", [](Offer* o) { o->welcome_bytes = 100; }},
    {"one-byte-welcome", [](Offer* o) { o->welcome_bytes = 1; }},
    {"wrong-magic", [](Offer* o) { o->welcome.magic = 1; }},
    {"no-descriptors", [](Offer* o) { o->fds.clear(); }},
    {"one-descriptor", [](Offer* o) { o->fds.resize(1); }},
    {"seven-descriptors", [](Offer* o) { o->fds.resize(7, STDERR_FILENO); }},
    {"sixty-four-descriptors", [](Offer* o) { o->fds.resize(64, STDERR_FILENO); }},
    {"devices-for-lanes",
     [](Offer* o) {
       for (int& fd : o->fds) fd = STDERR_FILENO;
     }},
    {"unsealed-request-lane",
     [](Offer* o) { o->Replace(kFdRequest, Memory(o->lane.request().geometry.request_bytes(), 0)); }},
    {"unsealed-reply-lane", [](Offer* o) { o->Replace(kFdReply, Memory(o->lane.reply().geometry.reply_bytes(), 0)); }},
    {"unsealed-tail-file", [](Offer* o) { o->Replace(kFdTail, Memory(o->lane.request().geometry.tail_bytes(), 0)); }},
    {"short-tail-file", [](Offer* o) { o->Replace(kFdTail, Memory(kPageBytes, kSizeSeals)); }},
    {"unsealed-page", [](Offer* o) { o->Replace(kFdPage, Memory(kPageBytes, 0)); }},
    {"short-request-lane", [](Offer* o) { o->Replace(kFdRequest, Memory(kPageBytes, kSizeSeals)); }},
    {"short-reply-lane", [](Offer* o) { o->Replace(kFdReply, Memory(kPageBytes, kSizeSeals)); }},
    {"empty-page", [](Offer* o) { o->Replace(kFdPage, Memory(0, kSizeSeals)); }},
    {"zeros-for-lanes",
     [](Offer* o) {
       o->Replace(kFdRequest, Memory(o->lane.request().geometry.request_bytes(), kSizeSeals));
       o->Replace(kFdReply, Memory(o->lane.reply().geometry.reply_bytes(), kSizeSeals));
       o->Replace(kFdPage, Memory(kPageBytes, kSizeSeals));
     }},
    {"read-only-request-lane",
     [](Offer* o) {
       const int fd = open(("/proc/self/fd/" + std::to_string(o->lane.request_fd())).c_str(), O_RDONLY | O_CLOEXEC);
       o->Replace(kFdRequest, fd);
     }},
    {"lanes-swapped", [](Offer* o) { std::swap(o->fds[kFdRequest], o->fds[kFdReply]); }},
    {"file-for-a-pipe", [](Offer* o) { o->Replace(kFdEvent, Memory(kPageBytes, 0)); }},
    {"slots-odd", [](Offer* o) { o->welcome.slots = 3; }},
    {"slots-zero", [](Offer* o) { o->welcome.slots = 0; }},
    {"slots-max", [](Offer* o) { o->welcome.slots = UINT32_MAX; }},
    {"slots-more-than-the-lane", [](Offer* o) { o->welcome.slots *= 2; }},
    {"width-zero", [](Offer* o) { o->welcome.width = 0; }},
    {"width-max", [](Offer* o) { o->welcome.width = UINT32_MAX; }},
    {"width-more-than-the-lane", [](Offer* o) { o->welcome.width += 64; }},
    {"text-bytes-max", [](Offer* o) { o->welcome.text_bytes_max = UINT32_MAX; }},
    {"text-bytes-zero", [](Offer* o) { o->welcome.text_bytes_max = 0; }},
    {"unterminated-strings",
     [](Offer* o) {
       std::memset(o->welcome.model, 'm', sizeof(o->welcome.model));
       std::memset(o->welcome.identity, 'i', sizeof(o->welcome.identity));
       std::memset(o->welcome.message, 'e', sizeof(o->welcome.message));
     }},
    {"unterminated-refusal",
     [](Offer* o) {
       o->welcome.status = 14;
       std::memset(o->welcome.message, '%', sizeof(o->welcome.message));
       o->fds.clear();
     }},
    {"unknown-refusal",
     [](Offer* o) {
       o->welcome.status = 0xffffffff;
       o->fds.clear();
     }},
    {"refusal-with-descriptors", [](Offer* o) { o->welcome.status = 14; }},
    {"other-layout", [](Offer* o) { o->welcome.layout_major = 77; }},
    {"other-layout-in-the-header",
     [](Offer* o) { o->lane.reply().header().layout_version.store(77u << 16, kRelaxed); }},
    {"unfinished-header", [](Offer* o) { o->request_header().layout_version.store(0, kRelaxed); }},
    {"unknown-features", [](Offer* o) { o->lane.reply().header().incompatible_flags = 4; }},
    {"header-of-another-lane", [](Offer* o) { o->request_header().lane_id += 1; }},
    {"header-of-another-generation", [](Offer* o) { o->lane.reply().header().engine_generation = 1; }},
    {"header-of-another-shape", [](Offer* o) { o->lane.reply().header().slots = 1u << 30; }},
    {"page-of-another-generation", [](Offer* o) { o->page.page()->engine_generation = 1; }},
};

// What a lane gets instead of an answer.
struct Work {
  const LaneMemory& lane;
  int event_fd;
  int event_read_fd;
  uint32_t slot;
  uint64_t sequence;
  CompletionWriter* completions;
};
using Answerer = std::function<void(const Work&)>;

void PublishWord(const Work& work, uint64_t word) {
  work.lane.reply().result(work.slot).word.store(word, std::memory_order_release);
  WakeSleepers(work.lane.reply());
}

const std::map<std::string, Answerer> kAnswerers = {
    {"never-answers", [](const Work&) {}},
    {"wrong-vectors",
     [](const Work& w) {
       w.lane.reply().result(w.slot).width = w.lane.reply().geometry.width;
       w.lane.reply().result(w.slot).source = kSourceModel;
       w.completions->Publish(w.slot, w.sequence, StatusCode::kOk);
       WakeSleepers(w.lane.reply());
     }},
    {"answers-not-ready", [](const Work& w) { PublishWord(w, ResultWord(w.sequence, 1)); }},
    {"answers-full", [](const Work& w) { PublishWord(w, ResultWord(w.sequence, 2)); }},
    {"answers-forked", [](const Work& w) { PublishWord(w, ResultWord(w.sequence, 17)); }},
    {"answers-unknown-status", [](const Work& w) { PublishWord(w, ResultWord(w.sequence, 200)); }},
    {"answers-another-sequence", [](const Work& w) { PublishWord(w, ResultWord(w.sequence + 1, 0)); }},
    {"answers-with-ones", [](const Work& w) { PublishWord(w, UINT64_MAX); }},
    {"answers-too-wide",
     [](const Work& w) {
       ResultDescriptor& result = w.lane.reply().result(w.slot);
       result.width = UINT32_MAX;
       result.token_count = UINT32_MAX;
       result.source = UINT32_MAX;
       result.flags = UINT32_MAX;
       for (uint64_t& ns : result.stage_ns) ns = UINT64_MAX;
       PublishWord(w, ResultWord(w.sequence, 0));
     }},
    {"answers-and-takes-back",
     [](const Work& w) {
       for (int i = 0; i < 2000; ++i) {
         PublishWord(w, ResultWord(w.sequence, 0));
         PublishWord(w, 0);
       }
     }},
    {"completions-without-position",
     [](const Work& w) {
       for (uint32_t i = 0; i < w.lane.reply().geometry.slots; ++i) w.lane.reply().completion(i).store(5, kRelaxed);
     }},
    {"completions-of-ones",
     [](const Work& w) {
       for (uint32_t i = 0; i < w.lane.reply().geometry.slots; ++i)
         w.lane.reply().completion(i).store(UINT64_MAX, kRelaxed);
     }},
    {"completions-far-ahead",
     [](const Work& w) {
       for (uint32_t i = 0; i < w.lane.reply().geometry.slots; ++i) {
         w.lane.reply().completion(i).store(RingEntry(1'000'000 + i, 0xffff - i), kRelaxed);
       }
     }},
    {"completions-without-end",
     [](const Work& w) {
       static std::atomic<bool> running{false};
       if (running.exchange(true)) return;
       std::thread([reply = w.lane.reply()] {
         for (uint64_t position = 0;; ++position) reply.completion(position).store(RingEntry(position, 0), kRelaxed);
       }).detach();
     }},
    {"events-without-end",
     [](const Work& w) {
       static std::atomic<bool> running{false};
       if (running.exchange(true)) return;
       std::thread([fd = w.event_fd] {
         const std::vector<char> bytes(65536, 1);
         for (;;) static_cast<void>(!write(fd, bytes.data(), bytes.size()));
       }).detach();
     }},
    {"event-pipe-made-blocking", [](const Work& w) { fcntl(w.event_read_fd, F_SETFL, 0); }},
    {"drains-for-ever",
     [](const Work& w) { w.lane.reply().engine().state.store(kLaneDraining, std::memory_order_release); }},
    {"closes-without-a-reason",
     [](const Work& w) {
       w.lane.reply().engine().close_reason.store(0xffffffff, kRelaxed);
       w.lane.reply().engine().state.store(kLaneClosed, std::memory_order_release);
     }},
    {"closes-with-ok",
     [](const Work& w) { w.lane.reply().engine().state.store(kLaneClosed, std::memory_order_release); }},
    {"state-of-noise",
     [](const Work& w) { w.lane.reply().engine().state.store(0xdeadbeef, std::memory_order_release); }},
    {"dies", [](const Work&) { _exit(0); }},
};

void Serve(const std::string& behaviour, Offer* offer, int socket) {
  SubmissionReader submissions(offer->lane.request());
  CompletionWriter completions(offer->lane.reply());
  const auto found = kAnswerers.find(behaviour);
  for (;;) {
    uint32_t slot;
    if (submissions.Next(&slot) == SubmissionReader::Take::kTaken) {
      const uint64_t sequence = offer->lane.request().request(slot).sequence.load(kRelaxed);
      if (found != kAnswerers.end()) {
        found->second({offer->lane, offer->event_write.get(), offer->event_read.get(), slot, sequence, &completions});
      }
      continue;
    }
    offer->page.page()->heartbeat_ns.store(MonotonicNs(), kRelaxed);
    pollfd item = {socket, POLLRDHUP, 0};
    if (poll(&item, 1, 1) == 1) return;
  }
}

void MakeOffer(const HelloMessage& hello, uint64_t lane_id, const std::string& behaviour, Offer* offer) {
  const LaneGeometry geometry = {hello.slots == 0 ? 16 : hello.slots, 4096, 48};
  const uint64_t generation = behaviour == "another-generation-each-time" ? kGeneration + lane_id : kGeneration;
  offer->lane = LaneMemory::Create(geometry, LaneIdentity{generation, lane_id, {}}).value();
  offer->page = EnginePageMemory::Create(generation).value();
  offer->page.page()->heartbeat_ns.store(MonotonicNs(), kRelaxed);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
  offer->event_read = UniqueFd(ends[0]);
  offer->event_write = UniqueFd(ends[1]);
  WelcomeMessage& welcome = offer->welcome;
  welcome.magic = kHandshakeMagic;
  welcome.layout_major = kLayoutMajor;
  welcome.slots = geometry.slots;
  welcome.width = geometry.width;
  welcome.text_bytes_max = geometry.text_bytes_max;
  welcome.tokens_max = 128;
  welcome.engine_generation = generation;
  welcome.lane_id = lane_id;
  welcome.engine_now_ns = behaviour == "clock-of-another-world" ? UINT64_MAX : MonotonicNs();
  std::snprintf(welcome.model, sizeof(welcome.model), "fake");
  const bool other_model = behaviour == "another-model-each-time" && lane_id > 1;
  std::snprintf(welcome.identity, sizeof(welcome.identity), "%064d", other_model ? static_cast<int>(lane_id) : 1);
  offer->fds.resize(kWelcomeFds);
  offer->fds[kFdRequest] = offer->lane.request_fd();
  offer->fds[kFdReply] = offer->lane.reply_fd();
  offer->fds[kFdTail] = offer->lane.tail_fd();
  offer->fds[kFdPage] = offer->page.fd();
  offer->fds[kFdEvent] = offer->event_read.get();
}

// SendMessage of the library allows five descriptors; a liar sends as many as it likes.
void SendOffer(int socket, const Offer& offer) {
  iovec part = {const_cast<WelcomeMessage*>(&offer.welcome), offer.welcome_bytes};
  std::vector<char> control(CMSG_SPACE(sizeof(int) * offer.fds.size()));
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!offer.fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * offer.fds.size());
    std::memcpy(CMSG_DATA(header), offer.fds.data(), sizeof(int) * offer.fds.size());
  }
  static_cast<void>(sendmsg(socket, &message, MSG_NOSIGNAL));
}

void Handle(const std::string& behaviour, UniqueFd socket, uint64_t lane_id) {
  size_t fds_received, received;
  HelloMessage hello = {};
  if (behaviour == "hangs-up") return;
  if (ReceiveMessage(socket.get(), &hello, sizeof(hello), nullptr, 0, &fds_received, &received, Soon()) !=
      MessageOutcome::kOk) {
    return;
  }
  pollfd hang_up = {socket.get(), POLLRDHUP, 0};
  if (behaviour == "says-nothing") return static_cast<void>(poll(&hang_up, 1, -1));
  if (behaviour == "says-garbage") {
    const std::vector<char> garbage(sizeof(WelcomeMessage), 'g');
    static_cast<void>(send(socket.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL));
    return static_cast<void>(poll(&hang_up, 1, -1));
  }
  Offer offer;
  MakeOffer(hello, lane_id, behaviour, &offer);
  if (const auto spoil = kOffers.find(behaviour); spoil != kOffers.end()) spoil->second(&offer);
  SendOffer(socket.get(), offer);
  LockedMessage locked = {};
  if (ReceiveMessage(socket.get(), &locked, sizeof(locked), nullptr, 0, &fds_received, &received, Soon()) !=
      MessageOutcome::kOk) {
    return;
  }
  if (behaviour == "never-serves") return static_cast<void>(poll(&hang_up, 1, -1));
  ServingMessage serving = {kHandshakeMagic, 0, 0};
  if (behaviour == "serving-refused") serving.status = 0xffffffff;
  if (behaviour == "serving-garbage") serving.magic = 3;
  if (SendMessage(socket.get(), &serving, sizeof(serving), nullptr, 0, Soon()) != MessageOutcome::kOk) return;
  if (behaviour == "hangs-up-after-serving") return;
  Serve(behaviour, &offer, socket.get());
}

int Main(const std::string& behaviour, const std::string& path) {
  const UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "%s", path.c_str());
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return 2;
  if (listen(listener.get(), 64) != 0) return 2;
  std::puts("ready");
  std::fflush(stdout);
  for (uint64_t lane_id = 1;; ++lane_id) {
    const int connection = accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) return 3;
    std::thread([behaviour, connection, lane_id] { Handle(behaviour, UniqueFd(connection), lane_id); }).detach();
  }
}

}  // namespace
}  // namespace sutra::test

int main(int argc, char** argv) { return argc == 3 ? sutra::test::Main(argv[1], argv[2]) : 2; }
