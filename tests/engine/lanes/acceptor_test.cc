// The attach handshake, message by message, with a client that sends what no library sends.
#include "engine/lanes/acceptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/layout.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

bool lock_is_held = true;
int asked_pid = -1;
bool FakePeerAlive(int, int pid) {
  asked_pid = pid;
  return lock_is_held;
}

constexpr LaneShare kMuch = {.lanes = 256, .bytes = 8ull << 30};
constexpr ClientTable::Limits kAmple = {.total = kMuch, .per_uid = kMuch, .per_client = kMuch};

class AcceptorTest : public ::testing::Test {
 protected:
  AcceptorTest() {
    lock_is_held = true;
    options_.model.name = "fake";
    options_.model.identity = std::string(64, 'a');
    options_.model.width = 4;
    options_.model.tokens_max = 64;
    options_.engine_generation = 77;
    options_.text_bytes_max = 4096;
    options_.slots_default = 8;
    options_.peer_alive = FakePeerAlive;
    options_.quota = kAmple;
    options_.attach_rate_max = 200;
    options_.stats = stats_->writer();
    options_.log = [this](LogLevel, const std::string& line) { log_.push_back(line); };
    page_ = std::move(EnginePageMemory::Create(77)).value();
    options_.engine_page_fd = page_.fd();
  }

  void Listen() {
    listener_.reset();  // a live one is never replaced
    Result<ListeningSocket> listener = ListeningSocket::Open(path_, 0600);
    ASSERT_TRUE(listener.ok()) << listener.status().message();
    listener_.emplace(std::move(listener).value());
    acceptor_ = std::make_unique<Acceptor>(
        options_, Acceptor::Watcher{[this](int, uint64_t id) { ids_.push_back(id); }, [](int) {},
                                    [this](AttachedLane lane) { attached_.push_back(std::move(lane)); }});
    ASSERT_TRUE(acceptor_->Start().ok());
  }
  // The acceptor's time. Tests of rates stop it, or a busy machine would earn their clients more than they ask for.
  uint64_t Now() const { return stopped_ns_ != 0 ? stopped_ns_ : MonotonicNs(); }
  void StopTime() { stopped_ns_ = MonotonicNs(); }
  UniqueFd Connect() {
    UniqueFd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_TRUE(acceptor_->OnListen(listener_->fd(), Now()));
    return client;
  }
  static HelloMessage Hello() {
    HelloMessage hello = {};
    hello.magic = kHandshakeMagic;
    hello.layout_major = kLayoutMajor;
    hello.layout_minor = kLayoutMinor;
    return hello;
  }
  void Send(const UniqueFd& client, const void* bytes, size_t size) {
    EXPECT_EQ(send(client.get(), bytes, size, 0), static_cast<ssize_t>(size));
    acceptor_->OnReady(ids_.back(), Now());
    Settle();
  }
  // What the loop does until no client waits for the engine.
  void Settle() {
    while (acceptor_->making() > 0) {
      pollfd item = {acceptor_->made_fd(), POLLIN, 0};
      poll(&item, 1, -1);
      acceptor_->OnMade(Now());
    }
  }
  void ExpectItsLockIsNotTaken(const UniqueFd& client, uint64_t lane_id) {
    const LockedMessage locked = {kHandshakeMagic, lane_id};
    Send(client, &locked, sizeof(locked));
    ServingMessage serving = {};
    EXPECT_EQ(recv(client.get(), &serving, sizeof(serving), 0), static_cast<ssize_t>(sizeof(serving)));
    EXPECT_EQ(serving.status, static_cast<uint32_t>(StatusCode::kProtocolViolation));
    EXPECT_TRUE(attached_.empty());
  }
  // Sends a hello and reads the answer; the descriptors are closed.
  WelcomeMessage Ask(const UniqueFd& client, const HelloMessage& hello, size_t* fd_count = nullptr) {
    Send(client, &hello, sizeof(hello));
    WelcomeMessage welcome = {};
    int fds[kWelcomeFds];
    size_t fds_received = 0, received = 0;
    EXPECT_EQ(ReceiveMessage(client.get(), &welcome, sizeof(welcome), fds, kWelcomeFds, &fds_received, &received,
                             MonotonicNs() + kNsPerSecond),
              MessageOutcome::kOk);
    for (size_t i = 0; i < fds_received; ++i) close(fds[i]);
    if (fd_count != nullptr) *fd_count = fds_received;
    return welcome;
  }
  // A refusal: status, words in the message, no descriptor, and the connection is over.
  void ExpectRefused(const HelloMessage& hello, const std::string& words) {
    const size_t pending_before = acceptor_->pending();
    const UniqueFd client = Connect();
    size_t fd_count = 0;
    const WelcomeMessage welcome = Ask(client, hello, &fd_count);
    EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kRefused));
    EXPECT_NE(std::string(welcome.message).find(words), std::string::npos) << welcome.message;
    EXPECT_EQ(fd_count, 0u);
    EXPECT_EQ(acceptor_->pending(), pending_before);
    char byte;
    EXPECT_EQ(recv(client.get(), &byte, 1, 0), 0);
  }
  // Of a client that says nothing itself.
  static WelcomeMessage Welcome(const UniqueFd& client) {
    WelcomeMessage welcome = {};
    EXPECT_EQ(recv(client.get(), &welcome, sizeof(welcome), MSG_DONTWAIT), static_cast<ssize_t>(sizeof(welcome)));
    return welcome;
  }
  uint64_t Count(Counter counter) { return stats_->writer().Get(counter); }
  uint64_t refused() { return stats_->writer().Get(Counter::kAttachesRefused); }

  const test::TempDir directory_;
  const std::string path_ = directory_ / "s";
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  EnginePageMemory page_;
  Acceptor::Options options_;
  std::optional<ListeningSocket> listener_;
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<uint64_t> ids_;
  uint64_t stopped_ns_ = 0;  // 0 = it goes on
  std::vector<AttachedLane> attached_;
  std::vector<std::string> log_;
};

TEST_F(AcceptorTest, AHonestClientGetsItsLane) {
  Listen();
  const UniqueFd client = Connect();
  HelloMessage hello = Hello();
  std::strcpy(hello.client_name, "te\nst");
  size_t fd_count = 0;
  const WelcomeMessage welcome = Ask(client, hello, &fd_count);
  EXPECT_EQ(welcome.status, 0u) << welcome.message;
  EXPECT_EQ(fd_count, size_t{kWelcomeFds});
  EXPECT_EQ(welcome.slots, 8u);
  EXPECT_EQ(welcome.width, 4u);
  EXPECT_EQ(welcome.tokens_max, 64u);
  EXPECT_EQ(welcome.engine_generation, 77u);
  EXPECT_STREQ(welcome.model, "fake");
  EXPECT_TRUE(attached_.empty());

  const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
  Send(client, &locked, sizeof(locked));
  ServingMessage serving = {};
  EXPECT_EQ(recv(client.get(), &serving, sizeof(serving), 0), static_cast<ssize_t>(sizeof(serving)));
  EXPECT_EQ(serving.status, 0u);
  ASSERT_EQ(attached_.size(), 1u);
  EXPECT_EQ(attached_[0].lane->id(), welcome.lane_id);
  EXPECT_EQ(attached_[0].lane->client()->uid, getuid());
  EXPECT_EQ(attached_[0].lane->client()->name, "te?st");
  EXPECT_EQ(acceptor_->pending(), 0u);
}

TEST_F(AcceptorTest, WhatTheModelIsNotIsRefusedWithBothValues) {
  Listen();
  HelloMessage hello = Hello();
  hello.width = 384;
  ExpectRefused(hello, "4 numbers, not 384");
  hello = Hello();
  std::strcpy(hello.model, "bge");
  ExpectRefused(hello, "fake");
  hello = Hello();
  hello.layout_major = 9;
  ExpectRefused(hello, "layout 9.1, this engine 3.1");
  EXPECT_EQ(refused(), 3u);
}

// Its hello has the same size; of the answer it can read the first bytes, which no layout moves.
TEST_F(AcceptorTest, ALibraryOfLayout1IsRefusedAndBothVersionsAreNamed) {
  Listen();
  HelloMessage hello = Hello();
  hello.layout_major = 1;
  ExpectRefused(hello, "the client speaks lane layout 1.1, this engine 3.1");
  EXPECT_EQ(offsetof(WelcomeMessage, layout_major), 8u);
  EXPECT_EQ(offsetof(WelcomeMessage, status), 12u);
}

TEST_F(AcceptorTest, TheModelMayBeNamedByItsIdentity) {
  Listen();
  HelloMessage hello = Hello();
  std::strcpy(hello.model, "aaaaaaaaaa");
  EXPECT_EQ(Ask(Connect(), hello).status, 0u);
  std::strcpy(hello.model, "fake");
  EXPECT_EQ(Ask(Connect(), hello).status, 0u);
  std::strcpy(hello.model, "aaaaaaaaab");
  EXPECT_NE(Ask(Connect(), hello).status, 0u);
  std::strcpy(hello.model, "aaa");  // too short for an identity
  EXPECT_NE(Ask(Connect(), hello).status, 0u);
}

TEST_F(AcceptorTest, SizesOutsideTheLimitsAreRefused) {
  Listen();
  HelloMessage hello = Hello();
  hello.slots = 100;
  ExpectRefused(hello, "power of two");
  hello.slots = 1u << 31;
  ExpectRefused(hello, "power of two");
  hello = Hello();
  hello.text_bytes_max = 4097;
  ExpectRefused(hello, "--text-bytes-max");
  hello.text_bytes_max = 1;
  EXPECT_EQ(Ask(Connect(), hello).text_bytes_max, kTextHeadBytes);
}

TEST_F(AcceptorTest, QuotasAreChargedUntilTheLaneIsGone) {
  options_.quota.total.lanes = 1;
  Listen();
  {
    const UniqueFd client = Connect();
    const WelcomeMessage welcome = Ask(client, Hello());
    const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
    Send(client, &locked, sizeof(locked));
  }
  ASSERT_EQ(attached_.size(), 1u);
  ExpectRefused(Hello(), "--lanes-max");
  const std::shared_ptr<Lane> last_reference = attached_[0].lane;
  attached_.clear();
  ExpectRefused(Hello(), "--lanes-max");
  const_cast<std::shared_ptr<Lane>&>(last_reference).reset();
  EXPECT_EQ(Ask(Connect(), Hello()).status, 0u);
}

TEST_F(AcceptorTest, TheLogOfARefusalSaysWhoAskedAndWhatItHas) {
  options_.quota.per_client.lanes = 1;
  Listen();
  HelloMessage hello = Hello();
  std::strcpy(hello.client_name, "greedy");
  const UniqueFd first = Connect();
  const WelcomeMessage welcome = Ask(first, hello);
  EXPECT_EQ(welcome.status, 0u);
  for (int refusals = 1; refusals <= 2; ++refusals) {
    EXPECT_NE(Ask(Connect(), hello).status, 0u);
    const std::string line = log_.back();
    EXPECT_NE(line.find("pid " + std::to_string(getpid()) + " (greedy): "), std::string::npos) << line;
    EXPECT_NE(line.find("it has 1 lanes of "), std::string::npos) << line;
    EXPECT_NE(line.find(" 0 texts that wait, " + std::to_string(refusals) + " refusals"), std::string::npos) << line;
  }
}

TEST_F(AcceptorTest, MemoryAndUserBoundsNameTheirOption) {
  options_.quota.total.bytes = 1 << 20;
  Listen();
  HelloMessage large = Hello();
  large.slots = 4096;
  ExpectRefused(large, "--lane-bytes-max");
  options_.quota = kAmple;
  options_.quota.per_uid.lanes = 1;
  Listen();
  const UniqueFd first = Connect();
  EXPECT_EQ(Ask(first, Hello()).status, 0u);
  ExpectRefused(Hello(), "--lanes-per-uid-max");
}

TEST_F(AcceptorTest, WhoDoesNotHoldTheLockIsNotServed) {
  Listen();
  const UniqueFd client = Connect();
  const WelcomeMessage welcome = Ask(client, Hello());
  lock_is_held = false;
  ExpectItsLockIsNotTaken(client, welcome.lane_id);
  EXPECT_EQ(acceptor_->pending(), 0u);
}

TEST_F(AcceptorTest, TheLockIsAskedForTheProcessThatConnected) {
  Listen();
  const UniqueFd client = Connect();
  const WelcomeMessage welcome = Ask(client, Hello());
  asked_pid = -1;
  const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
  Send(client, &locked, sizeof(locked));
  EXPECT_EQ(asked_pid, getpid());
  EXPECT_EQ(attached_.size(), 1u);
}

// Its socket lives on in the process that it was handed to, here: this one.
TEST_F(AcceptorTest, ASocketWhoseProcessHasEndedBringsNoLaneThoughALockIsHeld) {
  Listen();
  int pair[2] = {-1, -1};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd to_child(pair[0]), from_child(pair[1]);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) _exit(1);
    const char byte = 1;
    _exit(SendMessage(to_child.get(), &byte, 1, &fd, 1, 0) == MessageOutcome::kOk ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  char byte = 0;
  int fd = -1;
  size_t fds_received = 0, received = 0;
  ASSERT_EQ(ReceiveMessage(from_child.get(), &byte, 1, &fd, 1, &fds_received, &received, MonotonicNs() + kNsPerSecond),
            MessageOutcome::kOk);
  const UniqueFd client(fd);
  EXPECT_TRUE(acceptor_->OnListen(listener_->fd(), MonotonicNs()));
  const WelcomeMessage welcome = Ask(client, Hello());
  ExpectItsLockIsNotTaken(client, welcome.lane_id);
}

TEST_F(AcceptorTest, NonsenseInsteadOfAHelloIsDropped) {
  Listen();
  for (const size_t size : {size_t{1}, size_t{15}, size_t{16}, size_t{100}, size_t{1000}}) {
    const UniqueFd client = Connect();
    const std::vector<char> nonsense(size, 'x');
    Send(client, nonsense.data(), nonsense.size());
    EXPECT_EQ(acceptor_->pending(), 0u) << size;
  }
  const UniqueFd half = Connect();
  const HelloMessage hello = Hello();
  Send(half, &hello, sizeof(hello) / 2);  // a hello of another size belongs to another version
  EXPECT_EQ(acceptor_->pending(), 0u);
  EXPECT_TRUE(attached_.empty());
}

TEST_F(AcceptorTest, AWrongLockedMessageEndsTheAttach) {
  Listen();
  const UniqueFd client = Connect();
  const WelcomeMessage welcome = Ask(client, Hello());
  const LockedMessage other_lane = {kHandshakeMagic, welcome.lane_id + 1};
  Send(client, &other_lane, sizeof(other_lane));
  EXPECT_TRUE(attached_.empty());
  EXPECT_EQ(acceptor_->pending(), 0u);
}

TEST_F(AcceptorTest, EachStepHasASecond) {
  Listen();
  const UniqueFd silent = Connect();
  const UniqueFd slow = Connect();
  Ask(slow, Hello());
  EXPECT_EQ(acceptor_->pending(), 2u);
  acceptor_->Expire(MonotonicNs() + kNsPerSecond / 2);
  EXPECT_EQ(acceptor_->pending(), 2u);
  acceptor_->Expire(MonotonicNs() + 2 * kNsPerSecond);
  EXPECT_EQ(acceptor_->pending(), 0u);
}

TEST_F(AcceptorTest, WhatAClientSentBeforeTheLoopCouldReadItIsReadBeforeItsTimeIsUp) {
  Listen();
  const UniqueFd prompt = Connect();
  const HelloMessage hello = Hello();
  ASSERT_EQ(send(prompt.get(), &hello, sizeof(hello), 0), static_cast<ssize_t>(sizeof(hello)));
  const uint64_t late_ns = MonotonicNs() + 5 * kNsPerSecond;  // the loop was busy for that long
  acceptor_->Expire(late_ns);
  EXPECT_EQ(acceptor_->making(), 1u);
  Settle();
  acceptor_->Expire(late_ns);
  EXPECT_EQ(acceptor_->pending(), 0u) << "but a lock that never comes is waited for in vain";
  EXPECT_EQ(Count(Counter::kRefusedTimeout), 1u);
}

TEST_F(AcceptorTest, AttachesBeyondTheRateAreToldWhenToComeAgain) {
  StopTime();
  options_.attach_rate_max = 1;
  Listen();
  for (uint32_t i = 0; i < AttachRate::kBurst; ++i) {
    EXPECT_EQ(Ask(Connect(), Hello()).status, 0u) << i;
    acceptor_->OnReady(ids_.back(), Now());  // it has hung up again
  }
  const WelcomeMessage refused = Ask(Connect(), Hello());
  EXPECT_EQ(refused.status, static_cast<uint32_t>(StatusCode::kOverloaded));
  EXPECT_GT(refused.retry_after_ms, 0u);
  EXPECT_LE(refused.retry_after_ms, 1000u);
  EXPECT_NE(std::string(refused.message).find(std::to_string(refused.retry_after_ms) + " ms"), std::string::npos)
      << refused.message;
  EXPECT_NE(std::string(refused.message).find("--attach-rate-max"), std::string::npos) << refused.message;
  EXPECT_EQ(Count(Counter::kRefusedRate), 1u);
}

// Lanes that come and go: each leaves its reply memory to a client that keeps the descriptor.
TEST_F(AcceptorTest, ReplyMemoryBeyondTheRateIsRefusedWithTheTimeToComeAgain) {
  StopTime();
  options_.attach_rate_max = 1'000'000;
  HelloMessage hello = Hello();
  hello.slots = 1024;
  hello.text_bytes_max = kTextHeadBytes;
  const LaneGeometry geometry = {1024, kTextHeadBytes, 4};
  options_.quota.per_uid.bytes = geometry.charged_bytes();
  const auto at_once = static_cast<int>(geometry.charged_bytes() / geometry.reply_bytes());
  Listen();
  WelcomeMessage welcome = {};
  int accepted = 0;
  for (; accepted < 100 && welcome.status == 0; ++accepted) {
    welcome = Ask(Connect(), hello);
    acceptor_->OnReady(ids_.back(), Now());  // it has hung up again
    Settle();
  }
  EXPECT_GT(accepted, at_once);
  EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kOverloaded)) << welcome.message;
  EXPECT_GT(welcome.retry_after_ms, 0u);
  EXPECT_NE(std::string(welcome.message).find("reply memory"), std::string::npos) << welcome.message;
  EXPECT_EQ(Count(Counter::kRefusedRate), 1u);
  EXPECT_EQ(acceptor_->clients().total().lanes, 0u) << "a refusal charges nothing";
  hello.slots = 2;
  EXPECT_EQ(Ask(Connect(), hello).status, 0u) << "a small lane may come earlier";
}

TEST_F(AcceptorTest, SilentClientsCostTheirOwnUserItsPlacesAndTheNextIsToldSo) {
  Listen();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 64; ++i) silent.push_back(Connect());
  EXPECT_EQ(acceptor_->pending(), 64u);
  const UniqueFd next = Connect();
  const WelcomeMessage refused = Welcome(next);
  EXPECT_EQ(refused.status, static_cast<uint32_t>(StatusCode::kOverloaded));
  EXPECT_GT(refused.retry_after_ms, 0u);
  EXPECT_EQ(acceptor_->pending(), 64u) << "places are left for other users";
  EXPECT_EQ(Count(Counter::kRefusedPending), 1u);
  acceptor_->Expire(MonotonicNs() + 2 * kNsPerSecond);
  EXPECT_EQ(Ask(Connect(), Hello()).status, 0u);
}

TEST_F(AcceptorTest, WhileTheEngineDrainsEveryClientIsRefusedAtOnce) {
  Listen();
  const UniqueFd silent = Connect(), mapping = Connect();
  EXPECT_EQ(Ask(mapping, Hello()).status, 0u);
  acceptor_->Drain(MonotonicNs());
  EXPECT_EQ(acceptor_->pending(), 0u);
  EXPECT_EQ(Welcome(silent).status, static_cast<uint32_t>(StatusCode::kShuttingDown));
  ServingMessage serving = {};
  EXPECT_EQ(recv(mapping.get(), &serving, sizeof(serving), 0), static_cast<ssize_t>(sizeof(serving)));
  EXPECT_EQ(serving.status, static_cast<uint32_t>(StatusCode::kShuttingDown));
  const UniqueFd late = Connect();
  EXPECT_EQ(Welcome(late).status, static_cast<uint32_t>(StatusCode::kShuttingDown)) << "without a hello";
  EXPECT_EQ(Count(Counter::kRefusedDraining), 3u);
  EXPECT_EQ(acceptor_->pending(), 0u);
}

TEST_F(AcceptorTest, EveryRefusalIsCountedOnceUnderItsReason) {
  options_.quota.total = {.lanes = 1, .bytes = 1 << 20};
  Listen();
  HelloMessage hello = Hello();
  hello.layout_major = 1;
  Ask(Connect(), hello);
  hello = Hello();
  hello.width = 5;
  Ask(Connect(), hello);
  hello = Hello();
  hello.slots = 4096;
  Ask(Connect(), hello);
  const UniqueFd first = Connect();
  Ask(first, Hello());
  Ask(Connect(), Hello());
  Send(Connect(), "nonsense", 8);
  const Counter reasons[] = {Counter::kRefusedVersion, Counter::kRefusedModel, Counter::kRefusedBytes,
                             Counter::kRefusedLanes, Counter::kRefusedProtocol};
  for (const Counter reason : reasons) EXPECT_EQ(Count(reason), 1u) << LabelOf(reason);
  EXPECT_EQ(refused(), std::size(reasons));
}

TEST_F(AcceptorTest, WhoConnectsAndVanishesLeavesNothing) {
  options_.attach_rate_max = 1'000'000;
  options_.quota.total.lanes = 4;
  Listen();
  for (int i = 0; i < 200; ++i) {
    {
      const UniqueFd client = Connect();
      if (i % 2 == 0) {
        EXPECT_EQ(Ask(client, Hello()).status, 0u);
      }
    }
    acceptor_->OnReady(ids_.back(), MonotonicNs());
  }
  EXPECT_EQ(acceptor_->pending(), 0u);
  EXPECT_EQ(Ask(Connect(), Hello()).status, 0u);
}

// A client that sends descriptors along cannot make the engine hold or close them: the kernel refuses them (from
// 6.16), or drops them in recv. If they were received and closed, the engine's own POSIX lock on the reply memfd
// would be gone.
TEST_F(AcceptorTest, DescriptorsSentByAClientAreNotReceived) {
  Listen();
  const UniqueFd client = Connect();
  const HelloMessage hello = Hello();
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  const int fds[] = {write_end.get()};
  const MessageOutcome sent = SendMessage(client.get(), &hello, sizeof(hello), fds, 1, 0);
  if (sent == MessageOutcome::kError) {
    EXPECT_EQ(errno, EPERM);
  } else {
    EXPECT_EQ(sent, MessageOutcome::kOk);
  }
  acceptor_->OnReady(ids_.back(), MonotonicNs());
  write_end = UniqueFd();
  char byte;
  EXPECT_EQ(read(read_end.get(), &byte, 1), 0);  // the last write end is gone
}

// Out of descriptors: the client in front is told so, instead of waiting for its timeout; the spare one comes back.
TEST_F(AcceptorTest, WithoutDescriptorsAClientIsToldAndTheNextIsServedOnceThereAreSome) {
  Listen();
  const auto connect_only = [this] {
    UniqueFd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return client;
  };
  EXPECT_TRUE(acceptor_->OnListen(listener_->fd(), MonotonicNs()));  // opens the spare descriptor
  const UniqueFd first = connect_only(), second = connect_only();
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = dup(STDERR_FILENO);
  close(next);
  for (int round = 0; round < 2; ++round) {
    const rlimit none = {.rlim_cur = static_cast<rlim_t>(next), .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    EXPECT_FALSE(acceptor_->OnListen(listener_->fd(), MonotonicNs()));
    const WelcomeMessage welcome = Ask(round == 0 ? first : second, Hello());
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kOutOfMemory));
    EXPECT_NE(std::string(welcome.message).find("LimitNOFILE="), std::string::npos) << welcome.message;
    EXPECT_EQ(acceptor_->pending(), 0u);
  }
  const UniqueFd third = Connect();
  EXPECT_EQ(Ask(third, Hello()).status, 0u);
}

// Its identity is a descriptor: without one it could be taken for a second client, with a share of its own.
TEST_F(AcceptorTest, AClientThatCannotBeIdentifiedForWantOfDescriptorsIsToldSo) {
  Listen();
  const UniqueFd client = Connect();
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = dup(STDERR_FILENO);
  close(next);
  const rlimit none = {.rlim_cur = static_cast<rlim_t>(next), .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const WelcomeMessage welcome = Ask(client, Hello());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kOutOfMemory));
  EXPECT_NE(std::string(welcome.message).find("no descriptor left"), std::string::npos) << welcome.message;
  EXPECT_EQ(acceptor_->clients().size(), 0u);
  EXPECT_EQ(Count(Counter::kRefusedMemory), 1u);
}

}  // namespace
}  // namespace sutra
