// Attaching: what comes back, and every way to be refused.
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <filesystem>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

class ClientAttach : public ClientTest {
 protected:
  static size_t OpenDescriptors() {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      (void)entry;
      ++count;
    }
    return count;
  }
};

// The child reports by its exit code: it has no standard error.
TEST_F(ClientAttach, AProgramWithoutStandardDescriptorsGetsNoneOfTheLibrarys) {
  StartEngine();
  const pid_t child = fork();
  if (child == 0) {
    for (int fd = 0; fd < 3; ++fd) close(fd);
    sutra_attach_options options = AttachOptions(2, 2);
    sutra_client* client = nullptr;
    if (sutra_attach(path_.c_str(), &options, &client) != SUTRA_OK) _exit(1);
    sutra_ticket tickets[3];  // through two lanes
    const std::string text(1000, 'x');
    for (sutra_ticket& ticket : tickets) {
      while (sutra_submit(client, text.data(), text.size(), nullptr, &ticket) != SUTRA_OK) sched_yield();
      if (sutra_wait(client, ticket, 60'000, nullptr) != SUTRA_OK) _exit(2);
    }
    if (sutra_event_fd(client) < 3) _exit(3);
    for (int fd = 0; fd < 3; ++fd) {
      if (fcntl(fd, F_GETFD) != -1) _exit(10 + fd);
    }
    for (const sutra_ticket ticket : tickets) sutra_release(client, ticket);
    sutra_detach(client);
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(ClientAttach, TooFewDescriptorsAreOutOfMemoryAndLeaveNothing) {
  StartEngine();
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const size_t open_before = OpenDescriptors();
  sutra_status status = SUTRA_OUT_OF_MEMORY;
  int failed = 0;
  for (rlim_t files = 3; status != SUTRA_OK && files < 200; ++files) {
    const rlimit limit = {files, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    status = AttachStatus(AttachOptions());
    const std::string why = sutra_error_text();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_EQ(OpenDescriptors(), open_before) << "with " << files;
    if (status == SUTRA_OK) break;
    ++failed;
    EXPECT_EQ(status, SUTRA_OUT_OF_MEMORY) << why;
    EXPECT_NE(why.find("limit of open files"), std::string::npos) << why;
  }
  EXPECT_EQ(status, SUTRA_OK);
  EXPECT_GE(failed, 5) << "a lane has a socket and four descriptors of the engine";
}

TEST_F(ClientAttach, NothingListeningIsEngineGoneAndNamesTheSocket) {
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_ENGINE_GONE);
  EXPECT_NE(std::string(sutra_error_text()).find(path_), std::string::npos);
}

TEST_F(ClientAttach, StaleSocketFileIsEngineGone) {
  StartEngine();
  engine_->Kill();
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_ENGINE_GONE);
}

TEST_F(ClientAttach, WrongWidthAndWrongModelAreRefusedWithAReason) {
  StartEngine();
  sutra_attach_options options = AttachOptions();
  options.width = 17;
  EXPECT_EQ(AttachStatus(options), SUTRA_REFUSED);
  EXPECT_NE(std::string(sutra_error_text()).find("width"), std::string::npos) << sutra_error_text();
  options = AttachOptions();
  options.model = "another-model";
  EXPECT_EQ(AttachStatus(options), SUTRA_REFUSED);
  EXPECT_NE(std::string(sutra_error_text()).find("model"), std::string::npos) << sutra_error_text();
}

TEST_F(ClientAttach, RightWidthAndIdentityPrefixAreServed) {
  StartEngine();
  sutra_attach_options options = AttachOptions();
  options.width = 16;
  options.model = "eeee";
  EXPECT_EQ(AttachStatus(options), SUTRA_OK);
}

TEST_F(ClientAttach, OtherLayoutMajorIsRefusedAndBothVersionsAreNamed) {
  EchoOptions other;
  other.layout_major = 7;
  StartEngine(other);
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_REFUSED);
  const std::string text = sutra_error_text();
  EXPECT_NE(text.find("7.0"), std::string::npos) << text;
  EXPECT_NE(text.find("3.1"), std::string::npos) << text;
}

// The engine of layout 1 sends a shorter welcome: only its first bytes, which no layout moves, can be understood.
TEST_F(ClientAttach, AnEngineOfLayout1IsRefusedAndBothVersionsAreNamed) {
  EchoOptions old;
  old.layout_major = 1;
  old.welcome_bytes = 520;
  StartEngine(old);
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_REFUSED);
  const std::string text = sutra_error_text();
  EXPECT_NE(text.find("the engine has layout 1.0, this library 3.1"), std::string::npos) << text;
}

TEST_F(ClientAttach, RefusalsKeepTheStatusACallerCanActOn) {
  EchoOptions refusing;
  for (const StatusCode code : {StatusCode::kShuttingDown, StatusCode::kOverloaded, StatusCode::kRefused}) {
    refusing.refuse = code;
    StartEngine(refusing);
    EXPECT_EQ(AttachStatus(AttachOptions()), static_cast<sutra_status>(code)) << sutra_error_text();
  }
}

TEST_F(ClientAttach, SilentEngineEndsAtTheTimeout) {
  EchoOptions silent;
  silent.hostile = Hostile::kSilent;
  StartEngine(silent);
  sutra_attach_options options = AttachOptions();
  options.timeout_ms = 50;
  EXPECT_EQ(AttachStatus(options), SUTRA_DEADLINE_EXCEEDED);
}

TEST_F(ClientAttach, StoppedEngineEndsAtTheTimeout) {
  StartEngine();
  engine_->Stop();
  sutra_attach_options options = AttachOptions();
  options.timeout_ms = 50;
  EXPECT_EQ(AttachStatus(options), SUTRA_DEADLINE_EXCEEDED);
  engine_->Continue();
}

TEST_F(ClientAttach, StreamSocketOfAnotherProgramIsRefused) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_REFUSED);
  close(listener);
}

TEST_F(ClientAttach, BrokenLanesAreRefusedAndNothingStaysOpen) {
  const size_t descriptors = OpenDescriptors();
  for (const Hostile hostile : {Hostile::kUnsealed, Hostile::kWrongSize, Hostile::kNotAPipe, Hostile::kWrongMagic,
                                Hostile::kNoDescriptors, Hostile::kOtherWidthInHeader}) {
    EchoOptions options;
    options.hostile = hostile;
    StartEngine(options);
    EXPECT_EQ(AttachStatus(AttachOptions()), SUTRA_REFUSED) << static_cast<int>(hostile) << ": " << sutra_error_text();
    engine_.reset();
    EXPECT_EQ(OpenDescriptors(), descriptors) << static_cast<int>(hostile);
  }
}

TEST_F(ClientAttach, ManyAttachesAndDetachesLeakNoDescriptor) {
  StartEngine();
  EXPECT_EQ(AttachStatus(AttachOptions(4)), SUTRA_OK);
  const size_t descriptors = OpenDescriptors();
  for (int i = 0; i < 100; ++i) {
    const ClientPtr client = Attach(4);
    EXPECT_EQ(Embed(client, "text"), SUTRA_OK);
  }
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

TEST_F(ClientAttach, AllDescriptorsAreCloseOnExec) {
  StartEngine();
  std::vector<bool> before(256);
  for (int fd = 0; fd < 256; ++fd) before[fd] = fcntl(fd, F_GETFD) >= 0;
  const ClientPtr client = Attach(4);
  ASSERT_GE(sutra_event_fd(client.get()), 0);
  int opened = 0;
  for (int fd = 0; fd < 256; ++fd) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || before[fd]) continue;
    ++opened;
    EXPECT_NE(flags & FD_CLOEXEC, 0) << fd;
  }
  // Socket, request lane, reply lane, tail file, event pipe; two of the helper thread; three for event loops.
  EXPECT_EQ(opened, 10);
}

}  // namespace
}  // namespace sutra::test
