// Attacks on the attach itself: what arrives on the socket, with which descriptors, how slowly, how often.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "shm/layout.h"
#include "tests/hostile/hostile_fixture.h"

namespace sutra::test {
namespace {

class HandshakeAttackTest : public HostileTest {
 protected:
  RawClient Connect() {
    RawClient client = RawClient::Connect(engine_->socket());
    EXPECT_GE(client.socket(), 0);
    return client;
  }
  bool WaitRefused(uint64_t more = 1) {
    return engine_->WaitStats([&](const StatsSnapshot& now) {
      return now.counter("attaches_refused") >= before_.counter("attaches_refused") + more;
    });
  }
  void ExpectRefused(const RawClient& client) {
    EXPECT_TRUE(client.HungUp(kWaitMs)) << "still connected";
    EXPECT_TRUE(WaitRefused());
  }
};

TEST_F(HandshakeAttackTest, ManyDescriptorsWithAHelloStayOutside) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  for (const size_t count : {size_t{1}, size_t{5}, size_t{64}}) {
    RawClient client = Connect();
    const HelloMessage hello = RawClient::Hello();
    const std::vector<int> fds(count, STDERR_FILENO);
    // A kernel with SO_PASSRIGHTS refuses them at once; on others they are discarded on arrival.
    if (client.Send(&hello, sizeof(hello), fds) != 0) {
      ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
    }
    const std::optional<WelcomeMessage> welcome = client.ReceiveWelcome(kWaitMs);
    ASSERT_TRUE(welcome.has_value());
    EXPECT_EQ(welcome->status, 0U);
  }
  ExpectOnlyNeighbourLeft();
  ExpectNothingLeft(before);
}

// The last close of a descriptor happens where it is discarded; for a lingering TCP socket it takes as long as the
// sender chose. Discarding it in the loop would stop every client for that time.
TEST_F(HandshakeAttackTest, ALingeringSocketInAMessageStallsNobody) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  ASSERT_EQ(listen(listener.get(), 1), 0);
  UniqueFd lingering(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(connect(lingering.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  const std::vector<char> unread(1 << 16);
  while (send(lingering.get(), unread.data(), unread.size(), MSG_DONTWAIT) > 0) {
  }
  const linger forever = {1, 1000};
  ASSERT_EQ(setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &forever, sizeof(forever)), 0);

  const RawClient client = Attach();
  const char byte = 1;
  if (client.Send(&byte, 1, {lingering.get()}) == 0) {
    const linger never = {0, 0};
    setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &never, sizeof(never));
    GTEST_SKIP() << "SKIPPED: this kernel has no SO_PASSRIGHTS (Linux 6.16), the engine cannot refuse descriptors";
  }
  const linger never = {0, 0};
  setsockopt(lingering.get(), SOL_SOCKET, SO_LINGER, &never, sizeof(never));
  EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
}

TEST_F(HandshakeAttackTest, HalfAHelloIsRefused) {
  for (const size_t size : {size_t{1}, size_t{8}, size_t{100}, sizeof(HelloMessage) - 1}) {
    const RawClient client = Connect();
    const HelloMessage hello = RawClient::Hello();
    ASSERT_EQ(client.Send(&hello, size), 0);
    EXPECT_TRUE(client.HungUp(kWaitMs)) << size << " bytes";
  }
  EXPECT_TRUE(WaitRefused(4));
}

TEST_F(HandshakeAttackTest, AnEmptyMessageIsAHangUp) {
  const RawClient client = Connect();
  ASSERT_EQ(client.Send("", 0), 0);
  EXPECT_TRUE(client.HungUp(kWaitMs));
}

TEST_F(HandshakeAttackTest, AHugeMessageIsRefused) {
  const RawClient client = Connect();
  const std::vector<char> huge(100'000, 'S');
  ASSERT_EQ(client.Send(huge.data(), huge.size()), 0);
  ExpectRefused(client);
}

TEST_F(HandshakeAttackTest, OneByteAtATimeIsRefused) {
  const RawClient client = Connect();
  const HelloMessage hello = RawClient::Hello();
  for (size_t i = 0; i < sizeof(hello) && !client.HungUp(1); ++i) {
    static_cast<void>(client.Send(reinterpret_cast<const char*>(&hello) + i, 1));
  }
  ExpectRefused(client);
}

TEST_F(HandshakeAttackTest, SilenceEndsTheAttach) {
  const RawClient client = Connect();
  ExpectRefused(client);
}

TEST_F(HandshakeAttackTest, AWelcomeWithoutALockEndsTheAttachAndGivesTheLaneBack) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  RawClient client = Connect();
  const HelloMessage hello = RawClient::Hello();
  ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
  ASSERT_TRUE(client.ReceiveWelcome(kWaitMs).has_value());
  ExpectRefused(client);
  ExpectNothingLeft(before);
}

TEST_F(HandshakeAttackTest, LockedWithoutTheLockIsRefused) {
  RawClient client = Connect();
  const HelloMessage hello = RawClient::Hello();
  ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
  ASSERT_TRUE(client.ReceiveWelcome(kWaitMs).has_value());
  ASSERT_EQ(client.SendLocked(), 0);
  const std::optional<ServingMessage> serving = client.ReceiveServing(kWaitMs);
  ASSERT_TRUE(serving.has_value());
  EXPECT_EQ(static_cast<StatusCode>(serving->status), StatusCode::kProtocolViolation);
  ExpectRefused(client);
}

TEST_F(HandshakeAttackTest, TheLaneOfAnotherIsRefused) {
  RawClient victim = Attach();
  RawClient client = Connect();
  const HelloMessage hello = RawClient::Hello();
  ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
  ASSERT_TRUE(client.ReceiveWelcome(kWaitMs).has_value());
  ASSERT_TRUE(client.MapLane() && client.TakeLock());
  const LockedMessage locked = {kHandshakeMagic, victim.welcome().lane_id};
  ASSERT_EQ(client.Send(&locked, sizeof(locked)), 0);
  ExpectRefused(client);
  const uint64_t sequence = victim.Submit(0, "the victim goes on");
  EXPECT_EQ(victim.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
}

TEST_F(HandshakeAttackTest, AnotherLayoutIsRefusedWithBothVersions) {
  RawClient client = Connect();
  HelloMessage hello = RawClient::Hello();
  hello.layout_major = 77;
  ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
  const std::optional<WelcomeMessage> welcome = client.ReceiveWelcome(kWaitMs);
  ASSERT_TRUE(welcome.has_value());
  EXPECT_EQ(static_cast<StatusCode>(welcome->status), StatusCode::kRefused);
  EXPECT_NE(std::string(welcome->message).find("77"), std::string::npos) << welcome->message;
  ExpectRefused(client);
}

TEST_F(HandshakeAttackTest, LanesOfAnyShapeAreRefusedWithAReason) {
  const auto spoils = {+[](HelloMessage& h) { h.slots = 3; },
                       +[](HelloMessage& h) { h.slots = UINT32_MAX; },
                       +[](HelloMessage& h) { h.slots = kSlotsMax * 2; },
                       +[](HelloMessage& h) { h.width = 1; },
                       +[](HelloMessage& h) { h.text_bytes_max = UINT32_MAX; },
                       +[](HelloMessage& h) { std::memset(h.model, 'x', sizeof(h.model)); },
                       +[](HelloMessage& h) { std::memset(h.model, 0xff, sizeof(h.model)); }};
  for (const auto spoil : spoils) {
    RawClient client = Connect();
    HelloMessage hello = RawClient::Hello();
    std::memset(hello.client_name, 0x1b, sizeof(hello.client_name));
    spoil(hello);
    ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
    const std::optional<WelcomeMessage> welcome = client.ReceiveWelcome(kWaitMs);
    ASSERT_TRUE(welcome.has_value());
    EXPECT_EQ(static_cast<StatusCode>(welcome->status), StatusCode::kRefused);
    EXPECT_NE(welcome->message[0], '\0');
  }
  EXPECT_EQ(engine_->Log().find('\x1b'), std::string::npos) << "a client's bytes reached the terminal";
}

TEST_F(HandshakeAttackTest, AThousandThatConnectAndVanishLeaveNothing) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  for (int i = 0; i < 1000; ++i) {
    const RawClient client = Connect();
    ASSERT_GE(client.socket(), 0) << "attach " << i;
  }
  ExpectOnlyNeighbourLeft();
  ExpectNothingLeft(before);
}

TEST_F(HandshakeAttackTest, ManyThatVanishAtEachStepLeaveNothing) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  const HelloMessage hello = RawClient::Hello();
  for (int i = 0; i < 200; ++i) {
    RawClient client = Connect();
    static_cast<void>(client.Send(&hello, sizeof(hello)));
    if (i % 4 == 0) continue;
    static_cast<void>(client.ReceiveWelcome(kWaitMs));
    if (i % 4 == 1) continue;
    if (!client.MapLane() || !client.TakeLock()) continue;
    static_cast<void>(client.SendLocked());
    if (i % 4 == 2) continue;
    static_cast<void>(client.ReceiveServing(kWaitMs));
    client.Submit(0, "and gone");
  }
  ExpectOnlyNeighbourLeft();
  ExpectNothingLeft(before);
}

TEST_F(HandshakeAttackTest, MoreLanesThanAllowedAreRefusedWithAReason) {
  const StatsSnapshot before = before_;
  HelloMessage hello = RawClient::Hello();
  hello.slots = 4096;  // 256 MiB of texts each: the bytes of all lanes run out first
  std::vector<RawClient> clients;
  std::string message;
  for (int i = 0; i < 300 && message.empty(); ++i) {
    clients.push_back(RawClient::Attach(engine_->socket(), hello));
    if (!clients.back().lane_ready()) message = clients.back().welcome().message;
  }
  EXPECT_NE(message.find("limit"), std::string::npos) << message;
  clients.clear();
  ExpectOnlyNeighbourLeft();
  EXPECT_TRUE(Attach().lane_ready()) << "what was given back can be had again";
}

TEST_F(HandshakeAttackTest, TheClientCannotChangeItsSegments) {
  RawClient client = Attach();
  const int request = client.request_fd();
  EXPECT_NE(ftruncate(request, 0), 0);
  EXPECT_NE(ftruncate(request, 1 << 30), 0);
  const std::string path = "/proc/self/fd/" + std::to_string(request);
  EXPECT_LT(UniqueFd(open(path.c_str(), O_RDWR | O_TRUNC)).get(), 0);
  EXPECT_NE(fcntl(request, F_ADD_SEALS, F_SEAL_WRITE), 0) << "a seal would stop us, not the engine, but it is sealed";
  const uint64_t sequence = client.Submit(0, "still all there");
  EXPECT_EQ(client.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
}

// A lock of the open file description is shared with the engine, and would outlive its process.
TEST_F(HandshakeAttackTest, ALockOfTheOpenFileIsNoLock) {
  RawClient client = Connect();
  const HelloMessage hello = RawClient::Hello();
  ASSERT_EQ(client.Send(&hello, sizeof(hello)), 0);
  ASSERT_TRUE(client.ReceiveWelcome(kWaitMs).has_value());
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  ASSERT_EQ(fcntl(client.request_fd(), F_OFD_SETLK, &lock), 0);
  ASSERT_EQ(client.SendLocked(), 0);
  const std::optional<ServingMessage> serving = client.ReceiveServing(kWaitMs);
  ASSERT_TRUE(serving.has_value());
  EXPECT_EQ(static_cast<StatusCode>(serving->status), StatusCode::kProtocolViolation);
  ExpectRefused(client);
}

class OtherUserAttackTest : public HandshakeAttackTest {
 protected:
  bool StartsEngine() const override { return false; }
};

TEST_F(OtherUserAttackTest, IsRefusedByNameEvenIfItSpokeFirst) {
  if (!IsRoot()) GTEST_SKIP() << "SKIPPED: needs root to become another user";
  EngineOptions options;
  options.args = {"--socket-mode", "0666"};
  StartEngine(options);
  ASSERT_EQ(chmod(engine_->directory().path().c_str(), 0755), 0);
  const std::unique_ptr<ChildProcess> client = StartHostile("be-refused", 65534);
  const std::optional<ExitStatus> status = client->Wait(kWaitMs);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->exited && status->code == 0) << ToText(*status) << " (the codes: hostile_client.cc)";
}

}  // namespace
}  // namespace sutra::test
