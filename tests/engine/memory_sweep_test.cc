// Memory that runs out at the first allocation of an operation, then at the second, and so on: over a miss, a join, a
// hit and an attach. Whatever fails, the engine goes on, nothing stays in flight, and the same operation works as soon
// as there is memory again.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/lanes/acceptor.h"
#include "engine/lanes/lane_table.h"
#include "engine/lanes/listening_socket.h"
#include "engine/serving/device_worker.h"
#include "engine/serving/long_worker.h"
#include "engine/serving/request_path.h"
#include "shm/base/time.h"
#include "shm/handshake.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/failing_new.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

using test::FailingNew;
using testing::GatedBackend;
using testing::MemoryCache;
using testing::ScriptedLane;
using testing::ScriptedRequest;

constexpr uint32_t kWidth = 4;
constexpr uint32_t kTextBytesMax = 128 << 10;
constexpr uint64_t kFailuresMax = 10'000;  // far more allocations than any operation makes

class RequestSweep : public ::testing::Test {
 protected:
  RequestSweep() { Make(); }
  ~RequestSweep() override { StopWorkers(); }

  void StopWorkers() {
    long_worker_.reset();
    worker_.reset();
  }
  void Make() {
    StopWorkers();
    path_.reset();
    model_.emplace(ServedModel::Options{
        .backend = &backend_,
        .cache = &cache_,
        .ttl_s_default = 77,
        .batches =
            {.tokens_max = 100, .texts_max = 100, .queue_texts_max = 100, .queue_bytes_max = 256 << 20, .spin_us = 0},
        .stats = stats_->writer()});
    path_.emplace(&*model_);
  }
  void StartLongWorker() { long_worker_.emplace(&*model_); }
  void StartWorker() { worker_.emplace(&*model_, &backend_, DeviceWorker::Options{.log = {}, .device_lost = {}}); }

  // Takes and handles what the lane submitted, as a turn of the loop does.
  void Turn() {
    LaneReader::Taken taken;
    const char* why = "";
    for (const ScriptedLane* lane : {&lane_, &other_}) {
      while (reader_.Take(lane->lane(), &taken, &why) == LaneReader::Next::kTaken) {
        while (!path_->Handle(&taken)) std::this_thread::yield();  // the worker has a lock
      }
    }
    model_->batcher.Flush();
  }
  void Submit(uint32_t slot, const std::string& text, uint64_t sequence) {
    ScriptedRequest request;
    request.sequence = sequence;
    lane_.Submit(slot, text, request);
  }
  bool Answered(uint32_t slot, uint64_t sequence) const { return lane_.answered_sequence(slot) == sequence; }
  StatusCode Await(uint32_t slot, uint64_t sequence) {
    while (!Answered(slot, sequence)) {
      model_->batcher.Flush();  // the loop does so in every turn
      std::this_thread::yield();
    }
    return lane_.status(slot);
  }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth};
  MemoryCache cache_;
  ScriptedLane lane_{LaneGeometry{8, kTextBytesMax, kWidth}, 1, 42};
  ScriptedLane other_{LaneGeometry{8, 4096, kWidth}, 2, 43};
  LaneReader reader_{kTextBytesMax};
  std::optional<ServedModel> model_;
  std::optional<RequestPath> path_;
  std::optional<DeviceWorker> worker_;
  std::optional<LongWorker> long_worker_;
  uint64_t sequence_ = 0;
};

// In every thread, from the loop's turn to the answer.
TEST_F(RequestSweep, AMissIsAnsweredOrOutOfMemoryAndTheSameTextWorksAfterwards) {
  uint64_t refused = 0, nth = 1;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, kFailuresMax);
    Make();  // so that every vector inside is as short as at the start
    StartWorker();
    const std::string text = "a text that needs memory of its own, number " + std::to_string(nth);
    Submit(0, text, ++sequence_);
    StatusCode status;
    {
      FailingNew memory(nth, FailingNew::Whose::kAllThreads);
      Turn();
      status = Await(0, sequence_);
      failed = memory.failed();
    }
    EXPECT_TRUE(status == StatusCode::kOk || status == StatusCode::kOutOfMemory) << nth << ": " << StatusName(status);
    refused += status == StatusCode::kOutOfMemory;
    EXPECT_EQ(model_->in_flight.size(), 0u) << nth;
    Submit(1, text, ++sequence_);
    Turn();
    EXPECT_EQ(Await(1, sequence_), StatusCode::kOk) << nth;
  }
  EXPECT_GT(refused, 0u);  // the canary: memory did run out where it matters
  EXPECT_GT(stats_->writer().Get(Counter::kOutOfMemory), 0u);
}

TEST_F(RequestSweep, ALongTextIsAnsweredOrOutOfMemoryAndTheSameTextWorksAfterwards) {
  uint64_t refused = 0, nth = 1;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, kFailuresMax);
    Make();
    StartWorker();
    StartLongWorker();
    const std::string text = std::to_string(nth) + std::string(100'000, 'l');
    Submit(0, text, ++sequence_);
    StatusCode status;
    {
      FailingNew memory(nth, FailingNew::Whose::kAllThreads);
      Turn();
      status = Await(0, sequence_);
      failed = memory.failed();
    }
    EXPECT_TRUE(status == StatusCode::kOk || status == StatusCode::kOutOfMemory) << nth << ": " << StatusName(status);
    refused += status == StatusCode::kOutOfMemory;
    Submit(1, text, ++sequence_);
    Turn();
    EXPECT_EQ(Await(1, sequence_), StatusCode::kOk) << nth;
    while (model_->long_texts.size() != 0) std::this_thread::yield();
    EXPECT_EQ(model_->in_flight.size(), 0u) << nth;
    EXPECT_EQ(model_->batcher.queued_bytes(), 0u) << nth << ": a charge was not given back";
  }
  EXPECT_GT(refused, 1u);
}

// As above, but memory stays short for a while.
TEST_F(RequestSweep, AMissDuringALongShortageIsAnsweredAfterIt) {
  for (uint64_t nth = 1; nth < 12; ++nth) {
    Make();
    StartWorker();
    const std::string text = "a text in a long shortage of memory, number " + std::to_string(nth);
    Submit(0, text, ++sequence_);
    {
      FailingNew memory(nth, FailingNew::Whose::kAllThreads, 50);
      Turn();
      static_cast<void>(Await(0, sequence_));
    }
    Submit(1, text, ++sequence_);
    Turn();
    EXPECT_EQ(Await(1, sequence_), StatusCode::kOk) << nth;
    EXPECT_EQ(model_->in_flight.size(), 0u);
  }
}

TEST_F(RequestSweep, AJoinFailsAloneAndTheFirstRequestIsAnswered) {
  for (bool failed = true; failed;) {
    static uint64_t nth = 0;
    ASSERT_LT(++nth, kFailuresMax);
    Make();
    const std::string text = "the same text, asked for twice, number " + std::to_string(nth);
    Submit(0, text, ++sequence_);
    const uint64_t first = sequence_;
    Turn();
    ScriptedRequest urgent;
    urgent.sequence = ++sequence_;
    urgent.priority = 0;  // raises the class, so that it is queued again
    lane_.Submit(1, text, urgent);
    {
      FailingNew memory(nth, FailingNew::Whose::kThisThread);
      Turn();
      failed = memory.failed();
    }
    StartWorker();
    EXPECT_EQ(Await(0, first), StatusCode::kOk) << nth;
    const StatusCode joined = Await(1, sequence_);
    EXPECT_TRUE(joined == StatusCode::kOk || joined == StatusCode::kOutOfMemory) << StatusName(joined);
    EXPECT_EQ(model_->in_flight.size(), 0u) << nth;
  }
}

// Texts that do not fit into one batch, one that another client joins, and an invalid one: whatever fails, all are
// answered, and nothing is left in the queue or in anybody's share of it.
TEST_F(RequestSweep, WhateverFailsEveryTextIsAnsweredAndTheQueueEndsEmpty) {
  uint64_t refused = 0, nth = 1;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, kFailuresMax);
    Make();
    StartWorker();
    const uint64_t sequence = ++sequence_;
    const std::string number = std::to_string(nth);
    Submit(0, std::string(58, 'a') + number, sequence);
    Submit(1, std::string(58, 'b') + number, sequence);
    Submit(2, std::string(58, 'c') + "\xff" + number, sequence);
    ScriptedRequest request;
    request.sequence = sequence;
    other_.Submit(0, std::string(58, 'b') + number, request);
    {
      FailingNew memory(nth, FailingNew::Whose::kAllThreads);
      Turn();
      for (uint32_t slot = 0; slot < 3; ++slot) refused += Await(slot, sequence) == StatusCode::kOutOfMemory;
      while (other_.answered_sequence(0) != sequence) model_->batcher.Flush();
      failed = memory.failed();
    }
    EXPECT_TRUE(lane_.status(2) == StatusCode::kInvalidUtf8 || lane_.status(2) == StatusCode::kOutOfMemory) << nth;
    EXPECT_EQ(model_->in_flight.size(), 0u) << nth;
    EXPECT_EQ(model_->batcher.queued_texts(), 0u) << nth;
    EXPECT_EQ(model_->batcher.queued_bytes(), 0u) << nth;
    EXPECT_EQ(model_->batcher.queued_cost(), 0u) << nth;
    EXPECT_EQ(lane_.lane()->client()->queued_bytes.load(std::memory_order_relaxed), 0u) << nth;
  }
  EXPECT_GT(refused, 3u);  // the canary
}

TEST_F(RequestSweep, AHitIsAnsweredOrOutOfMemory) {
  cache_.Insert("a text that is known already, and long", 0, std::vector<float>{1, 0, 0, 0},
                {.norm = 2, .token_count = 3, .truncated = false}, 1);
  uint64_t nth = 1;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, kFailuresMax);
    Submit(0, "a text that is known already, and long", ++sequence_);
    {
      FailingNew memory(nth, FailingNew::Whose::kThisThread);
      Turn();
      failed = memory.failed();
    }
    ASSERT_TRUE(Answered(0, sequence_)) << nth;
    EXPECT_EQ(lane_.status(0), failed ? StatusCode::kOutOfMemory : StatusCode::kOk) << nth;
  }
}

class AttachSweep : public ::testing::Test {
 protected:
  static bool Alive(int, int) { return true; }

  AttachSweep() : listener_(std::move(ListeningSocket::Open(directory_ / "s", 0600)).value()) {
    page_ = std::move(EnginePageMemory::Create(77)).value();
    options_.model.name = "fake";
    options_.model.identity = std::string(64, 'a');
    options_.model.width = kWidth;
    options_.model.tokens_max = 64;
    options_.engine_generation = 77;
    options_.text_bytes_max = 4096;
    options_.slots_default = 8;
    options_.peer_alive = Alive;
    options_.quota = {.total = {64, 1ull << 30}, .per_uid = {64, 1ull << 30}, .per_client = {64, 1ull << 30}};
    options_.attach_rate_max = 200;
    options_.engine_page_fd = page_.fd();
    options_.stats = stats_->writer();
    options_.log = [](LogLevel, const std::string&) {};
    address_.sun_family = AF_UNIX;
    const std::string path = directory_ / "s";
    std::memcpy(address_.sun_path, path.c_str(), path.size());
  }
  void Make() {
    table_.emplace(LaneTable::Options{.peer_alive = Alive, .stats = stats_->writer(), .log = options_.log},
                   LaneTable::Watcher{.watch_socket = [](int, uint64_t) { return true; },
                                      .watch_process = [](int, uint64_t) { return true; },
                                      .unwatch = [](int) {}});
    acceptor_.emplace(options_, Acceptor::Watcher{[this](int, uint64_t id) { id_ = id; }, [](int) {},
                                                  [this](AttachedLane lane) {
                                                    lane_id_ = lane.lane->id();
                                                    table_->Add(std::move(lane));
                                                  }});
    ASSERT_TRUE(acceptor_->Start().ok());
  }
  UniqueFd Connect() {
    UniqueFd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    return client;
  }
  // A step of the acceptor, as the loop makes it.
  template <typename Step>
  void InMemory(const Step& step) {
    try {
      step();
    } catch (const std::bad_alloc&) {
    }
  }
  // The whole attach; true when the lane is served. What the client sees otherwise is a refusal or the end of its
  // socket, never silence.
  bool Attach(bool* told) {
    const UniqueFd client = Connect();
    InMemory([&] { acceptor_->OnListen(listener_.fd(), MonotonicNs()); });
    HelloMessage hello = {};
    hello.magic = kHandshakeMagic;
    hello.layout_major = kLayoutMajor;
    hello.layout_minor = kLayoutMinor;
    *told = true;
    if (send(client.get(), &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello)) return false;
    InMemory([&] { acceptor_->OnReady(id_, MonotonicNs()); });
    while (acceptor_->making() > 0) {
      pollfd made = {acceptor_->made_fd(), POLLIN, 0};
      poll(&made, 1, -1);
      InMemory([&] { acceptor_->OnMade(MonotonicNs()); });
    }
    WelcomeMessage welcome = {};
    int fds[kWelcomeFdsMax];
    size_t fds_received = 0, received = 0;
    const MessageOutcome outcome =
        ReceiveMessage(client.get(), &welcome, sizeof(welcome), fds, {kWelcomeFds, kWelcomeFdsMax}, &fds_received,
                       &received, MonotonicNs() + 1);
    for (size_t i = 0; i < fds_received; ++i) close(fds[i]);
    if (outcome != MessageOutcome::kOk || welcome.status != 0) {
      *told = outcome != MessageOutcome::kTimeout;
      return false;
    }
    const LockedMessage locked = {kHandshakeMagic, welcome.lane_id};
    if (send(client.get(), &locked, sizeof(locked), MSG_NOSIGNAL) != sizeof(locked)) return false;
    InMemory([&] { acceptor_->OnReady(id_, MonotonicNs()); });
    ServingMessage serving = {};
    const ssize_t count = recv(client.get(), &serving, sizeof(serving), MSG_DONTWAIT);
    *told = count >= 0 || errno != EAGAIN;
    return count == sizeof(serving) && serving.status == 0 && table_->size() == 1;
  }
  // Once everything is given back.
  int NextDescriptor() const {
    while (acceptor_->clients().total().lanes > 0) poll(nullptr, 0, 1);
    const int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
  }

  const test::TempDir directory_;
  ListeningSocket listener_;
  sockaddr_un address_ = {};
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  EnginePageMemory page_;
  Acceptor::Options options_;
  std::optional<LaneTable> table_;
  std::optional<Acceptor> acceptor_;
  uint64_t id_ = 0, lane_id_ = 0;
};

TEST_F(AttachSweep, AnAttachIsServedOrRefusedAndLeavesNothing) {
  uint64_t refused = 0, nth = 1;
  for (bool failed = true; failed; ++nth) {
    ASSERT_LT(nth, kFailuresMax);
    Make();
    bool told = false, served;
    ASSERT_TRUE(Attach(&told));  // the spare descriptor and the like are there
    table_->CloseAll(StatusCode::kOk);
    const int next = NextDescriptor();
    {
      FailingNew memory(nth, FailingNew::Whose::kThisThread);
      served = Attach(&told);
      failed = memory.failed();
    }
    EXPECT_TRUE(told) << nth << ": the client hears nothing";
    EXPECT_TRUE(served || failed) << nth;
    refused += !served;
    table_->CloseAll(StatusCode::kOk);
    EXPECT_EQ(acceptor_->pending(), 0u) << nth;
    EXPECT_EQ(NextDescriptor(), next) << nth << ": a descriptor leaked";
    EXPECT_TRUE(Attach(&told)) << nth;
  }
  EXPECT_GT(refused, 3u);  // the canary
}

}  // namespace
}  // namespace sutra
