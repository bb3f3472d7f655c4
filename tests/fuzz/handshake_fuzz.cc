// The engine's side of an attach against whatever arrives on its socket: any bytes, in any number of messages, with any
// number of descriptors, from several connections at once.
// Oracle: nothing is served without a valid hello and a held lock, and no descriptor stays open.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "engine/lanes/acceptor.h"
#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/layout.h"
#include "shm/stats/stats_segment.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/kit/temp_dir.h"

namespace sutra::fuzz {
namespace {

// The number of the next descriptor: unchanged means that none was left open below it.
int NextDescriptor() {
  const int fd = dup(STDERR_FILENO);
  FUZZ_CHECK(fd >= 0);
  close(fd);
  return fd;
}

struct World {
  test::TempDir directory;
  sockaddr_un address = {};
  std::optional<ListeningSocket> listener;
  UniqueFd device;
  std::unique_ptr<StatsSegment> stats = StatsSegment::CreatePrivate();

  World() : device(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
    Result<ListeningSocket> made = ListeningSocket::Open(directory / "s", 0600);
    FUZZ_CHECK(made.ok());
    listener.emplace(std::move(made).value());
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", directory.path().c_str());
  }

  int Connect() const {
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
  }
};

bool lock_is_held;
bool AnswerLock(int, int) { return lock_is_held; }

void Send(int socket, const void* bytes, size_t size, const std::vector<int>& fds) {
  iovec part = {const_cast<void*>(bytes), size};
  std::vector<char> control(CMSG_SPACE(sizeof(int) * fds.size()));
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  static_cast<void>(sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

// A valid hello with one part corrupted.
HelloMessage HelloFrom(Input* input) {
  HelloMessage hello = {};
  hello.magic = kHandshakeMagic;
  hello.layout_major = kLayoutMajor;
  hello.layout_minor = kLayoutMinor;
  hello.slots = 4;
  hello.text_bytes_max = 256;
  switch (input->Below(8)) {
    case 0: hello.slots = static_cast<uint32_t>(input->Edge(kSlotsMax)); break;
    case 1: hello.text_bytes_max = static_cast<uint32_t>(input->Edge(4096)); break;
    case 2: hello.width = static_cast<uint32_t>(input->Edge(8)); break;
    case 3: hello.layout_major = input->U16(); break;
    case 4: std::memcpy(hello.model, "fake\0", 5); break;
    case 5: std::memset(hello.model, input->Byte(), sizeof(hello.model)); break;
    case 6: std::memset(hello.client_name, input->Byte(), sizeof(hello.client_name)); break;
    default: break;
  }
  return hello;
}

class Attack {
 public:
  Attack(World* world, Input* input) : world_(world), input_(input) {
    Acceptor::Options options;
    options.model.name = "fake";
    options.model.identity = std::string(64, 'a');
    options.model.width = 8;
    options.model.tokens_max = 16;
    options.slots_default = 4;
    options.text_bytes_max = 4096;
    options.engine_generation = 7;
    options.engine_page_fd = world->device.get();
    options.peer_alive = AnswerLock;
    options.quota = {.total = {4, 1 << 20}, .per_uid = {3, 1 << 20}, .per_client = {3, 1 << 20}};
    options.attach_rate_max = 200;
    options.stats = world->stats->writer();
    options.log = [](LogLevel, const std::string& line) {
      for (const char c : line) FUZZ_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    };
    Acceptor::Watcher watcher;
    watcher.watch = [this](int fd, uint64_t id) { FUZZ_CHECK(watched_.emplace(fd, id).second); };
    watcher.unwatch = [this](int fd) { FUZZ_CHECK(watched_.erase(fd) == 1); };
    watcher.attached = [this](AttachedLane lane) {
      FUZZ_CHECK(lane_is_due_);
      FUZZ_CHECK(lane.lane->geometry().valid() && lane.lane->geometry().text_bytes_max <= 4096);
      lanes_.push_back(std::move(lane));
    };
    acceptor_ = std::make_unique<Acceptor>(std::move(options), std::move(watcher));
    FUZZ_CHECK(acceptor_->Start().ok());
  }
  ~Attack() {
    for (const int fd : clients_) close(fd);
  }

  void Run() {
    for (int step = 0; step < 60 && !input_->empty(); ++step) {
      now_ns_ += uint64_t{input_->Byte()} * kNsPerMs;
      lock_is_held = input_->Below(4) != 0;
      switch (input_->Below(8)) {
        case 0:
          if (clients_.size() < 8) clients_.push_back(world_->Connect());
          break;
        case 1: Expire(); break;
        case 2: HangUp(); break;
        case 3: SendBytes(); break;
        case 4: SendHello(); break;
        case 5: SendLocked(); break;
        case 6:
          if (!lanes_.empty()) lanes_.pop_back();
          break;
        default: Serve(); break;
      }
    }
    Serve();
    // What a client has sent is read first, and may take it one step further: hello, lock, nothing more to read.
    for (int i = 0; i < 3; ++i) {
      now_ns_ += 10 * kNsPerSecond;
      Expire();
    }
    FUZZ_CHECK(acceptor_->pending() == 0 && watched_.empty());
  }

 private:
  // What the loop does for each readable descriptor.
  void Serve() {
    lane_is_due_ = lock_is_held;
    FUZZ_CHECK(acceptor_->OnListen(world_->listener->fd(), now_ns_));
    const std::map<int, uint64_t> readable = watched_;
    for (const auto& [fd, id] : readable) acceptor_->OnReady(id, now_ns_);
    Settle();
    acceptor_->OnReady(input_->U64(), now_ns_);  // an event of a connection that is gone
    lane_is_due_ = false;
  }

  void Expire() {
    lane_is_due_ = lock_is_held;
    acceptor_->Expire(now_ns_);
    Settle();
    lane_is_due_ = false;
  }
  void Settle() {
    while (acceptor_->making() > 0) {
      pollfd made = {acceptor_->made_fd(), POLLIN, 0};
      poll(&made, 1, -1);
      acceptor_->OnMade(now_ns_);
    }
  }

  int* Client() {
    return clients_.empty() ? nullptr : &clients_[input_->Below(static_cast<uint32_t>(clients_.size()))];
  }

  void HangUp() {
    int* client = Client();
    if (client == nullptr) return;
    close(*client);
    std::swap(*client, clients_.back());
    clients_.pop_back();
  }

  void SendBytes() {
    const int* client = Client();
    if (client == nullptr) return;
    std::vector<int> fds(input_->Below(8) == 0 ? 64 : input_->Below(3), world_->device.get());
    const std::string_view bytes = input_->Take(input_->Below(200));
    Send(*client, bytes.data(), bytes.size(), fds);
  }

  void SendHello() {
    const int* client = Client();
    if (client == nullptr) return;
    const HelloMessage hello = HelloFrom(input_);
    const size_t size = input_->Below(4) == 0 ? input_->Byte() : sizeof(hello);
    Send(*client, &hello, std::min(size, sizeof(hello)), {});
  }

  void SendLocked() {
    const int* client = Client();
    if (client == nullptr) return;
    LockedMessage locked = {input_->Below(4) == 0 ? input_->U64() : kHandshakeMagic, input_->Byte() % 8u};
    WelcomeMessage welcome = {};
    int fds[kMessageFdsMax];
    size_t fds_received = 0, received = 0;
    const MessageOutcome outcome = ReceiveMessage(*client, &welcome, sizeof(welcome), fds,
                                                  {kWelcomeFds, kWelcomeFdsMax}, &fds_received, &received, 0);
    if (outcome == MessageOutcome::kOk) {
      for (size_t i = 0; i < fds_received; ++i) close(fds[i]);
      if (input_->Below(4) != 0) locked.lane_id = welcome.lane_id;
      FUZZ_CHECK((welcome.status == 0) == (fds_received >= kWelcomeFds));
      FUZZ_CHECK(welcome.message[sizeof(welcome.message) - 1] == '\0');
    }
    Send(*client, &locked, sizeof(locked), {});
  }

  World* const world_;
  Input* const input_;
  std::unique_ptr<Acceptor> acceptor_;
  std::map<int, uint64_t> watched_;
  std::vector<int> clients_;
  std::vector<AttachedLane> lanes_;
  uint64_t now_ns_ = 1;
  bool lane_is_due_ = false;
};

// The message layer alone, as both sides use it: a message of any size, with any descriptors, for a reader that expects
// any number.
void FuzzMessage(World* world, Input* input) {
  int pair[2];
  FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
  const std::string_view sent = input->Take(input->Below(64));
  const std::vector<int> fds(input->Below(4) == 0 ? 64 : input->Below(7), world->device.get());
  Send(pair[0], sent.data(), sent.size(), fds);
  char bytes[64] = {};
  const size_t wanted = input->Below(65);
  const size_t fds_least = input->Below(kMessageFdsMax + 1);
  const size_t fds_most = fds_least + input->Below(static_cast<uint32_t>(kMessageFdsMax - fds_least) + 1);
  int arrived[kMessageFdsMax];
  size_t fds_received = 99, received = 99;
  const MessageOutcome outcome =
      ReceiveMessage(pair[1], bytes, wanted, arrived, {fds_least, fds_most}, &fds_received, &received, 0);
  if (outcome == MessageOutcome::kOk) {
    FUZZ_CHECK(sent.size() == wanted && (fds_received == 0 || (fds_received >= fds_least && fds_received <= fds_most)));
    FUZZ_CHECK(fds_received == 0 || fds_received == fds.size());
    FUZZ_CHECK(std::string_view(bytes, wanted) == sent);
    for (size_t i = 0; i < fds_received; ++i) close(arrived[i]);
  }
  close(pair[0]);
  close(pair[1]);
}

}  // namespace

SUTRA_FUZZ_TARGET(handshake, 2048) {
  static World world;
  static_cast<void>(MonotonicNs());
  const int before = NextDescriptor();
  Input input(data, size);
  if (input.Below(4) == 0) {
    FuzzMessage(&world, &input);
  } else {
    Attack(&world, &input).Run();
  }
  FUZZ_CHECK(NextDescriptor() == before);
}

}  // namespace sutra::fuzz
