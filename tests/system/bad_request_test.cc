// Bad input: each kind gets its own status, a message where there is one to give, and nothing else is harmed.
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/handshake_messages.h"
#include "shm/lane_memory.h"
#include "shm/layout.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class BadRequest : public SystemTest {
 protected:
  EngineProcess engine_;
};

TEST_F(BadRequest, AnEmptyTextIsRefusedAndANulIsAnOrdinaryCharacter) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  EXPECT_EQ(client.Embed("").status, SUTRA_EMPTY_TEXT);
  const std::string nul(1, '\0');
  ExpectVector(client.Embed(nul), nul);
  const std::string around = std::string("a\0b", 3);
  ExpectVector(client.Embed(around), around);
}

TEST_F(BadRequest, InvalidUtf8IsRefused) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  for (const std::string text : {"\xff", "ab\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "x\x80y"}) {
    const Reply reply = client.Embed(text);
    EXPECT_EQ(reply.status, SUTRA_INVALID_UTF8);
    EXPECT_TRUE(reply.vector.empty());
  }
  EXPECT_EQ(engine_.Stats().counter("replies_ok"), 0u);
  const std::string valid = "\xF4\x8F\xBF\xBF\xEF\xBF\xBF";  // the last code points there are
  ExpectVector(client.Embed(valid), valid);
}

TEST_F(BadRequest, ATextOverTheLanesLimitIsRefusedAndOneAtTheLimitIsServed) {
  constexpr size_t limit = 65'536;
  engine_.options().args = {"--text-bytes-max", std::to_string(limit)};
  engine_.options().environment = {"SUTRA_FAKE_TOKENS_MAX=100000"};
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  ASSERT_EQ(client.info().text_bytes_max, limit);
  const std::string at_limit(limit, 'l');
  ExpectVector(client.Embed(at_limit), at_limit);
  EXPECT_EQ(client.Embed(std::string(limit + 1, 'l')).status, SUTRA_TEXT_TOO_LONG);

  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.text_bytes_max = 300;
  ClientHandle small;
  ASSERT_EQ(small.Attach(engine_.socket(), options), SUTRA_OK);
  EXPECT_EQ(small.info().text_bytes_max, 300u);
  EXPECT_EQ(small.Embed(std::string(301, 's')).status, SUTRA_TEXT_TOO_LONG);
  ExpectVector(small.Embed(std::string(300, 's')), std::string(300, 's'));
  options.text_bytes_max = limit + 1;
  EXPECT_EQ(small.Attach(engine_.socket(), options), SUTRA_REFUSED);
  EXPECT_NE(std::string(sutra_error_text()).find("--text-bytes-max"), std::string::npos) << sutra_error_text();
}

TEST_F(BadRequest, ATextOverTheTokenLimitIsTruncatedAndSaysSoOrIsRejectedWhenAsked) {
  engine_.options().environment = {"SUTRA_FAKE_TOKENS_MAX=40"};
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  EXPECT_EQ(client.info().tokens_max, 40u);
  const std::string text = std::string(100, 't');
  const sutra_options reject = ClientHandle::RequestOptions(SUTRA_REJECT);
  EXPECT_EQ(client.Embed(text, reject).status, SUTRA_TEXT_TOO_LONG);
  for (const bool stored : {false, true, true}) {
    const Reply reply = client.Embed(text);
    ExpectVector(reply, text.substr(0, 40));  // the first tokens count
    EXPECT_TRUE(reply.truncated);
    EXPECT_EQ(reply.token_count, 40u);
    EXPECT_EQ(reply.FromCache(), stored);
    // Also when the truncated answer is in the cache already.
    EXPECT_EQ(client.Embed(text, reject).status, SUTRA_TEXT_TOO_LONG);
  }
  const Reply whole = client.Embed(text.substr(0, 40), reject);
  ExpectVector(whole, text.substr(0, 40));
  EXPECT_FALSE(whole.truncated);
}

TEST_F(BadRequest, UnknownOptionsAndWidthsAreRefused) {
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  EXPECT_EQ(client.Embed("text", ClientHandle::RequestOptions(1u << 9)).status, SUTRA_BAD_OPTION);
  EXPECT_EQ(client.Embed("text", ClientHandle::RequestOptions(SUTRA_NORMALIZE | SUTRA_RAW)).status, SUTRA_BAD_OPTION);
  sutra_options width = ClientHandle::RequestOptions();
  width.width = kTestWidth + 1;
  EXPECT_EQ(client.Embed("text", width).status, SUTRA_BAD_OPTION);
  width.width = kTestWidth;
  ExpectVector(client.Embed("text", width), "text");
  sutra_options priority = ClientHandle::RequestOptions();
  priority.priority = 3;
  EXPECT_EQ(client.Embed("text", priority).status, SUTRA_BAD_OPTION);
}

TEST_F(BadRequest, AttachingToAnotherModelOrWidthIsRefusedWithBothNames) {
  ASSERT_TRUE(engine_.Start());
  ClientHandle client;
  sutra_attach_options options = ClientHandle::DefaultOptions();
  options.width = 768;
  EXPECT_EQ(client.Attach(engine_.socket(), options), SUTRA_REFUSED);
  const std::string width_text = sutra_error_text();
  EXPECT_NE(width_text.find("768"), std::string::npos) << width_text;
  EXPECT_NE(width_text.find(std::to_string(kTestWidth)), std::string::npos) << width_text;
  options.width = 0;
  options.model = "nomic-embed-text";
  EXPECT_EQ(client.Attach(engine_.socket(), options), SUTRA_REFUSED);
  const std::string model_text = sutra_error_text();
  EXPECT_NE(model_text.find("nomic-embed-text"), std::string::npos) << model_text;
  EXPECT_NE(model_text.find(kFakeName), std::string::npos) << model_text;
  options.model = kFakeName;
  options.width = kTestWidth;
  EXPECT_EQ(client.Attach(engine_.socket(), options), SUTRA_OK) << sutra_error_text();
  const std::string identity_prefix = std::string(client.info().identity).substr(0, 16);
  options.model = identity_prefix.c_str();
  EXPECT_EQ(client.Attach(engine_.socket(), options), SUTRA_OK) << sutra_error_text();
}

TEST_F(BadRequest, AttachingWhereNobodyListensIsEngineGone) {
  ClientHandle client;
  EXPECT_EQ(client.Attach(engine_.directory() / "nothing.sock"), SUTRA_ENGINE_GONE);
  EXPECT_NE(std::string(sutra_error_text()).find("nothing.sock"), std::string::npos) << sutra_error_text();
}

TEST_F(BadRequest, LanesAreBoundedAndTheRefusalNamesTheOption) {
  engine_.options().args = {"--lanes-max", "3"};
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(engine_.WaitLanes(0));
  std::vector<ClientHandle> clients(3);
  for (ClientHandle& client : clients) EXPECT_EQ(client.Attach(engine_.socket()), SUTRA_OK) << sutra_error_text();
  ClientHandle fourth;
  EXPECT_EQ(fourth.Attach(engine_.socket()), SUTRA_REFUSED);
  EXPECT_NE(std::string(sutra_error_text()).find("--lanes-max"), std::string::npos) << sutra_error_text();
  clients[1].Detach();
  ASSERT_TRUE(engine_.WaitLanes(2));
  EXPECT_EQ(fourth.Attach(engine_.socket()), SUTRA_OK) << sutra_error_text();
}

TEST_F(BadRequest, AFullQueueIsOverloadedNotAHang) {
  engine_.options().environment = {"SUTRA_FAKE_DELAY_US=200000"};
  engine_.options().args = {"--queue-texts-max", "4", "--batch-tokens-max", "16"};
  ASSERT_TRUE(engine_.Start());
  const ClientHandle client = Attached(engine_);
  std::vector<sutra_ticket> tickets;
  for (const std::string& text : NumberedTexts("too many", 40)) {
    tickets.push_back(0);
    ASSERT_EQ(sutra_submit(client.get(), text.data(), text.size(), nullptr, &tickets.back()), SUTRA_OK);
  }
  size_t overloaded = 0, ok = 0;
  for (const sutra_ticket ticket : tickets) {
    sutra_result result = embed::Result();
    const sutra_status status = sutra_wait(client.get(), ticket, kWaitMs, &result);
    overloaded += status == SUTRA_OVERLOADED;
    ok += status == SUTRA_OK;
    sutra_release(client.get(), ticket);
  }
  EXPECT_GT(overloaded, 0u);
  EXPECT_GT(ok, 0u);
  EXPECT_EQ(overloaded + ok, tickets.size());
}

// The handshake by hand, as a library of another version would perform it.
class RawHandshake : public BadRequest {
 protected:
  UniqueFd Connect() {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, engine_.socket().c_str(), sizeof(address.sun_path) - 1);
    UniqueFd socket_fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return socket_fd;
  }
  static HelloMessage Hello() {
    HelloMessage hello = {};
    hello.magic = kHandshakeMagic;
    hello.layout_major = kLayoutMajor;
    hello.layout_minor = kLayoutMinor;
    return hello;
  }
  static WelcomeMessage Answer(int socket_fd, const void* hello, size_t bytes, size_t* fds_received) {
    EXPECT_EQ(send(socket_fd, hello, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
    WelcomeMessage welcome = {};
    int fds[kWelcomeFdsMax];
    size_t received = 0;
    EXPECT_EQ(ReceiveMessage(socket_fd, &welcome, sizeof(welcome), fds, {kWelcomeFds, kWelcomeFdsMax}, fds_received,
                             &received, MonotonicNs() + kWaitMs * kNsPerMs),
              MessageOutcome::kOk);
    for (size_t i = 0; i < *fds_received; ++i) close(fds[i]);
    return welcome;
  }
};

TEST_F(RawHandshake, AnotherLayoutVersionIsRefusedWithBothVersions) {
  ASSERT_TRUE(engine_.Start());
  HelloMessage hello = Hello();
  hello.layout_major = kLayoutMajor + 41;
  size_t fds = 9;
  const UniqueFd socket_fd = Connect();
  const WelcomeMessage welcome = Answer(socket_fd.get(), &hello, sizeof(hello), &fds);
  EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kRefused));
  EXPECT_EQ(fds, 0u);
  EXPECT_EQ(welcome.layout_major, kLayoutMajor);
  const std::string message = welcome.message;
  EXPECT_NE(message.find(std::to_string(kLayoutMajor + 41) + "."), std::string::npos) << message;
  EXPECT_NE(message.find(std::to_string(kLayoutMajor) + "." + std::to_string(kLayoutMinor)), std::string::npos)
      << message;
}

TEST_F(RawHandshake, AShorterHelloOfAnotherVersionIsStillRefusedByName) {
  ASSERT_TRUE(engine_.Start());
  HelloMessage hello = Hello();
  hello.layout_major = kLayoutMajor + 1;
  size_t fds = 9;
  const UniqueFd socket_fd = Connect();
  const WelcomeMessage welcome = Answer(socket_fd.get(), &hello, 64, &fds);
  EXPECT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kRefused));
  EXPECT_NE(std::strlen(welcome.message), 0u);
}

TEST_F(RawHandshake, ALaneWithoutItsLockIsNeverServed) {
  ASSERT_TRUE(engine_.Start());
  ASSERT_TRUE(engine_.WaitLanes(0));
  const UniqueFd socket_fd = Connect();
  const HelloMessage hello = Hello();
  size_t fds = 0;
  const WelcomeMessage welcome = Answer(socket_fd.get(), &hello, sizeof(hello), &fds);
  ASSERT_EQ(welcome.status, static_cast<uint32_t>(StatusCode::kOk));
  ASSERT_GE(fds, kWelcomeFds);
  const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
  ASSERT_EQ(send(socket_fd.get(), &locked, sizeof(locked), MSG_NOSIGNAL), static_cast<ssize_t>(sizeof(locked)));
  ServingMessage serving = {};
  size_t received = 0;
  fds = 0;
  ASSERT_EQ(ReceiveMessage(socket_fd.get(), &serving, sizeof(serving), nullptr, 0, &fds, &received,
                           MonotonicNs() + kWaitMs * kNsPerMs),
            MessageOutcome::kOk);
  EXPECT_EQ(serving.status, static_cast<uint32_t>(StatusCode::kProtocolViolation));
  EXPECT_TRUE(engine_.WaitLanes(0));
}

TEST_F(RawHandshake, SilentAndTalkativeStrangersCostNobodyElseAnything) {
  ASSERT_TRUE(engine_.Start());
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 20; ++i) strangers.push_back(Connect());
  const std::string noise(1000, 'n');
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(send(strangers[i].get(), noise.data(), noise.size(), MSG_NOSIGNAL), 1000);
  }
  const std::string text = "among strangers";
  ExpectVector(Attached(engine_).Embed(text), text);
  // The engine drops silent connections after a second, so nothing piles up.
  char byte = 0;
  for (const UniqueFd& stranger : strangers) EXPECT_EQ(recv(stranger.get(), &byte, 1, 0), 0);
}

}  // namespace
}  // namespace sutra::test
