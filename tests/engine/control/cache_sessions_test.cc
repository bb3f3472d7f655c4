// Cache commands in control sessions, message by message: what an asker sends, leaves out, or sends too much of, and
// what it is told while its command runs. The commands run when the test says so; the clock is the test's.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/control/control_sessions.h"
#include "engine/control/sealed_payload.h"
#include "shm/base/time.h"
#include "shm/stats/stats_segment.h"

namespace sutra {
namespace {

using Command = ControlCommand;
constexpr uint64_t kTickNs = kNsPerSecond / kCacheProgressPerSecondMax;

class CacheSessionsTest : public testing::Test {
 protected:
  struct Asker {
    UniqueFd socket;
    uint64_t id = 0;
  };
  struct Heard {
    ControlAnswer answer;
    UniqueFd payload;
  };

  void SetUp() override { Make(true); }
  void Make(bool cache) {
    ControlSessions::Options options;
    options.model.identity = std::string(64, 'a');
    options.stats = stats_->writer();
    options.control_gids = control_gids_;
    options.text_gids = text_gids_;
    if (cache) options.admin = &admin_;
    sessions_.emplace(std::move(options), ControlSessions::Loop{.watch =
                                                                    [this](int fd, uint64_t id) {
                                                                      last_id_ = id;
                                                                      return watched_.emplace(fd, id).second;
                                                                    },
                                                                .unwatch = [this](int fd) { watched_.erase(fd); },
                                                                .facts =
                                                                    [this] {
                                                                      return ControlSessions::Facts{state_, 5, 4};
                                                                    },
                                                                .hand_over = [] {}});
  }
  CacheReply Run(const CacheJob& job, AdminThread::Turn& turn) {
    payload_ = job.payload;
    went_on_ = turn.GoOn(30, 40);
    CacheReply reply;
    reply.status = status_;
    reply.body.entries = 7;
    return reply;
  }

  static std::string Message(Command command, std::string_view body) {
    return MakeControlMessage({.request_id = 3, .command = static_cast<uint32_t>(command)}, body);
  }
  static std::string Ask(Command command, uint32_t payload_bytes = 0) {
    CacheCallBody body = {};
    body.payload_bytes = payload_bytes;
    if (command == Command::kCachePage) body.bytes_max = 1000;
    if (command == Command::kCacheCommit) body.token = 1;
    return Message(command, BytesOf(body));
  }
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
  static std::optional<Heard> Hear(const Asker& asker, Command command) {
    std::vector<char> buffer(kControlMessageBytesMax);
    iovec part = {buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)];
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t count = recvmsg(asker.socket.get(), &message, MSG_CMSG_CLOEXEC);
    if (count <= 0) return std::nullopt;
    Result<ControlAnswer> answer = ParseAnswer({buffer.data(), static_cast<size_t>(count)},
                                               {.request_id = 3, .command = static_cast<uint32_t>(command)});
    EXPECT_TRUE(answer.ok()) << answer.status().message();
    if (!answer.ok()) return std::nullopt;
    Heard heard{.answer = std::move(answer).value(), .payload = UniqueFd()};
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
      heard.payload.reset(*static_cast<const int*>(static_cast<const void*>(CMSG_DATA(header))));
    }
    return heard;
  }
  static void Expect(const Asker& asker, Command command, StatusCode code, const std::string& words = "") {
    const std::optional<Heard> heard = Hear(asker, command);
    ASSERT_TRUE(heard.has_value());
    EXPECT_EQ(heard->answer.code, code) << heard->answer.body;
    EXPECT_NE(heard->answer.body.find(words), std::string::npos) << heard->answer.body;
  }
  void Finish() {
    EXPECT_TRUE(admin_.RunOne());
    sessions_->OnCacheReply(now_ns_);
  }
  static bool Ended(const Asker& asker) {
    char byte;
    const ssize_t count = recv(asker.socket.get(), &byte, 1, 0);
    return count == 0 || (count < 0 && errno == ECONNRESET);
  }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  std::vector<gid_t> control_gids_, text_gids_;
  AdminThread admin_{[this](const CacheJob& job, AdminThread::Turn& turn) { return Run(job, turn); }};
  uint64_t now_ns_ = kNsPerSecond;
  EngineState state_ = kEngineServing;
  Status status_;
  std::string payload_;
  bool went_on_ = false;
  uint64_t last_id_ = 0;
  std::map<int, uint64_t> watched_;
  std::optional<ControlSessions> sessions_;
};

TEST_F(CacheSessionsTest, ACommandIsAnsweredWhenItHasRun) {
  const Asker asker = Open(Ask(Command::kCacheCompact));
  EXPECT_FALSE(Hear(asker, Command::kCacheCompact).has_value());
  Finish();
  const std::optional<Heard> heard = Hear(asker, Command::kCacheCompact);
  ASSERT_TRUE(heard.has_value());
  CacheAnswerBody body = {};
  ASSERT_TRUE(BodyFrom(heard->answer.body, &body));
  EXPECT_EQ(body.entries, 7u);
  EXPECT_EQ(stats_->writer().Get(Counter::kControlRequests), 1u);
}

TEST_F(CacheSessionsTest, AFailureIsAnsweredWithItsMessageAndCounted) {
  status_ = Status(StatusCode::kStorageError, "the disk");
  const Asker asker = Open(Ask(Command::kCacheCompact));
  Finish();
  Expect(asker, Command::kCacheCompact, StatusCode::kStorageError, "the disk");
  EXPECT_EQ(stats_->writer().Get(Counter::kControlRefused), 1u);
}

TEST_F(CacheSessionsTest, ItsPayloadComesBeforeInPieces) {
  const std::string piece(kControlBodyBytesMax, 'x');
  const Asker asker = Open(Message(Command::kCachePayload, piece));
  Send(asker, Message(Command::kCachePayload, piece));
  Send(asker, Message(Command::kCachePayload, "end"));
  Send(asker, Ask(Command::kCacheErase, 2 * kControlBodyBytesMax + 3));
  Finish();
  Expect(asker, Command::kCacheErase, StatusCode::kOk);
  EXPECT_EQ(payload_, piece + piece + "end");
  EXPECT_EQ(stats_->writer().Get(Counter::kControlRequests), 1u) << "a piece is no request of its own";
  // And is used up.
  Send(asker, Ask(Command::kCacheErase, 3));
  Expect(asker, Command::kCacheErase, StatusCode::kBadOption, "0 came before");
}

TEST_F(CacheSessionsTest, APayloadOfAnotherSizeIsRefusedAndForgotten) {
  const Asker asker = Open(Message(Command::kCachePayload, "text"));
  Send(asker, Ask(Command::kCacheErase, 5));
  Expect(asker, Command::kCacheErase, StatusCode::kBadOption, "4 came before");
  Send(asker, Message(Command::kCachePayload, "other"));
  Send(asker, Ask(Command::kCacheErase, 5));
  Finish();
  EXPECT_EQ(payload_, "other");
}

TEST_F(CacheSessionsTest, APayloadIsBounded) {
  const std::string piece = Message(Command::kCachePayload, std::string(kControlBodyBytesMax, 'x'));
  const Asker asker = Open(piece);
  for (uint32_t i = 1; i < kCachePayloadBytesMax / kControlBodyBytesMax; ++i) Send(asker, piece);
  EXPECT_FALSE(Hear(asker, Command::kCacheImport).has_value());
  Send(asker, Message(Command::kCachePayload, "x"));
  Expect(asker, Command::kCacheImport, StatusCode::kBadOption, "at most");
}

TEST_F(CacheSessionsTest, ASilentOrSlowPayloadEndsTheSession) {
  const Asker asker = Open(Message(Command::kCachePayload, "text"));
  now_ns_ += kControlStepMsMax * kNsPerMs;
  sessions_->Expire(now_ns_);
  EXPECT_TRUE(Ended(asker));
  const Asker slow = Open(Message(Command::kCachePayload, "text"));
  for (int i = 0; i < 20; ++i) {
    now_ns_ += 600 * kNsPerMs;
    Send(slow, Message(Command::kCachePayload, "text"));
    sessions_->Expire(now_ns_);
  }
  EXPECT_EQ(sessions_->size(), 0u);
}

TEST_F(CacheSessionsTest, WhileItRunsNoTimeCountsAndItsAskerIsToldHowFarItIs) {
  const Asker asker = Open(Ask(Command::kCacheCompact));
  const uint64_t begun_ns = now_ns_;
  int told = 0;
  for (; now_ns_ < begun_ns + 60 * kNsPerSecond; now_ns_ += 50 * kNsPerMs) {
    sessions_->Expire(now_ns_);
    const std::optional<Heard> heard = Hear(asker, Command::kCacheCompact);
    if (!heard.has_value()) continue;
    CacheProgressBody progress = {};
    EXPECT_EQ(heard->answer.code, StatusCode::kNotReady);
    EXPECT_TRUE(BodyFrom(heard->answer.body, &progress));
    ++told;
  }
  EXPECT_GE(told, 60);
  EXPECT_LE(told, 60 * static_cast<int>(kCacheProgressPerSecondMax));
  Finish();
  Expect(asker, Command::kCacheCompact, StatusCode::kOk);
  // The session goes on where it was.
  Send(asker, Message(Command::kStatus, {}));
  EXPECT_TRUE(Hear(asker, Command::kStatus).has_value());
  now_ns_ += kControlStepMsMax * kNsPerMs;
  sessions_->Expire(now_ns_);
  EXPECT_TRUE(Ended(asker));
}

TEST_F(CacheSessionsTest, AnAskerThatReadsNothingIsDroppedAndItsCommandToldSo) {
  const Asker asker = Open(Ask(Command::kCacheCompact));
  for (int i = 0; sessions_->size() == 1; ++i) {
    ASSERT_LT(i, 1'000'000);
    now_ns_ += kTickNs;
    sessions_->Expire(now_ns_);
  }
  Finish();
  EXPECT_FALSE(went_on_);
}

TEST_F(CacheSessionsTest, AHangUpEndsTheCommandAndFreesThePlaceForTheNext) {
  Asker asker = Open(Ask(Command::kCacheCompact));
  asker.socket.reset();
  sessions_->OnReady(asker.id, now_ns_);
  EXPECT_EQ(sessions_->size(), 0u);
  const Asker early = Open(Ask(Command::kCacheInfo));
  Expect(early, Command::kCacheInfo, StatusCode::kOverloaded, "another cache command");
  Finish();
  EXPECT_FALSE(went_on_);
  Send(early, Ask(Command::kCacheInfo));
  Finish();
  EXPECT_TRUE(went_on_);
  Expect(early, Command::kCacheInfo, StatusCode::kOk);
}

TEST_F(CacheSessionsTest, OtherOperatorsAreServedMeanwhile) {
  const Asker first = Open(Ask(Command::kCacheCompact));
  const Asker second = Open(Message(Command::kStatus, {}));
  EXPECT_EQ(Hear(second, Command::kStatus)->answer.code, StatusCode::kOk);
  Send(second, Ask(Command::kCacheInfo));
  const std::optional<Heard> later = Hear(second, Command::kCacheInfo);
  ASSERT_TRUE(later.has_value());
  EXPECT_EQ(later->answer.code, StatusCode::kOverloaded);
  EXPECT_GT(later->answer.retry_after_ms, 0u);
  const Asker third = Open(Message(Command::kStatus, {}));
  Expect(third, Command::kStatus, StatusCode::kOverloaded);
  EXPECT_LE(sessions_->size(), 2u);
  Finish();
  Expect(first, Command::kCacheCompact, StatusCode::kOk);
  EXPECT_TRUE(Ended(first)) << "its place was taken";
  Send(second, Message(Command::kStatus, {}));
  EXPECT_EQ(Hear(second, Command::kStatus)->answer.code, StatusCode::kOk);
}

TEST_F(CacheSessionsTest, WhoSpeaksBeforeItsAnswerIsEnded) {
  const Asker asker = Open(Ask(Command::kCacheCompact));
  Send(asker, Ask(Command::kCacheCompact));
  Expect(asker, Command::kCacheCompact, StatusCode::kProtocolViolation, "waits for the answer");
  EXPECT_TRUE(Ended(asker));
  Finish();
  EXPECT_FALSE(went_on_);
}

TEST_F(CacheSessionsTest, ADrainCancelsAndRefuses) {
  const Asker asker = Open(Ask(Command::kCacheCommit));
  sessions_->Drain();
  EXPECT_TRUE(sessions_->busy());
  state_ = kEngineDraining;
  Finish();
  EXPECT_FALSE(went_on_);
  EXPECT_FALSE(sessions_->busy());
  Expect(asker, Command::kCacheCommit, StatusCode::kOk);  // what the command made of it
  Send(asker, Ask(Command::kCacheInfo));
  Expect(asker, Command::kCacheInfo, StatusCode::kShuttingDown);
}

TEST_F(CacheSessionsTest, WithoutACacheTheFixIsNamed) {
  Make(false);
  const Asker asker = Open(Ask(Command::kCacheInfo));
  Expect(asker, Command::kCacheInfo, StatusCode::kRefused, "--no-cache");
  sessions_->OnCacheReply(now_ns_);
  sessions_->Drain();
  EXPECT_FALSE(sessions_->busy());
}

TEST_F(CacheSessionsTest, TextsAreForThoseWhoMayReadThem) {
  const Peer member = {.pid = 5, .uid = 4711, .gid = 4712};
  control_gids_ = {4712};
  Make(true);
  const Asker counts = Open(Ask(Command::kCachePage), member);
  Expect(counts, Command::kCachePage, StatusCode::kRefused, "not read its cache");
  Send(counts, Message(Command::kCachePayload, "text"));
  Send(counts, Ask(Command::kCacheGet, 4));
  Expect(counts, Command::kCacheGet, StatusCode::kRefused, "not read its cache");
  Send(counts, Ask(Command::kCacheInfo));
  Finish();
  Expect(counts, Command::kCacheInfo, StatusCode::kOk);
  text_gids_ = {4712};
  Make(true);
  const Asker reader = Open(Ask(Command::kCachePage), member);
  Finish();
  Expect(reader, Command::kCachePage, StatusCode::kOk);
}

// A copy of a lane's memory, received and closed, would drop the lock on it.
TEST_F(CacheSessionsTest, DescriptorsThatAnAskerSendsAreNeverReceived) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const Asker asker = Open(Message(Command::kCachePayload, "te"));
  const std::string message = Message(Command::kCachePayload, "xt");
  iovec part = {const_cast<char*>(message.data()), message.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr with = {};
  with.msg_iov = &part;
  with.msg_iovlen = 1;
  with.msg_control = control;
  with.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&with);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  *static_cast<int*>(static_cast<void*>(CMSG_DATA(header))) = writing.get();
  ASSERT_EQ(sendmsg(asker.socket.get(), &with, 0), static_cast<ssize_t>(message.size()));
  writing.reset();
  sessions_->OnReady(asker.id, now_ns_);
  char byte;
  EXPECT_EQ(read(reading.get(), &byte, 1), 0) << "nobody holds the other end any more";
  Send(asker, Ask(Command::kCacheErase, 4));
  Finish();
  EXPECT_EQ(payload_, "text");
}

}  // namespace
}  // namespace sutra
