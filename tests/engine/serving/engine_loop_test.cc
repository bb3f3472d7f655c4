// The loop over real epoll, sockets and shared memory, with lanes whose client ends the test holds and the fake model
// behind a gate.
#include "engine/serving/engine_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/serving/device_worker.h"
#include "shm/sleep_wake.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/gated_backend.h"
#include "tests/kit/memory_cache.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using testing::GatedBackend;
using testing::MemoryCache;
using testing::ScriptedLane;

constexpr uint32_t kWidth = 4;
constexpr uint32_t kTextBytesMax = 64 << 10;
constexpr uint64_t kNeverNs = 3600 * kNsPerSecond;

std::atomic<bool> lock_is_held{true};
bool FakePeerAlive(int) { return lock_is_held.load(std::memory_order_relaxed); }

// A client whose lane has passed the handshake.
struct Client {
  explicit Client(uint64_t id, uint32_t slots = 8) : scripted({slots, kTextBytesMax, kWidth}, id, id) {}
  StatusCode Await(uint32_t slot, uint64_t sequence = 1) const {
    while (scripted.answered_sequence(slot) != sequence) std::this_thread::yield();
    return scripted.status(slot);
  }
  void AwaitState(LaneState expected) const {
    const EngineLine& line = scripted.lane()->reply().engine();
    while (line.state.load(std::memory_order_acquire) != expected) std::this_thread::yield();
  }
  StatusCode close_reason() const {
    return static_cast<StatusCode>(scripted.lane()->reply().engine().close_reason.load(std::memory_order_relaxed));
  }
  uint64_t taken() const { return scripted.lane()->reply().engine().taken.load(std::memory_order_relaxed); }

  ScriptedLane scripted;
  UniqueFd socket;
};

class EngineLoopTest : public ::testing::Test {
 protected:
  EngineLoopTest() { lock_is_held.store(true, std::memory_order_relaxed); }
  ~EngineLoopTest() override {
    backend_.SetOpen(true);
    if (thread_.joinable()) {
      loop_->ReportDeviceLost();  // the fastest way to end
      thread_.join();
    }
    worker_.reset();
    shutdown_->LeaveOnNextSignal();  // restores the signals for the next test
  }

  struct Timing {
    uint32_t spin_us = 0;
    uint32_t drain_s = 0;
    uint64_t tick_ns = 50 * kNsPerMs;
  };
  void Make(const Timing& timing) {
    page_ = std::move(EnginePageMemory::Create(77)).value();
    shutdown_ = std::move(Shutdown::Prepare()).value();
    watchdog_.emplace(std::chrono::seconds(60));  // starts a thread: not before the signals are blocked
    EngineLoop::Options options;
    options.spin_us = timing.spin_us;
    options.drain_s = timing.drain_s;
    options.tick_ns = timing.tick_ns;
    listener_.emplace(std::move(ListeningSocket::Open(directory_ / "s", 0600)).value());
    options.listener = &*listener_;
    options.page = page_.page();
    options.shutdown = &*shutdown_;
    options.show_gauges = [this](const EngineLoop::Vitals& vitals) {
      lanes_shown_.store(vitals.lanes, std::memory_order_relaxed);
    };
    Acceptor::Options attach;
    attach.text_bytes_max = kTextBytesMax;
    attach.model = backend_.info();
    attach.peer_alive = FakePeerAlive;
    attach.stats = stats_->writer();
    attach.log = [](LogLevel, const std::string&) {};
    model_.emplace(
        ServedModel::Options{.backend = &backend_,
                             .cache = &cache_,
                             .ttl_s_default = 86'400,
                             .batches = {.tokens_max = 4096, .texts_max = 4096, .queue_texts_max = 1024, .spin_us = 0},
                             .stats = stats_->writer()});
    loop_.emplace(std::move(options), std::move(attach), &*model_);
    ASSERT_TRUE(loop_->Prepare().ok());
  }
  void StartWorker() {
    worker_.emplace(&*model_, DeviceWorker::Options{
                                  .log = {}, .device_lost = [this](const Status&) { loop_->ReportDeviceLost(); }});
  }
  void Attach(Client* client) {
    int fds[2] = {-1, -1};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    client->socket = UniqueFd(fds[0]);
    loop_->Add({.lane = client->scripted.lane(), .socket = UniqueFd(fds[1])});
  }
  void Run() {
    thread_ = std::thread([this] { end_ = loop_->Run(); });
  }
  EngineLoop::End AwaitEnd() {
    thread_.join();
    return end_;
  }
  uint64_t Count(Counter counter) { return stats_->writer().Get(counter); }
  void AwaitCount(Counter counter, uint64_t at_least) {
    while (Count(counter) < at_least) std::this_thread::yield();
  }
  // Returns when the loop has polled the rings for the last time before its first sleep.
  void AwaitFirstSleep() { AwaitCount(Counter::kEngineSleeps, 1); }

  test::TempDir directory_;
  std::optional<ListeningSocket> listener_;
  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  GatedBackend backend_{kWidth};
  MemoryCache cache_;
  EnginePageMemory page_;
  std::optional<Shutdown> shutdown_;
  std::optional<ServedModel> model_;
  std::optional<EngineLoop> loop_;
  std::optional<DeviceWorker> worker_;
  std::atomic<size_t> lanes_shown_{0};
  std::thread thread_;
  std::optional<test::Watchdog> watchdog_;
  EngineLoop::End end_ = EngineLoop::End::kLoopFailed;
};

TEST_F(EngineLoopTest, ARequestIsAnsweredByTheModelAndItsRepeatByTheCache) {
  Make({.spin_us = 50});
  StartWorker();
  Client client(1), other(2);
  Attach(&client);
  Attach(&other);
  Run();
  client.scripted.Submit(0, "apple");
  ASSERT_EQ(client.Await(0), StatusCode::kOk);
  EXPECT_EQ(client.scripted.result(0).source, uint32_t{kSourceModel});
  other.scripted.Submit(5, "apple");
  ASSERT_EQ(other.Await(5), StatusCode::kOk);
  EXPECT_EQ(other.scripted.result(5).source, uint32_t{kSourceShard});
  EXPECT_EQ(other.scripted.vector(5), client.scripted.vector(0));
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineServing});
  EXPECT_EQ(Count(Counter::kTexts), 2u);
}

TEST_F(EngineLoopTest, ATurnTakesABoundedNumberOfRequestsFromEachLane) {
  Make({});
  Client many(1, 64), one(2);
  Attach(&many);
  Attach(&one);
  for (uint32_t slot = 0; slot < 40; ++slot) many.scripted.Submit(slot, "text " + std::to_string(slot));
  one.scripted.Submit(0, "one");
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(many.taken(), EngineLoop::kRequestsPerTurn);
  EXPECT_EQ(one.taken(), 1u);
  EXPECT_EQ(model_->batcher.queued_texts(), EngineLoop::kRequestsPerTurn + 1);
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(many.taken(), 40u);
  EXPECT_FALSE(loop_->PollLanes());
}

TEST_F(EngineLoopTest, ATurnTakesABoundedNumberOfBytesFromEachLane) {
  Make({});
  Client client(1);
  Attach(&client);
  for (uint32_t slot = 0; slot < 8; ++slot) {
    client.scripted.Submit(slot, std::string(kTextBytesMax, static_cast<char>('a' + slot)));
  }
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(client.taken(), EngineLoop::kBytesPerTurn / kTextBytesMax);
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(client.taken(), 8u);
}

// Without a tick to wake it, only the doorbell tells a sleeping loop about a request. The first half shows that it
// really sleeps, and would go on sleeping.
TEST_F(EngineLoopTest, ADoorbellWakesASleepingLoop) {
  Make({.tick_ns = kNeverNs});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  AwaitFirstSleep();
  client.scripted.Submit(0, "unheard");
  const uint64_t until_ns = MonotonicNs() + 20 * kNsPerMs;
  while (MonotonicNs() < until_ns) std::this_thread::yield();
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  EXPECT_TRUE(RingDoorbell(page_.page(), client.socket.get()));
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  for (uint64_t sequence = 2; sequence < 200; ++sequence) {
    client.scripted.Submit(0, "again " + std::to_string(sequence), {.sequence = sequence});
    ASSERT_TRUE(RingDoorbell(page_.page(), client.socket.get()));
    ASSERT_EQ(client.Await(0, sequence), StatusCode::kOk);
  }
}

TEST_F(EngineLoopTest, WithinItsSpinTheLoopNeedsNoDoorbell) {
  Make({.spin_us = 1'000'000'000, .tick_ns = kNeverNs});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  client.scripted.Submit(0, "seen while polling");
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  EXPECT_EQ(Count(Counter::kEngineSleeps), 0u);
}

TEST_F(EngineLoopTest, ADrainAnswersWhatWasTakenAndRefusesTheRest) {
  Make({.drain_s = 3600});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  backend_.SetOpen(false);
  client.scripted.Submit(0, "taken");
  backend_.WaitForCalls(1);
  kill(getpid(), SIGTERM);
  client.AwaitState(kLaneDraining);
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineDraining});
  client.scripted.Submit(1, "too late");
  EXPECT_EQ(client.Await(1), StatusCode::kShuttingDown);
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  backend_.SetOpen(true);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrained);
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  loop_->CloseLanes(StatusCode::kShuttingDown);
  EXPECT_EQ(client.close_reason(), StatusCode::kShuttingDown);
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineClosed});
  EXPECT_EQ(lanes_shown_.load(std::memory_order_relaxed), 0u);
}

TEST_F(EngineLoopTest, ADrainWhoseTimeIsOverAnswersShuttingDown) {
  Make({.drain_s = 0});  // and nothing is computed
  Client client(1);
  Attach(&client);
  Run();
  client.scripted.Submit(0, "taken");
  while (model_->in_flight.size() == 0) std::this_thread::yield();
  kill(getpid(), SIGTERM);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrainCut);
  EXPECT_EQ(client.Await(0), StatusCode::kShuttingDown);
  EXPECT_EQ(model_->in_flight.size(), 0u);
}

TEST_F(EngineLoopTest, AViolatedLaneIsClosedAndCountedAndTheOthersAreServed) {
  Make({.spin_us = 50});
  StartWorker();
  Client violator(1), honest(2);
  Attach(&violator);
  Attach(&honest);
  backend_.SetOpen(false);
  Run();
  violator.scripted.Submit(0, "first");
  backend_.WaitForCalls(1);
  violator.scripted.Submit(0, "again, though it is held");
  violator.AwaitState(kLaneClosed);
  EXPECT_EQ(violator.close_reason(), StatusCode::kProtocolViolation);
  AwaitCount(Counter::kLanesViolated, 1);
  backend_.SetOpen(true);
  honest.scripted.Submit(0, "honest");
  EXPECT_EQ(honest.Await(0), StatusCode::kOk);
  EXPECT_EQ(violator.scripted.answered_sequence(0), 0u);
}

TEST_F(EngineLoopTest, ALaneWhoseSocketHangsUpDies) {
  Make({});
  Client client(1);
  Attach(&client);
  Run();
  client.socket = UniqueFd();
  client.AwaitState(kLaneClosed);
  EXPECT_EQ(client.close_reason(), StatusCode::kEngineGone);
  AwaitCount(Counter::kLanesDead, 1);
}

TEST_F(EngineLoopTest, AGoodbyeIsADetach) {
  Make({});
  Client client(1);
  Attach(&client);
  Run();
  const char goodbye = 0;
  ASSERT_EQ(send(client.socket.get(), &goodbye, 1, MSG_NOSIGNAL), 1);
  AwaitCount(Counter::kDetaches, 1);
  client.AwaitState(kLaneClosed);
  EXPECT_EQ(Count(Counter::kLanesDead), 0u);
}

TEST_F(EngineLoopTest, ALaneWhoseLockIsGoneIsFoundByTheSweep) {
  Make({.tick_ns = kNsPerMs});
  Client client(1);
  Attach(&client);
  Run();
  while (lanes_shown_.load(std::memory_order_relaxed) != 1) std::this_thread::yield();
  lock_is_held.store(false, std::memory_order_relaxed);
  AwaitCount(Counter::kLanesDead, 1);
  client.AwaitState(kLaneClosed);
  while (lanes_shown_.load(std::memory_order_relaxed) != 0) std::this_thread::yield();
}

TEST_F(EngineLoopTest, ALostDeviceEndsTheLoop) {
  Make({.tick_ns = kNeverNs});
  StartWorker();
  backend_.LoseDevice();
  Client client(1);
  Attach(&client);
  Run();
  AwaitFirstSleep();
  client.scripted.Submit(0, "text");
  ASSERT_TRUE(RingDoorbell(page_.page(), client.socket.get()));
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDeviceLost);
  EXPECT_EQ(client.Await(0), StatusCode::kModelError);
}

TEST_F(EngineLoopTest, AConnectionIsAcceptedByTheLoop) {
  Make({});
  Run();
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path = directory_ / "s";
  std::copy(path.begin(), path.end(), address.sun_path);
  ASSERT_EQ(connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const char nonsense[] = "not a hello";
  ASSERT_GT(send(socket.get(), nonsense, sizeof(nonsense), MSG_NOSIGNAL), 0);
  char byte;
  EXPECT_EQ(recv(socket.get(), &byte, 1, 0), 0);  // hung up
  EXPECT_EQ(Count(Counter::kAttachesRefused), 1u);
}

}  // namespace
}  // namespace sutra
