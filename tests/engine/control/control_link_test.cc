// What an asker learns when there is no engine, an old one, a stopped one, or something else at the socket.
#include "engine/control/control_link.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <functional>
#include <thread>

#include "engine/lanes/listening_socket.h"
#include "shm/base/time.h"
#include "shm/handshake_messages.h"
#include "tests/kit/temp_dir.h"

namespace sutra::test {
namespace {

uint64_t InSeconds(uint64_t seconds) { return MonotonicNs() + seconds * kNsPerSecond; }

// Something at the socket that reads one message and then does `what` with the connection.
class OtherServer {
 public:
  explicit OtherServer(std::function<void(int)> what)
      : listener_(std::move(ListeningSocket::Open(path(), 0600)).value()), thread_([this, what] {
          pollfd item = {listener_.fd(), POLLIN, 0};
          poll(&item, 1, -1);
          const UniqueFd socket(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
          char buffer[1024];
          static_cast<void>(recv(socket.get(), buffer, sizeof(buffer), 0));
          what(socket.get());
        }) {}
  ~OtherServer() { thread_.join(); }

  std::string path() const { return directory_ / "s"; }
  Result<ControlAnswer> Ask() const {
    Result<ControlLink> link = ControlLink::Connect(path(), InSeconds(30));
    if (!link.ok()) return link.status();
    return link->Ask(ControlCommand::kStatus, {}, InSeconds(30));
  }

 private:
  TempDir directory_;
  ListeningSocket listener_;
  std::thread thread_;
};

void ExpectMessage(const Status& status, StatusCode code, const std::string& words) {
  EXPECT_EQ(status.code(), code);
  EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
}

TEST(ControlLink, NoSocketFileNamesThePathAndTheFix) {
  TempDir directory;
  const Result<ControlLink> link = ControlLink::Connect(directory / "s", InSeconds(30));
  ExpectMessage(link.status(), StatusCode::kEngineGone, directory / "s");
  ExpectMessage(link.status(), StatusCode::kEngineGone, "--socket");
}

TEST(ControlLink, ADeadSocketIsAnEngineThatIsGone) {
  TempDir directory;
  const std::string path = directory / "s";
  {
    Result<ListeningSocket> listener = ListeningSocket::Prepare(path, 0600);
    ASSERT_TRUE(listener.ok());
    ASSERT_EQ(rename((path + ".new").c_str(), (directory / "dead").c_str()), 0);  // where its end does not remove it
  }
  ExpectMessage(ControlLink::Connect(directory / "dead", InSeconds(30)).status(), StatusCode::kEngineGone, "start one");
}

TEST(ControlLink, APathTooLongForASocketIsAnError) {
  EXPECT_FALSE(ControlLink::Connect("/" + std::string(200, 'x'), InSeconds(30)).ok());
  EXPECT_FALSE(ControlLink::Connect("", InSeconds(30)).ok());
}

TEST(ControlLink, AHangUpWithoutAnAnswerMayBeAnOldEngine) {
  const OtherServer server([](int) {});
  ExpectMessage(server.Ask().status(), StatusCode::kEngineGone, "without control sessions");
}

TEST(ControlLink, ARefusalOfTheAttachIsPassedOn) {
  const OtherServer server([](int socket) {
    WelcomeMessage welcome = {};
    welcome.magic = kHandshakeMagic;
    welcome.status = static_cast<uint32_t>(StatusCode::kRefused);
    std::string_view("may not attach").copy(welcome.message, sizeof(welcome.message));
    EXPECT_EQ(send(socket, &welcome, sizeof(welcome), 0), static_cast<ssize_t>(sizeof(welcome)));
  });
  const Result<ControlAnswer> answer = server.Ask();
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer.value().code, StatusCode::kRefused);
  EXPECT_EQ(answer.value().body, "may not attach");
}

TEST(ControlLink, AnotherProgramsAnswerIsAViolation) {
  const OtherServer server([](int socket) { EXPECT_EQ(send(socket, "HTTP/1.1 400", 12, 0), 12); });
  ExpectMessage(server.Ask().status(), StatusCode::kProtocolViolation, server.path());
}

TEST(ControlLink, AFullBacklogCostsTheDeadline) {
  TempDir directory;
  const Result<ListeningSocket> stopped = ListeningSocket::Open(directory / "s", 0600);
  ASSERT_TRUE(stopped.ok());
  std::vector<ControlLink> links;
  Status status;
  while (status.ok() && links.size() < 100'000) {
    Result<ControlLink> link = ControlLink::Connect(directory / "s", MonotonicNs() + 20 * kNsPerMs);
    status = link.status();
    if (link.ok()) links.push_back(std::move(link).value());
  }
  ExpectMessage(status, StatusCode::kDeadlineExceeded, "SIGSTOP");
}

}  // namespace
}  // namespace sutra::test
