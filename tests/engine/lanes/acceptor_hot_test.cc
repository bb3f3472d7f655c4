// Who gets the descriptor of the hot table: may attach is one right, to read what is hot another.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/lanes/acceptor.h"
#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/layout.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

constexpr uint32_t kSlots = 41;
constexpr LaneShare kMuch = {.lanes = 256, .bytes = 8ull << 30};

HelloMessage HelloOf(uint16_t minor) {
  HelloMessage hello = {};
  hello.magic = kHandshakeMagic;
  hello.layout_major = kLayoutMajor;
  hello.layout_minor = minor;
  return hello;
}

// A client's half, which a child may play as another user. RETURNS an error's number, or 0.
struct Asker {
  UniqueFd socket;
  WelcomeMessage welcome = {};
  int fds[kWelcomeFdsMax] = {};
  size_t fd_count = 0;

  int Ask(const std::string& path, uint16_t minor) {
    socket = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return 2;
    const HelloMessage hello = HelloOf(minor);
    return send(socket.get(), &hello, sizeof(hello), 0) == sizeof(hello) ? 0 : 3;
  }
  int Hear() {
    size_t received = 0;
    const MessageOutcome outcome =
        ReceiveMessage(socket.get(), &welcome, sizeof(welcome), fds, {kWelcomeFds, kWelcomeFdsMax}, &fd_count,
                       &received, MonotonicNs() + 60 * kNsPerSecond);
    return outcome == MessageOutcome::kOk ? 0 : 4;
  }
};

class AcceptorHotTest : public ::testing::Test {
 protected:
  AcceptorHotTest() {
    options_.model.name = "fake";
    options_.model.width = 4;
    options_.text_bytes_max = 4096;
    options_.slots_default = 8;
    options_.peer_alive = [](int, int) { return true; };
    options_.quota = {.total = kMuch, .per_uid = kMuch, .per_client = kMuch};
    options_.attach_rate_max = 200;
    options_.stats = stats_->writer();
    options_.log = [](LogLevel, const std::string&) {};
    page_ = std::move(EnginePageMemory::Create(77)).value();
    options_.engine_page_fd = page_.fd();
    options_.hot_fd = table_.get();
    options_.hot_slots = kSlots;
  }
  void Listen() {
    listener_.reset();
    listener_.emplace(std::move(ListeningSocket::Open(path_, 0666)).value());
    acceptor_ = std::make_unique<Acceptor>(
        options_, Acceptor::Watcher{[this](int, uint64_t id) { id_ = id; }, [](int) {},
                                    [this](AttachedLane lane) { attached_.push_back(std::move(lane)); }});
    ASSERT_TRUE(acceptor_->Start().ok());
  }
  // Answers one client's hello.
  void Answer() {
    EXPECT_TRUE(acceptor_->OnListen(listener_->fd(), MonotonicNs()));
    acceptor_->OnReady(id_, MonotonicNs());
    while (acceptor_->making() > 0) {
      pollfd item = {acceptor_->made_fd(), POLLIN, 0};
      poll(&item, 1, -1);
      acceptor_->OnMade(MonotonicNs());
    }
  }
  // How many descriptors a child of that user and group gets, and 100 more if it is told of slots; below 10 an error.
  int CountOf(uid_t uid, gid_t gid) {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    const UniqueFd parent(pair[0]), child_end(pair[1]);
    const pid_t child = fork();
    if (child == 0) {
      Asker asker;
      int error = setgid(gid) == 0 && setuid(uid) == 0 ? asker.Ask(path_, kLayoutMinor) : 1;
      if (send(child_end.get(), "c", 1, 0) != 1) error = 5;
      if (error == 0) error = asker.Hear();
      _exit(error != 0 ? error : static_cast<int>(10 + asker.fd_count + (asker.welcome.hot_slots != 0 ? 100 : 0)));
    }
    char byte;
    EXPECT_EQ(recv(parent.get(), &byte, 1, 0), 1);
    Answer();
    int ended = 0;
    EXPECT_EQ(waitpid(child, &ended, 0), child);
    return WEXITSTATUS(ended);
  }

  const test::TempDir directory_;
  const std::string path_ = directory_ / "s";
  const UniqueFd table_ = UniqueFd(memfd_create("table", MFD_CLOEXEC));
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  EnginePageMemory page_;
  Acceptor::Options options_;
  std::optional<ListeningSocket> listener_;
  std::unique_ptr<Acceptor> acceptor_;
  uint64_t id_ = 0;
  std::vector<AttachedLane> attached_;
};

TEST_F(AcceptorHotTest, ItComesAsASixthDescriptorToALibraryThatKnowsIt) {
  Listen();
  for (const uint16_t minor : {uint16_t{0}, uint16_t{1}, uint16_t{2}}) {
    const bool known = minor > 0;
    Asker asker;
    ASSERT_EQ(asker.Ask(path_, minor), 0);
    Answer();
    ASSERT_EQ(asker.Hear(), 0);
    EXPECT_EQ(asker.fd_count, size_t{known ? kWelcomeFdsMax : kWelcomeFds});
    EXPECT_EQ(asker.welcome.hot_slots, known ? kSlots : 0u);
    struct stat sent = {}, own = {};
    EXPECT_EQ(fstat(table_.get(), &own), 0);
    EXPECT_EQ(fstat(asker.fds[asker.fd_count - 1], &sent), 0);
    EXPECT_EQ(sent.st_ino == own.st_ino, known);
    for (size_t i = 0; i < asker.fd_count; ++i) close(asker.fds[i]);
    const LockedMessage locked = {kHandshakeMagic, asker.welcome.lane_id};
    ASSERT_EQ(send(asker.socket.get(), &locked, sizeof(locked), 0), static_cast<ssize_t>(sizeof(locked)));
    acceptor_->OnReady(id_, MonotonicNs());
    ASSERT_EQ(attached_.size(), 1u);
    EXPECT_EQ(attached_[0].lane->hot(), known) << "what it hits is published, what it says is counted";
    attached_.clear();
  }
}

TEST_F(AcceptorHotTest, WithoutATableNobodyGetsOne) {
  options_.hot_fd = -1;
  Listen();
  Asker asker;
  ASSERT_EQ(asker.Ask(path_, kLayoutMinor), 0);
  Answer();
  ASSERT_EQ(asker.Hear(), 0);
  EXPECT_EQ(asker.fd_count, size_t{kWelcomeFds});
  EXPECT_EQ(asker.welcome.hot_slots, 0u);
  for (size_t i = 0; i < asker.fd_count; ++i) close(asker.fds[i]);
}

TEST_F(AcceptorHotTest, AnotherUserGetsItOnlyAsAMemberOfANamedGroup) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  constexpr uid_t kStranger = 64'123;
  constexpr gid_t kGroup = 64'124;
  ASSERT_EQ(chmod(directory_.path().c_str(), 0755), 0);
  options_.allow_uids = {kStranger};
  options_.hot_gids = {kGroup + 1};
  Listen();
  EXPECT_EQ(CountOf(kStranger, kGroup), 10 + kWelcomeFds);
  options_.hot_gids = {kGroup};
  Listen();
  EXPECT_EQ(CountOf(kStranger, kGroup), 100 + 10 + kWelcomeFdsMax);
  EXPECT_EQ(CountOf(kStranger, kGroup + 1), 10 + kWelcomeFds);
}

}  // namespace
}  // namespace sutra
