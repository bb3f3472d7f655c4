// A control session in an engine whose memory ends at each allocation in turn: it is answered or hung up on, nothing is
// left of it, and the next one is served.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/control/control_sessions.h"
#include "shm/base/time.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/failing_new.h"

namespace sutra {
namespace {

using test::FailingNew;

constexpr uint64_t kFailuresMax = 500;

class ControlSweep : public testing::Test {
 protected:
  ControlSweep() {
    ControlSessions::Options options;
    options.model = {
        .name = "fake", .identity = std::string(64, 'a'), .width = 8, .precision = "fp32", .device = "cpu"};
    options.stats = stats_->writer();
    options.log = LogLine([](LogLevel, const std::string&) {});
    sessions_.emplace(std::move(options),
                      ControlSessions::Loop{.watch = [](int, uint64_t) { return true; },
                                            .unwatch = [](int) {},
                                            .facts =
                                                [] {
                                                  return ControlSessions::Facts{kEngineServing, 1, 1};
                                                },
                                            .hand_over = [this] { ++hand_overs_; }});
  }

  // True: the answer had status ok; nothing: hung up without one.
  std::optional<bool> Ask(ControlCommand command, std::string_view body) {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    const UniqueFd mine(pair[0]);
    const ControlCall call = {.request_id = 1, .command = static_cast<uint32_t>(command)};
    {
      const std::string message = MakeControlMessage(call, body);
      EXPECT_EQ(send(mine.get(), message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
      std::optional<FailingNew> memory;
      if (fail_at_ > 0) memory.emplace(fail_at_, FailingNew::Whose::kThisThread);
      sessions_->Take(UniqueFd(pair[1]), {.pid = 5, .uid = geteuid(), .gid = 1}, now_ns_);
      failed_ = memory.has_value() && memory->failed();
    }
    std::vector<char> buffer(kControlMessageBytesMax);
    const ssize_t count = recv(mine.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    // A message that was not read comes back as a reset.
    EXPECT_TRUE(count >= 0 || errno == ECONNRESET) << "neither an answer nor a hang-up";
    if (count <= 0) return std::nullopt;
    const Result<ControlAnswer> answer = ParseAnswer({buffer.data(), static_cast<size_t>(count)}, call);
    EXPECT_TRUE(answer.ok());
    return answer.ok() && answer.value().code == StatusCode::kOk;
  }
  // Every asker has hung up.
  void Settle() {
    for (uint64_t id = 1; id <= asked_; ++id) sessions_->OnReady(id, now_ns_);
    now_ns_ += 100 * kNsPerSecond;
    sessions_->Expire(now_ns_);
    EXPECT_EQ(sessions_->size(), 0U);
    EXPECT_EQ(sessions_->standbys().size(), 0U);
  }
  void Sweep(ControlCommand command, std::string_view body, bool ok) {
    uint64_t hung_up = 0;
    for (bool failed = true; failed; ++fail_at_) {
      ASSERT_LT(fail_at_, kFailuresMax);
      if (fail_at_ == 0) fail_at_ = 1;
      const std::optional<bool> answer = Ask(command, body);
      failed = failed_;
      asked_ += 1;
      EXPECT_TRUE(answer.has_value() || failed) << fail_at_;
      EXPECT_TRUE(failed || answer.value_or(!ok) == ok);
      hung_up += !answer.has_value();
      Settle();
    }
    fail_at_ = 0;
    EXPECT_GT(hung_up, 2U);  // the canary
    EXPECT_EQ(Ask(command, body), std::optional(ok));
    asked_ += 1;
    Settle();
  }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  std::optional<ControlSessions> sessions_;
  uint64_t now_ns_ = kNsPerSecond, asked_ = 0, fail_at_ = 0;
  bool failed_ = false;
  int hand_overs_ = 0;
};

TEST_F(ControlSweep, StatusIsAnsweredOrHungUpOn) { Sweep(ControlCommand::kStatus, {}, true); }

TEST_F(ControlSweep, ARegistrationIsAnsweredOrHungUpOn) {
  const StandbyBody body = ToBody({.identity = std::string(64, 'a'), .precision = "fp32", .width = 8});
  Sweep(ControlCommand::kRegisterStandby, BytesOf(body), true);
}

TEST_F(ControlSweep, ARefusalIsAnsweredOrHungUpOn) {
  Sweep(ControlCommand::kHandOver, {}, false);
  EXPECT_EQ(hand_overs_, 0);
}

}  // namespace
}  // namespace sutra
