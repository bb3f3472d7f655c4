// A signal that comes while the watch lives is taken by it, and any other stays for the next reader.
#include "engine/load_watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <future>
#include <optional>
#include <utility>

#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

class LoadWatchTest : public ::testing::Test {
 protected:
  ~LoadWatchTest() override { shutdown_.LeaveOnNextSignal(); }  // restores the signals for the next test
  void Watch() {
    watch_.emplace(&shutdown_, [this] { left_.set_value(); });
  }
  bool Pending() const {
    pollfd event = {.fd = shutdown_.fd(), .events = POLLIN, .revents = 0};
    return poll(&event, 1, 0) == 1;
  }
  bool HasLeft() { return left_.get_future().wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

  Shutdown shutdown_ = std::move(Shutdown::Prepare()).value();  // before any thread, as in main
  test::Watchdog watchdog_{std::chrono::seconds(60)};
  std::promise<void> left_;
  std::optional<LoadWatch> watch_;
};

TEST_F(LoadWatchTest, TheFirstSignalThatStopsLeaves) {
  Watch();
  kill(getpid(), SIGHUP);  // ignored by the Shutdown
  kill(getpid(), SIGTERM);
  left_.get_future().wait();
  watch_.reset();
  EXPECT_EQ(shutdown_.signal_number(), SIGTERM);
}

TEST_F(LoadWatchTest, WithoutASignalItEndsAndLaterOnesWaitForTheNextReader) {
  Watch();
  watch_.reset();
  kill(getpid(), SIGINT);
  EXPECT_TRUE(Pending());
  EXPECT_TRUE(shutdown_.OnSignal());
  EXPECT_FALSE(HasLeft());
}

TEST_F(LoadWatchTest, ASignalFromBeforeItBeganIsFoundToo) {
  kill(getpid(), SIGTERM);
  Watch();
  left_.get_future().wait();
}

}  // namespace
}  // namespace sutra
