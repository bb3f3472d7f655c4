// What the acceptor does with connections that are no client's: it hands a control session over with its first message
// unread, whoever sent it, and keeps nobody out who may control the engine.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/lanes/acceptor.h"
#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/control_messages.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class AcceptorControlTest : public ::testing::Test {
 protected:
  AcceptorControlTest() : listener_(std::move(ListeningSocket::Open(path_, 0600)).value()) {
    Acceptor::Options options;
    options.model = {.name = "fake", .identity = std::string(64, 'a'), .width = 4, .tokens_max = 64};
    options.attach_rate_max = 200;
    options.stats = stats_->writer();
    acceptor_.emplace(std::move(options),
                      Acceptor::Watcher{.watch = [this](int, uint64_t id) { ids_.push_back(id); },
                                        .unwatch = [this](int) { ++unwatched_; },
                                        .attached = [](AttachedLane) {},
                                        .may_control = [this](int, const Peer&) { return may_control_; },
                                        .control =
                                            [this](UniqueFd socket, const Peer& peer) {
                                              handed_.push_back(std::move(socket));
                                              peer_ = peer;
                                            }});
  }

  UniqueFd Connect(bool served = true) {
    UniqueFd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size());
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    if (served) EXPECT_TRUE(acceptor_->OnListen(listener_.fd(), MonotonicNs()));
    return client;
  }
  void Say(const UniqueFd& client, uint64_t magic) {
    ControlHeader header = {};
    header.magic = magic;
    header.request_id = 4711;
    EXPECT_EQ(send(client.get(), &header, sizeof(header), 0), static_cast<ssize_t>(sizeof(header)));
    if (!ids_.empty()) acceptor_->OnReady(ids_.back(), MonotonicNs());
  }
  static StatusCode Refusal(const UniqueFd& client) {
    WelcomeMessage welcome = {};
    EXPECT_EQ(recv(client.get(), &welcome, sizeof(welcome), MSG_DONTWAIT), static_cast<ssize_t>(sizeof(welcome)));
    return static_cast<StatusCode>(welcome.status);
  }

  const test::TempDir directory_;
  const std::string path_ = directory_ / "s";
  ListeningSocket listener_;
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  bool may_control_ = true;
  std::vector<uint64_t> ids_;
  int unwatched_ = 0;
  std::vector<UniqueFd> handed_;
  Peer peer_;
  std::optional<Acceptor> acceptor_;
};

TEST_F(AcceptorControlTest, AControlSessionIsHandedOverWithItsMessageUnread) {
  const UniqueFd client = Connect();
  Say(client, kControlMagic);
  ASSERT_EQ(handed_.size(), 1U);
  EXPECT_EQ(peer_.pid, getpid());
  EXPECT_EQ(peer_.uid, geteuid());
  EXPECT_EQ(acceptor_->pending(), 0U);
  EXPECT_EQ(unwatched_, 1);
  ControlHeader header = {};
  EXPECT_EQ(recv(handed_[0].get(), &header, sizeof(header), MSG_DONTWAIT), static_cast<ssize_t>(sizeof(header)));
  EXPECT_EQ(header.request_id, 4711U);
  acceptor_->OnReady(ids_.back(), MonotonicNs());  // an event that was on its way
  acceptor_->Expire(MonotonicNs() + 100 * kNsPerSecond);
  EXPECT_EQ(stats_->writer().Get(Counter::kAttachesRefused), 0U);
}

TEST_F(AcceptorControlTest, WhoMayNotControlIsHandedOverToBeTold) {
  may_control_ = false;
  Say(Connect(), kControlMagic);
  EXPECT_EQ(handed_.size(), 1U);
}

TEST_F(AcceptorControlTest, AnotherMagicIsNoControlSession) {
  Say(Connect(), kControlMagic + 1);
  EXPECT_TRUE(handed_.empty());
  EXPECT_EQ(stats_->writer().Get(Counter::kRefusedProtocol), 1U);
}

TEST_F(AcceptorControlTest, ADrainingEngineHearsWhoMayControlItAndRefusesItsAttach) {
  acceptor_->Drain(MonotonicNs());
  const UniqueFd session = Connect();
  Say(session, kControlMagic);
  EXPECT_EQ(handed_.size(), 1U);
  const UniqueFd client = Connect();
  Say(client, kHandshakeMagic);
  EXPECT_EQ(Refusal(client), StatusCode::kShuttingDown);
}

TEST_F(AcceptorControlTest, ADrainingEngineRefusesAllOthersAtOnce) {
  may_control_ = false;
  acceptor_->Drain(MonotonicNs());
  EXPECT_EQ(Refusal(Connect()), StatusCode::kShuttingDown);
}

TEST_F(AcceptorControlTest, AfterTheLastDrainNobodyIsWaitedFor) {
  acceptor_->Drain(MonotonicNs());
  const UniqueFd silent = Connect();
  EXPECT_EQ(acceptor_->pending(), 1U);
  acceptor_->Drain(MonotonicNs(), true);
  EXPECT_EQ(Refusal(silent), StatusCode::kShuttingDown);
  EXPECT_EQ(Refusal(Connect()), StatusCode::kShuttingDown);
  EXPECT_EQ(acceptor_->pending(), 0U);
}

TEST_F(AcceptorControlTest, ADrainIsNoWayAroundTheBoundOfSilentConnections) {
  acceptor_->Drain(MonotonicNs());
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(Connect());
  EXPECT_EQ(acceptor_->pending(), 64U);
  EXPECT_EQ(Refusal(silent.back()), StatusCode::kShuttingDown);
}

}  // namespace
}  // namespace sutra
