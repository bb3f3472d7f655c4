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
#include "tests/kit/wake_calls.h"
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
bool FakePeerAlive(int, int) { return lock_is_held.load(std::memory_order_relaxed); }

// A client whose lane has passed the handshake.
struct Client {
  explicit Client(uint64_t id, uint32_t slots = 8) : scripted({slots, kTextBytesMax, kWidth}, id, id) {}
  // A further lane of that process.
  Client(uint64_t id, const ClientPtr& process) : scripted({8, kTextBytesMax, kWidth}, id, process) {}
  const ClientPtr& client() const { return scripted.lane()->client(); }
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

  void AwaitTaken(uint64_t count) const {
    while (taken() < count) std::this_thread::yield();
  }
  void AwaitParked() const {
    while (!IsParked(scripted.lane()->reply())) std::this_thread::yield();
  }
  bool Ring(const EnginePage* page) const { return test::RingDoorbell(page, scripted.lane()->reply(), socket.get()); }

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
    attach.attach_rate_max = 200;
    attach.text_bytes_max = kTextBytesMax;
    attach.model = backend_.info();
    attach.peer_alive = FakePeerAlive;
    attach.stats = stats_->writer();
    attach.log = [](LogLevel, const std::string&) {};
    model_.emplace(ServedModel::Options{.backend = &backend_,
                                        .cache = &cache_,
                                        .ttl_s_default = 86'400,
                                        .batches = {.tokens_max = 4096,
                                                    .texts_max = 4096,
                                                    .queue_texts_max = 1024,
                                                    .queue_bytes_max = 256 << 20,
                                                    .spin_us = 0},
                                        .stats = stats_->writer()});
    loop_.emplace(std::move(options), std::move(attach), &*model_);
    ASSERT_TRUE(loop_->Prepare().ok());
  }
  void StartWorker() {
    worker_.emplace(&*model_, &backend_, DeviceWorker::Options{.log = {}, .device_lost = [this](const Status&) {
                                                                 loop_->ReportDeviceLost();
                                                               }});
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
  // A stranger's attach: its first message is nonsense, so the loop hangs up.
  UniqueFd Connect() {
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = directory_ / "s";
    std::copy(path.begin(), path.end(), address.sun_path);
    EXPECT_EQ(connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    const char nonsense[] = "not a hello";
    EXPECT_GT(send(socket.get(), nonsense, sizeof(nonsense), MSG_NOSIGNAL), 0);
    return socket;
  }
  // As the library does.
  void Send(Client& client, uint32_t slot, std::string_view text) {
    client.scripted.Submit(slot, text);
    EXPECT_TRUE(client.Ring(page_.page()));
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
  Send(client, 0, "apple");
  ASSERT_EQ(client.Await(0), StatusCode::kOk);
  EXPECT_EQ(client.scripted.result(0).source, uint32_t{kSourceModel});
  Send(other, 5, "apple");
  ASSERT_EQ(other.Await(5), StatusCode::kOk);
  EXPECT_EQ(other.scripted.result(5).source, uint32_t{kSourceShard});
  EXPECT_EQ(other.scripted.vector(5), client.scripted.vector(0));
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineServing});
  EXPECT_EQ(Count(Counter::kTexts), 2u);
}

TEST_F(EngineLoopTest, ATurnTakesAQuantumOfRequestsFromEachClient) {
  Make({});
  Client many(1, 64), one(2);
  Attach(&many);
  Attach(&one);
  for (uint32_t slot = 0; slot < 60; ++slot) many.scripted.Submit(slot, "text " + std::to_string(slot));
  one.scripted.Submit(0, "one");
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(one.taken(), 1u);
  const uint64_t first = many.taken();
  EXPECT_LE(first, uint64_t{TurnOrder::kQuantumBytes / TurnOrder::kRequestBytes});
  EXPECT_EQ(model_->batcher.queued_texts(), first + 1);
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(many.taken(), 60u);
  EXPECT_FALSE(loop_->PollLanes());
}

TEST_F(EngineLoopTest, ARequestThatMeetsAHeldLockWaitsWithItsLaneAndNobodyElseDoes) {
  Make({});
  Client blocked(1, 64), other(2);
  Attach(&blocked);
  Attach(&other);
  for (const char* text : {"apple", "pear"}) cache_.Insert(text, 0, std::vector<float>(kWidth, 0.5f), {}, 77);
  cache_.SetBusy("apple");
  blocked.scripted.Submit(0, "apple");
  blocked.scripted.Submit(1, "pear");
  other.scripted.Submit(0, "pear");
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_TRUE(loop_->PollLanes()) << "the loop must not sleep";
  EXPECT_EQ(other.Await(0), StatusCode::kOk);
  EXPECT_EQ(blocked.taken(), 1u) << "answers of a lane keep their order where they can";
  cache_.SetBusy("");
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(blocked.Await(0), StatusCode::kOk);
  EXPECT_EQ(blocked.Await(1), StatusCode::kOk);
  EXPECT_FALSE(loop_->PollLanes());
}

TEST_F(EngineLoopTest, ABlockedRequestIsAnsweredBeforeADrainEnds) {
  Make({.drain_s = 30});
  StartWorker();
  Client client(1);
  Attach(&client);
  cache_.SetBusy("apple");
  Run();
  Send(client, 0, "apple");
  client.AwaitTaken(1);
  kill(getpid(), SIGTERM);
  client.AwaitState(kLaneDraining);
  cache_.SetBusy("");
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrained);
}

TEST_F(EngineLoopTest, ALongTextIsPaidForByTheTurnsAfterIt) {
  Make({});
  Client client(1);
  Attach(&client);
  for (uint32_t slot = 0; slot < 8; ++slot) {
    client.scripted.Submit(slot, std::string(kTextBytesMax, static_cast<char>('a' + slot)));
  }
  EXPECT_TRUE(loop_->PollLanes());
  EXPECT_EQ(client.taken(), 1u);
  int turns = 1;
  for (; client.taken() < 8; ++turns) EXPECT_TRUE(loop_->PollLanes()) << "a turn that passes over is not idle";
  EXPECT_GE(turns, 7 * (kTextBytesMax / TurnOrder::kQuantumBytes));
}

// However many lanes a process fills, the others wait for one quantum of it and the rest of one text.
TEST_F(EngineLoopTest, LanesOfOneProcessDoNotMultiplyWhatOthersWait) {
  Make({});
  constexpr size_t kLongText = 8 << 10;
  size_t before_victim = 0;
  bool victim_served = false;
  cache_.on_lookup = [&](std::string_view text) {
    victim_served |= text == "victim";
    if (!victim_served) before_victim += text.size();
  };
  Client victim(1);
  std::vector<std::unique_ptr<Client>> flood;
  for (uint64_t id = 2; id < 62; ++id) {
    if (id == 32) Attach(&victim);
    flood.push_back(flood.empty() ? std::make_unique<Client>(id) : std::make_unique<Client>(id, flood[0]->client()));
    Attach(flood.back().get());
    for (uint32_t slot = 0; slot < 4; ++slot) {
      flood.back()->scripted.Submit(slot, std::to_string(id * 10 + slot) + std::string(kLongText, 'x'));
    }
  }
  victim.scripted.Submit(0, "victim");
  while (!victim_served) EXPECT_TRUE(loop_->PollLanes());
  EXPECT_LE(before_victim, size_t{TurnOrder::kQuantumBytes} + kLongText + 100);
}

// Hundreds of texts that take long: the heart beats and a stranger is answered meanwhile, since no turn takes them all.
TEST_F(EngineLoopTest, HeartbeatAndAttachesGoOnWhileManyClientsAreBusy) {
  Make({.tick_ns = 1});
  std::vector<std::unique_ptr<Client>> clients;
  for (uint64_t id = 1; id <= 40; ++id) {
    clients.push_back(std::make_unique<Client>(id));
    Attach(clients.back().get());
    clients.back()->scripted.Submit(0, "text " + std::to_string(id));
  }
  UniqueFd stranger;
  int texts = 0, beats = 0;
  uint64_t beat_ns = 0;
  bool stranger_answered = false;
  cache_.on_lookup = [&](std::string_view) {
    const uint64_t until_ns = MonotonicNs() + 2 * EngineLoop::kTurnNs;
    while (MonotonicNs() < until_ns) CpuPause();
    const uint64_t now_beat_ns = page_.page()->heartbeat_ns.load(std::memory_order_relaxed);
    if (now_beat_ns != beat_ns) ++beats;
    beat_ns = now_beat_ns;
    if (texts++ == 0) stranger = Connect();
    char byte;
    stranger_answered |= recv(stranger.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  Run();
  for (const auto& client : clients) client->AwaitTaken(1);
  loop_->ReportDeviceLost();
  AwaitEnd();
  EXPECT_EQ(texts, 40);
  EXPECT_GE(beats, 15);  // a turn takes at most two of these texts
  EXPECT_TRUE(stranger_answered);
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
  EXPECT_TRUE(client.Ring(page_.page()));
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  for (uint64_t sequence = 2; sequence < 200; ++sequence) {
    client.scripted.Submit(0, "again " + std::to_string(sequence), {.sequence = sequence});
    ASSERT_TRUE(client.Ring(page_.page()));
    ASSERT_EQ(client.Await(0, sequence), StatusCode::kOk);
  }
}

TEST_F(EngineLoopTest, WithinItsSpinTheLoopNeedsNoDoorbell) {
  Make({.spin_us = 1'000'000'000, .tick_ns = kNeverNs});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  for (uint64_t sequence = 1;; ++sequence) {
    client.scripted.Submit(0, "seen while polling", {.sequence = sequence});
    const bool parked = NeedsDoorbell(page_.page(), client.scripted.lane()->reply());  // this thread was away for long
    if (parked) {
      EXPECT_TRUE(client.Ring(page_.page()));
    }
    EXPECT_EQ(client.Await(0, sequence), StatusCode::kOk);
    if (!parked) break;
  }
  EXPECT_EQ(Count(Counter::kEngineSleeps), 0u);
}

// What is in a ring when the signal comes is the next engine's: its client moves it there when the lane is closed.
TEST_F(EngineLoopTest, ARequestInTheRingWhenTheSignalComesIsNeitherTakenNorAnswered) {
  Make({.drain_s = 3600, .tick_ns = kNeverNs});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  AwaitFirstSleep();
  client.scripted.Submit(0, "not rung for: only the signal wakes the loop");
  kill(getpid(), SIGTERM);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrained);
  EXPECT_EQ(client.taken(), 0u);
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  loop_->CloseLanes(StatusCode::kShuttingDown);
  EXPECT_EQ(client.close_reason(), StatusCode::kShuttingDown);
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  EXPECT_EQ(Count(Counter::kTexts), 0u);
}

TEST_F(EngineLoopTest, ADrainAnswersWhatWasTakenAndLeavesTheRestInTheRing) {
  Make({.drain_s = 3600});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  backend_.SetOpen(false);
  Send(client, 0, "taken");
  backend_.WaitForCalls(1);
  kill(getpid(), SIGTERM);
  client.AwaitState(kLaneDraining);
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineDraining});
  Send(client, 1, "too late");
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  backend_.SetOpen(true);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrained);
  EXPECT_EQ(client.Await(0), StatusCode::kOk);
  EXPECT_EQ(client.taken(), 1u);
  EXPECT_EQ(client.scripted.answered_sequence(1), 0u);
  loop_->CloseLanes(StatusCode::kShuttingDown);
  EXPECT_EQ(client.close_reason(), StatusCode::kShuttingDown);
  EXPECT_EQ(page_.page()->state.load(std::memory_order_relaxed), uint32_t{kEngineClosed});
  EXPECT_EQ(lanes_shown_.load(std::memory_order_relaxed), 0u);
}

TEST_F(EngineLoopTest, WhatADrainHasNoTimeForStaysUnanswered) {
  Make({.drain_s = 0});  // and nothing is computed
  Client client(1);
  Attach(&client);
  Run();
  Send(client, 0, "taken");
  while (model_->in_flight.size() == 0) std::this_thread::yield();
  kill(getpid(), SIGTERM);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrainCut);
  EXPECT_EQ(model_->in_flight.size(), 0u);
  loop_->CloseLanes(StatusCode::kShuttingDown);
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u);
  EXPECT_EQ(Count(Counter::kTextsLaneEnded), 1u);
}

TEST_F(EngineLoopTest, AViolatedLaneIsClosedAndCountedAndTheOthersAreServed) {
  Make({.spin_us = 50});
  StartWorker();
  Client violator(1), honest(2);
  Attach(&violator);
  Attach(&honest);
  backend_.SetOpen(false);
  Run();
  Send(violator, 0, "first");
  backend_.WaitForCalls(1);
  Send(violator, 0, "again, though it is held");
  violator.AwaitState(kLaneClosed);
  EXPECT_EQ(violator.close_reason(), StatusCode::kProtocolViolation);
  AwaitCount(Counter::kLanesViolated, 1);
  backend_.SetOpen(true);
  Send(honest, 0, "honest");
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
  ASSERT_TRUE(client.Ring(page_.page()));
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDeviceLost);
  loop_->CloseLanes(StatusCode::kEngineGone);
  EXPECT_EQ(client.scripted.answered_sequence(0), 0u) << "the next engine's";
}

TEST_F(EngineLoopTest, AConnectionIsAcceptedByTheLoop) {
  Make({});
  Run();
  const UniqueFd socket = Connect();
  char byte;
  EXPECT_EQ(recv(socket.get(), &byte, 1, 0), 0);  // hung up
  EXPECT_EQ(Count(Counter::kAttachesRefused), 1u);
}

// The loop never sleeps here: only the lane's own word makes its client ring.
TEST_F(EngineLoopTest, ASilentLaneIsParkedAndServedWhenItsClientRings) {
  Make({.spin_us = 1'000'000'000});
  StartWorker();
  Client client(1);
  Attach(&client);
  Run();
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    client.AwaitParked();
    client.scripted.Submit(0, "text " + std::to_string(sequence), {.sequence = sequence});
    EXPECT_TRUE(client.Ring(page_.page()));
    EXPECT_EQ(client.Await(0, sequence), StatusCode::kOk);
    EXPECT_FALSE(NeedsDoorbell(page_.page(), client.scripted.lane()->reply())) << "it is polled again";
  }
  EXPECT_EQ(Count(Counter::kEngineSleeps), 0u);
}

// Parked lanes are told too, and their requests stay in the ring as everybody's.
TEST_F(EngineLoopTest, ADrainReachesParkedLanes) {
  Make({.spin_us = 1'000'000'000, .drain_s = 3600});
  StartWorker();
  Client busy(1), parked(2);
  Attach(&busy);
  Attach(&parked);
  Run();
  parked.AwaitParked();
  backend_.SetOpen(false);
  busy.scripted.Submit(0, "taken");
  EXPECT_TRUE(busy.Ring(page_.page()));
  backend_.WaitForCalls(1);
  parked.AwaitParked();
  kill(getpid(), SIGTERM);
  parked.AwaitState(kLaneDraining);
  parked.scripted.Submit(0, "too late");
  EXPECT_TRUE(parked.Ring(page_.page()));
  backend_.SetOpen(true);
  EXPECT_EQ(AwaitEnd(), EngineLoop::End::kDrained);
  EXPECT_EQ(parked.scripted.answered_sequence(0), 0u);
  loop_->CloseLanes(StatusCode::kShuttingDown);
  EXPECT_EQ(parked.close_reason(), StatusCode::kShuttingDown);
  EXPECT_EQ(Count(Counter::kLanesShutDown), 2u);
}

TEST_F(EngineLoopTest, AParkedLaneWhoseSocketHangsUpDies) {
  Make({.spin_us = 1'000'000'000, .tick_ns = kNeverNs});
  Client client(1);
  Attach(&client);
  Run();
  client.AwaitParked();
  client.socket = UniqueFd();
  client.AwaitState(kLaneClosed);
  EXPECT_EQ(client.close_reason(), StatusCode::kEngineGone);
}

}  // namespace
}  // namespace sutra
