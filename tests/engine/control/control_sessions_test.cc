// Sessions message by message, with an asker that sends what no tool sends. The clock is the test's.
#include "engine/control/control_sessions.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shm/base/time.h"
#include "shm/stats/stats_segment.h"

namespace sutra {
namespace {

constexpr uint64_t kStepNs = kControlStepMsMax * kNsPerMs;
constexpr uint64_t kSessionNs = kControlSessionMsMax * kNsPerMs;

class ControlSessionsTest : public testing::Test {
 protected:
  struct Asker {
    UniqueFd socket;
    uint64_t id = 0;
  };

  void SetUp() override { Make({}); }
  void Make(std::vector<gid_t> gids) {
    ControlSessions::Options options;
    options.control_gids = std::move(gids);
    options.model.name = "a \"name\" \xff";
    options.model.identity = std::string(64, 'a');
    options.model.width = 8;
    options.model.precision = "fp32";
    options.engine_generation = 0xabc;
    options.stats = stats_->writer();
    options.log = LogLine([this](LogLevel, const std::string& line) { log_ += line + "\n"; });
    options.verbosity = [this] { return verbosity_; };
    options.set_verbosity = [this](LogVerbosity verbosity) { verbosity_ = verbosity; };
    sessions_.emplace(std::move(options), ControlSessions::Loop{.watch =
                                                                    [this](int fd, uint64_t id) {
                                                                      last_id_ = id;
                                                                      return watch_ok_ &&
                                                                             watched_.emplace(fd, id).second;
                                                                    },
                                                                .unwatch = [this](int fd) { watched_.erase(fd); },
                                                                .facts =
                                                                    [this] {
                                                                      return ControlSessions::Facts{state_, 5, 4};
                                                                    },
                                                                .hand_over = [this] { ++hand_overs_; }});
  }

  // A connection whose first message is `message`.
  Asker Open(const std::string& message, Peer peer = {.pid = 77, .uid = geteuid(), .gid = 1}) {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    Asker asker{.socket = UniqueFd(pair[0])};
    EXPECT_EQ(send(pair[0], message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
    sessions_->Take(UniqueFd(pair[1]), peer, now_ns_);
    asker.id = last_id_;
    return asker;
  }
  void Send(const Asker& asker, const std::string& message) {
    static_cast<void>(send(asker.socket.get(), message.data(), message.size(), MSG_NOSIGNAL));
    sessions_->OnReady(asker.id, now_ns_);
  }
  static std::string Request(ControlCommand command, std::string_view body = {}) {
    return MakeControlMessage({.request_id = 3, .command = static_cast<uint32_t>(command)}, body);
  }
  static std::string Registration(StandbyState state = StandbyState::kReady) {
    const StandbyBody body =
        ToBody({.identity = std::string(64, 'a'), .precision = "fp32", .width = 8, .pid = 99, .state = state});
    return Request(ControlCommand::kRegisterStandby, BytesOf(body));
  }
  static std::optional<ControlAnswer> Read(const Asker& asker, ControlCommand command = ControlCommand::kStatus) {
    std::vector<char> buffer(kControlMessageBytesMax);
    const ssize_t count = recv(asker.socket.get(), buffer.data(), buffer.size(), 0);
    if (count <= 0) return std::nullopt;
    const Result<ControlAnswer> answer = ParseAnswer({buffer.data(), static_cast<size_t>(count)},
                                                     {.request_id = 3, .command = static_cast<uint32_t>(command)});
    EXPECT_TRUE(answer.ok()) << answer.status().message();
    return answer.ok() ? std::optional(answer.value()) : std::nullopt;
  }
  static bool Ended(const Asker& asker) {
    char byte;
    return recv(asker.socket.get(), &byte, 1, 0) == 0;
  }
  void ExpectRefused(const Asker& asker, StatusCode code, const std::string& words,
                     ControlCommand command = ControlCommand::kStatus) {
    const std::optional<ControlAnswer> answer = Read(asker, command);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->code, code);
    EXPECT_NE(answer->body.find(words), std::string::npos) << answer->body;
  }
  uint64_t refused() const { return stats_->writer().Get(Counter::kControlRefused); }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  uint64_t now_ns_ = kNsPerSecond;
  EngineState state_ = kEngineServing;
  LogVerbosity verbosity_ = LogVerbosity::kWarn;
  bool watch_ok_ = true;
  int hand_overs_ = 0;
  uint64_t last_id_ = 0;
  std::string log_;
  std::map<int, uint64_t> watched_;
  std::optional<ControlSessions> sessions_;
};

TEST_F(ControlSessionsTest, StatusIsOneJsonObjectWhateverTheNamesHold) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  const std::optional<ControlAnswer> answer = Read(asker);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->code, StatusCode::kOk);
  for (const char* part : {"\"engine_generation\":\"0000000000000abc\"", "\"state\":\"serving\"", "\"lanes\":5",
                           "\"clients\":4", "\"log_level\":\"warn\"", "\"standbys\":[]", "a \\\"name\\\""}) {
    EXPECT_NE(answer->body.find(part), std::string::npos) << part << " in " << answer->body;
  }
}

TEST_F(ControlSessionsTest, ASessionTakesSeveralCommands) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_TRUE(Read(asker).has_value());
  const LogLevelBody body = {.verbosity = static_cast<uint32_t>(LogVerbosity::kTrace), .reserved = 0};
  Send(asker, Request(ControlCommand::kSetLogLevel, BytesOf(body)));
  const std::optional<ControlAnswer> answer = Read(asker, ControlCommand::kSetLogLevel);
  ASSERT_TRUE(answer.has_value());
  LogLevelBody before = {};
  ASSERT_TRUE(BodyFrom(answer->body, &before));
  EXPECT_EQ(before.verbosity, static_cast<uint32_t>(LogVerbosity::kWarn));
  EXPECT_EQ(verbosity_, LogVerbosity::kTrace);
}

TEST_F(ControlSessionsTest, AnUnknownCommandLeavesTheSessionOpen) {
  const Asker asker = Open(MakeControlMessage({.request_id = 3, .command = 4711}, "later"));
  ExpectRefused(asker, StatusCode::kBadOption, "4711", static_cast<ControlCommand>(4711));
  Send(asker, Request(ControlCommand::kStatus));
  EXPECT_EQ(Read(asker)->code, StatusCode::kOk);
  EXPECT_EQ(refused(), 1U);
}

TEST_F(ControlSessionsTest, AStrangerIsToldWhyAndCounted) {
  const uid_t stranger = geteuid() + 1000;
  const Asker asker = Open(Request(ControlCommand::kStatus), {.pid = 5, .uid = stranger, .gid = 4000});
  ExpectRefused(asker, StatusCode::kRefused, "--control-gid");
  EXPECT_TRUE(Ended(asker));
  EXPECT_EQ(refused(), 1U);
  EXPECT_NE(log_.find("uid " + std::to_string(stranger) + " pid 5"), std::string::npos) << log_;
  EXPECT_EQ(sessions_->size(), 0U);
  EXPECT_TRUE(watched_.empty());
}

TEST_F(ControlSessionsTest, AStrangerCannotRegisterAStandby) {
  const Asker asker = Open(Registration(), {.pid = 5, .uid = geteuid() + 1000, .gid = 4000});
  ExpectRefused(asker, StatusCode::kRefused, "--control-gid", ControlCommand::kRegisterStandby);
  EXPECT_EQ(sessions_->standbys().size(), 0U);
}

TEST_F(ControlSessionsTest, RootAndMembersOfTheGroupMayControl) {
  Make({4000});
  const Peer peers[] = {{.pid = 5, .uid = 0, .gid = 0}, {.pid = 5, .uid = geteuid() + 1000, .gid = 4000}};
  for (const Peer& peer : peers) {
    const Asker asker = Open(Request(ControlCommand::kStatus), peer);
    const std::optional<ControlAnswer> answer = Read(asker);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->code, StatusCode::kOk) << answer->body;
    shutdown(asker.socket.get(), SHUT_RDWR);
    sessions_->OnReady(asker.id, now_ns_);
  }
}

TEST_F(ControlSessionsTest, ASecondOperatorIsToldWhenToTryAgain) {
  const Asker first = Open(Request(ControlCommand::kStatus));
  const Asker second = Open(Request(ControlCommand::kStatus));
  const std::optional<ControlAnswer> answer = Read(second);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->code, StatusCode::kOverloaded);
  EXPECT_EQ(answer->retry_after_ms, kControlStepMsMax);
  EXPECT_NE(answer->body.find("pid 77"), std::string::npos) << answer->body;
  EXPECT_TRUE(Ended(second));
  EXPECT_EQ(sessions_->size(), 1U);
  EXPECT_EQ(Read(first)->code, StatusCode::kOk);
}

TEST_F(ControlSessionsTest, AHangUpFreesThePlace) {
  {
    const Asker first = Open(Request(ControlCommand::kStatus));
    shutdown(first.socket.get(), SHUT_RDWR);
    sessions_->OnReady(first.id, now_ns_);
  }
  EXPECT_EQ(Read(Open(Request(ControlCommand::kStatus)))->code, StatusCode::kOk);
}

TEST_F(ControlSessionsTest, ASilentOperatorLosesThePlaceAfterAStep) {
  const Asker silent = Open(Request(ControlCommand::kStatus));
  EXPECT_TRUE(Read(silent).has_value());
  now_ns_ += kStepNs - 1;
  sessions_->Expire(now_ns_);
  EXPECT_EQ(sessions_->size(), 1U);
  now_ns_ += 1;
  sessions_->Expire(now_ns_);
  EXPECT_TRUE(Ended(silent));
  EXPECT_EQ(refused(), 1U);
  EXPECT_EQ(Read(Open(Request(ControlCommand::kStatus)))->code, StatusCode::kOk);
}

TEST_F(ControlSessionsTest, WhatWasSentInTimeIsReadBeforeThePlaceIsLost) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_TRUE(Read(asker).has_value());
  const std::string more = Request(ControlCommand::kStatus);
  ASSERT_EQ(send(asker.socket.get(), more.data(), more.size(), 0), static_cast<ssize_t>(more.size()));
  now_ns_ += kStepNs;  // the loop was late
  sessions_->Expire(now_ns_);
  EXPECT_EQ(Read(asker)->code, StatusCode::kOk);
  EXPECT_EQ(sessions_->size(), 1U);
}

TEST_F(ControlSessionsTest, ABusyOperatorLosesThePlaceToo) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_TRUE(Read(asker).has_value());
  const uint64_t until_ns = now_ns_ + kSessionNs;
  for (; now_ns_ + kStepNs / 2 < until_ns; now_ns_ += kStepNs / 2) {
    sessions_->Expire(now_ns_);
    Send(asker, Request(ControlCommand::kStatus));
    ASSERT_TRUE(Read(asker).has_value());
  }
  now_ns_ = until_ns;
  sessions_->Expire(now_ns_);
  EXPECT_TRUE(Ended(asker));
}

TEST_F(ControlSessionsTest, HalfAMessageEndsTheSession) {
  const std::string whole = Registration();
  for (size_t bytes = 8; bytes < whole.size(); ++bytes) {
    const Asker asker = Open(whole.substr(0, bytes));
    char answer[1024];
    EXPECT_GT(recv(asker.socket.get(), answer, sizeof(answer), 0), 0) << bytes;
    EXPECT_TRUE(Ended(asker)) << bytes;
  }
  EXPECT_EQ(sessions_->size(), 0U);
  EXPECT_EQ(sessions_->standbys().size(), 0U);
  EXPECT_EQ(refused(), whole.size() - 8);
}

TEST_F(ControlSessionsTest, AMessageLongerThanAnyEndsTheSession) {
  const Asker asker = Open(Request(ControlCommand::kStatus) + std::string(kControlBodyBytesMax + 1, 'x'));
  ExpectRefused(asker, StatusCode::kProtocolViolation, "no valid control message");
  EXPECT_TRUE(Ended(asker));
}

TEST_F(ControlSessionsTest, HandOverWithoutAReadyStandbyIsRefusedWithTheFix) {
  const Asker asker = Open(Request(ControlCommand::kHandOver));
  ExpectRefused(asker, StatusCode::kRefused, "--standby", ControlCommand::kHandOver);
  const Asker standby = Open(Registration(StandbyState::kPreparing));
  Send(asker, Request(ControlCommand::kHandOver));
  ExpectRefused(asker, StatusCode::kRefused, "of 1 registered none is ready", ControlCommand::kHandOver);
  EXPECT_EQ(hand_overs_, 0);
}

TEST_F(ControlSessionsTest, HandOverToAStandbyThatGivesNoSignOfLifeIsRefused) {
  const Asker standby = Open(Registration());
  now_ns_ += (kStandbySilentMs + 1) * kNsPerMs;
  const Asker asker = Open(Request(ControlCommand::kHandOver));
  ExpectRefused(asker, StatusCode::kRefused, "is stopped, or hangs", ControlCommand::kHandOver);
  Send(asker, Request(ControlCommand::kStatus));
  EXPECT_NE(Read(asker)->body.find("\"silent\""), std::string::npos);
  EXPECT_EQ(hand_overs_, 0);
  Send(standby,
       Request(ControlCommand::kUpdateStandby,
               BytesOf(StandbyStateBody{.state = static_cast<uint32_t>(StandbyState::kReady), .reserved = 0})));
  Send(asker, Request(ControlCommand::kHandOver));
  EXPECT_EQ(Read(asker, ControlCommand::kHandOver)->code, StatusCode::kOk);
  EXPECT_EQ(hand_overs_, 1);
}

TEST_F(ControlSessionsTest, HandOverIsConfirmedAndBegun) {
  const Asker standby = Open(Registration());
  EXPECT_EQ(Read(standby, ControlCommand::kRegisterStandby)->code, StatusCode::kOk);
  const Asker asker = Open(Request(ControlCommand::kHandOver));
  const std::optional<ControlAnswer> answer = Read(asker, ControlCommand::kHandOver);
  ASSERT_TRUE(answer.has_value());
  ASSERT_EQ(answer->code, StatusCode::kOk) << answer->body;
  HandOverBody body = {};
  ASSERT_TRUE(BodyFrom(answer->body, &body));
  EXPECT_EQ(body.engine_generation, 0xabcU);
  EXPECT_EQ(body.engine_pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(body.standby_pid, 77U) << "the kernel's word, not the standby's";
  EXPECT_EQ(hand_overs_, 1);
}

TEST_F(ControlSessionsTest, HandOverOfAnAskerThatIsGoneIsNotBegun) {
  const Asker standby = Open(Registration());
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
  const std::string message = Request(ControlCommand::kHandOver);
  ASSERT_EQ(send(pair[0], message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
  close(pair[0]);
  sessions_->Take(UniqueFd(pair[1]), {.pid = 5, .uid = geteuid(), .gid = 1}, now_ns_);
  EXPECT_EQ(hand_overs_, 0);
  EXPECT_EQ(sessions_->size(), 1U) << "the standby";
}

TEST_F(ControlSessionsTest, ALogLevelOfAnAskerThatIsGoneIsNotSet) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
  const LogLevelBody body = {.verbosity = 0, .reserved = 0};
  const std::string message = Request(ControlCommand::kSetLogLevel, BytesOf(body));
  ASSERT_EQ(send(pair[0], message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
  close(pair[0]);
  sessions_->Take(UniqueFd(pair[1]), {.pid = 5, .uid = geteuid(), .gid = 1}, now_ns_);
  EXPECT_EQ(verbosity_, LogVerbosity::kWarn);
}

TEST_F(ControlSessionsTest, ADrainingEngineShowsItsStatusAndTakesNoHandOver) {
  const Asker standby = Open(Registration());
  state_ = kEngineDraining;
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_NE(Read(asker)->body.find("\"state\":\"draining\""), std::string::npos);
  Send(asker, Request(ControlCommand::kHandOver));
  ExpectRefused(asker, StatusCode::kShuttingDown, "the next one", ControlCommand::kHandOver);
  EXPECT_EQ(sessions_->standbys().size(), 1U) << "it waits for the hang-up";
  const Asker late = Open(Registration());
  ExpectRefused(late, StatusCode::kShuttingDown, "the next one", ControlCommand::kRegisterStandby);
}

TEST_F(ControlSessionsTest, AStandbyTakesNoOperatorsPlaceAndNoDeadline) {
  const Asker standby = Open(Registration());
  EXPECT_EQ(Read(standby, ControlCommand::kRegisterStandby)->code, StatusCode::kOk);
  now_ns_ += 100 * kSessionNs;
  sessions_->Expire(now_ns_);
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_NE(Read(asker)->body.find("\"pid\":77"), std::string::npos);
}

TEST_F(ControlSessionsTest, AStandbyThatSendsSomethingElseIsGone) {
  const std::string others[] = {Request(ControlCommand::kHandOver), Request(ControlCommand::kStatus), Registration(),
                                "SUTRACTL and nonsense"};
  for (const std::string& other : others) {
    const Asker standby = Open(Registration());
    EXPECT_EQ(Read(standby, ControlCommand::kRegisterStandby)->code, StatusCode::kOk);
    Send(standby, other);
    EXPECT_TRUE(Ended(standby)) << "without an answer";
    EXPECT_EQ(sessions_->standbys().size(), 0U);
  }
  EXPECT_EQ(hand_overs_, 0);
}

TEST_F(ControlSessionsTest, AnOperatorBecomesNoStandby) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_TRUE(Read(asker).has_value());
  Send(asker, Registration());
  ExpectRefused(asker, StatusCode::kBadOption, "first message", ControlCommand::kRegisterStandby);
  EXPECT_TRUE(Ended(asker));
  const StandbyStateBody body = {.state = 2, .reserved = 0};
  const Asker other = Open(Request(ControlCommand::kUpdateStandby, BytesOf(body)));
  ExpectRefused(other, StatusCode::kBadOption, "standby's connection", ControlCommand::kUpdateStandby);
}

TEST_F(ControlSessionsTest, AnAskerThatReadsNothingLosesItsSession) {
  const Asker asker = Open(Request(ControlCommand::kStatus));
  for (int i = 0; i < 100'000 && sessions_->size() == 1; ++i) Send(asker, Request(ControlCommand::kStatus));
  EXPECT_EQ(sessions_->size(), 0U) << "an answer that does not fit would have to be kept";
}

TEST_F(ControlSessionsTest, AConnectionThatCannotBeWatchedIsClosed) {
  watch_ok_ = false;
  const Asker asker = Open(Request(ControlCommand::kStatus));
  EXPECT_EQ(sessions_->size(), 0U);
}

TEST_F(ControlSessionsTest, AnEventOfASessionThatIsGoneChangesNothing) {
  sessions_->OnReady(4711, now_ns_);
  sessions_->Expire(now_ns_);
  EXPECT_EQ(sessions_->size(), 0U);
}

}  // namespace
}  // namespace sutra
