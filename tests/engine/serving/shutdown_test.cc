// Signals act on the whole process, so most of this happens in children: death tests that check the exit status.
#include "engine/serving/shutdown.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>
#include <vector>

namespace sutra {
namespace {

class ShutdownTest : public ::testing::Test {
 protected:
  ~ShutdownTest() override { shutdown_.LeaveOnNextSignal(); }  // restores the signals for the next test
  bool Readable() const {
    pollfd event = {.fd = shutdown_.fd(), .events = POLLIN, .revents = 0};
    return poll(&event, 1, 0) == 1;
  }

  std::vector<std::string> log_;
  Shutdown shutdown_ =
      std::move(Shutdown::Prepare([this](LogLevel, const std::string& line) { log_.push_back(line); })).value();
};
using ShutdownDeathTest = ShutdownTest;

TEST_F(ShutdownTest, TheFirstSignalIsReportedOnceAndEndsNothing) {
  EXPECT_FALSE(Readable());
  EXPECT_FALSE(shutdown_.OnSignal());
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(Readable());
  EXPECT_TRUE(shutdown_.OnSignal());
  EXPECT_EQ(shutdown_.signal_number(), SIGTERM);
  EXPECT_FALSE(Readable());
  EXPECT_FALSE(shutdown_.OnSignal());
}

TEST_F(ShutdownTest, ARequestStopsAsASignalDoesAndOnlyOnce) {
  shutdown_.Request();
  EXPECT_TRUE(Readable());
  EXPECT_TRUE(shutdown_.OnSignal());
  shutdown_.Request();
  EXPECT_FALSE(Readable());
}

// Somebody who asked for a hand-over, and a supervisor that says stop at the same time, must not end it in the middle.
TEST_F(ShutdownTest, ASignalAfterARequestIsTheFirst) {
  shutdown_.Request();
  EXPECT_TRUE(shutdown_.OnSignal());
  const pid_t child = fork();
  if (child == 0) {
    kill(getppid(), SIGTERM);
    _exit(0);
  }
  while (!Readable()) {
  }
  EXPECT_TRUE(shutdown_.OnSignal());
  EXPECT_EQ(shutdown_.signal_number(), SIGTERM);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(ShutdownTest, ARequestAfterASignalChangesNothing) {
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(shutdown_.OnSignal());
  shutdown_.Request();
  EXPECT_FALSE(Readable());
}

TEST_F(ShutdownTest, AClosedPipeIsAnErrorAndNotTheEnd) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  close(fds[0]);
  const char byte = 1;
  EXPECT_EQ(write(fds[1], &byte, 1), -1);
  EXPECT_EQ(errno, EPIPE);
  close(fds[1]);
}

TEST_F(ShutdownTest, AReloadIsIgnoredWithALineAndIsNotTheFirstSignal) {
  const std::pair<int, const char*> signals[] = {{SIGHUP, "SIGHUP"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}};
  for (const auto& [number, name] : signals) {
    log_.clear();
    kill(getpid(), number);
    EXPECT_TRUE(Readable()) << name;
    EXPECT_FALSE(shutdown_.OnSignal()) << name;
    ASSERT_EQ(log_.size(), 1u) << name;
    EXPECT_EQ(log_[0].rfind(name, 0), 0u) << log_[0];
  }
  EXPECT_EQ(shutdown_.signal_number(), 0);
  kill(getpid(), SIGTERM);
  EXPECT_TRUE(shutdown_.OnSignal());
}

TEST_F(ShutdownTest, AFileSizeLimitIsAnErrorAndNotTheEnd) {
  raise(SIGXFSZ);  // what the kernel sends with the error EFBIG
  EXPECT_FALSE(Readable());
}

TEST_F(ShutdownDeathTest, ASecondSignalLeavesAtOnce) {
  const auto twice = [this] {
    kill(getpid(), SIGTERM);
    shutdown_.OnSignal();
    kill(getpid(), SIGINT);
    shutdown_.OnSignal();
  };
  EXPECT_EXIT(twice(), ::testing::ExitedWithCode(128 + SIGINT), "");
}

TEST_F(ShutdownDeathTest, ASecondSignalThatComesWithTheFirstLeavesToo) {
  const auto together = [this] {
    kill(getpid(), SIGINT);
    kill(getpid(), SIGTERM);
    shutdown_.OnSignal();
  };
  EXPECT_EXIT(together(), ::testing::ExitedWithCode(128 + SIGTERM), "");
}

TEST_F(ShutdownDeathTest, WhenTheLoopIsGoneASignalEndsTheProcess) {
  const auto after = [this] {
    shutdown_.LeaveOnNextSignal();
    kill(getpid(), SIGTERM);
    pause();
  };
  EXPECT_EXIT(after(), ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace sutra
