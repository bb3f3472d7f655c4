#include "engine/lanes/lane_table.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "shm/base/time.h"
#include "shm/sleep_wake.h"
#include "shm/stats/stats_segment.h"
#include "tests/kit/scripted_lane.h"

namespace sutra {
namespace {

using testing::ScriptedLane;
using Ids = std::vector<uint64_t>;

constexpr pid_t kClientPid = 1;
std::set<int> dead_fds;  // request memfds whose lock is gone
std::vector<int> asked_fds;
bool FakePeerAlive(int fd, int pid) {
  EXPECT_EQ(pid, kClientPid);
  asked_fds.push_back(fd);
  return dead_fds.count(fd) == 0;
}

// One client as the table sees it: a lane, and the two ends of its socket.
struct Client {
  explicit Client(uint64_t id, ClientPtr process, bool hot = false)
      : scripted({8, 4096, 4}, id, std::move(process), hot) {
    int fds[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    client = UniqueFd(fds[0]);
    engine = UniqueFd(fds[1]);
  }
  void Send(char byte, int times = 1) {
    for (int i = 0; i < times; ++i) EXPECT_EQ(send(client.get(), &byte, 1, MSG_NOSIGNAL), 1);
  }
  void SayHotHits(uint64_t count) { scripted.client().client().hot_hits.store(count, std::memory_order_relaxed); }
  int request_fd() const { return scripted.lane()->memory().request_fd(); }
  void Die() { dead_fds.insert(request_fd()); }
  bool parked() const { return IsParked(scripted.lane()->reply()); }
  uint32_t state() const { return scripted.lane()->reply().engine().state.load(std::memory_order_relaxed); }
  StatusCode close_reason() const {
    return static_cast<StatusCode>(scripted.lane()->reply().engine().close_reason.load(std::memory_order_relaxed));
  }

  ScriptedLane scripted;
  UniqueFd client, engine;
};

class LaneTableTest : public ::testing::Test {
 protected:
  LaneTableTest() { dead_fds.clear(); }

  // A process of its own, whose pidfd is any descriptor: the table hands it to the watcher.
  static ClientPtr Process(uint64_t id, bool with_pid_fd = true) {
    return std::make_shared<sutra::Client>(id, 1000, kClientPid, "scripted",
                                           UniqueFd(with_pid_fd ? dup(STDERR_FILENO) : -1));
  }
  // With the hot table.
  std::unique_ptr<Client> AttachHot(uint64_t id) { return Attach(id, Process(100 + id, false), true); }
  std::unique_ptr<Client> Attach(uint64_t id) { return Attach(id, Process(100 + id, false)); }
  std::unique_ptr<Client> Attach(uint64_t id, const ClientPtr& process, bool hot = false) {
    auto client = std::make_unique<Client>(id, process, hot);
    socket_fd_ = client->engine.get();
    AttachedLane attached;
    attached.lane = client->scripted.lane();
    attached.socket = std::move(client->engine);
    table_.Add(std::move(attached));
    return client;
  }
  Ids Turn() {
    Ids ids;
    Visit([&](const std::shared_ptr<Lane>& lane) { ids.push_back(lane->id()); });
    return ids;
  }
  // A turn that finds every ring empty.
  template <typename Look>
  void Visit(const Look& look) {
    table_.Turn(
        [&](const std::shared_ptr<Lane>& lane, int64_t) {
          look(lane);
          return int64_t{0};
        },
        [] { return false; });
  }
  // Silent for twice the time that parks.
  void Park() {
    table_.ParkSilent();
    Turn();
    table_.ParkSilent();
  }
  uint64_t Count(Counter counter) { return stats_->writer().Get(counter); }

  std::unique_ptr<StatsSegment> stats_ = StatsSegment::CreatePrivate();
  std::vector<std::string> lines_;
  std::vector<std::pair<int, uint64_t>> watched_sockets_, watched_processes_;
  std::vector<int> unwatched_;
  std::vector<uint32_t> hints_;  // the first of each look
  bool epoll_is_full_ = false;
  int socket_fd_ = -1;  // of the last Attach
  LaneTable table_{{.peer_alive = FakePeerAlive,
                    .stats = stats_->writer(),
                    .log = [this](LogLevel, const std::string& line) { lines_.push_back(line); }},
                   {.watch_socket =
                        [this](int fd, uint64_t id) {
                          if (epoll_is_full_) return false;
                          watched_sockets_.emplace_back(fd, id);
                          return true;
                        },
                    .watch_process =
                        [this](int fd, uint64_t id) {
                          if (epoll_is_full_) return false;
                          watched_processes_.emplace_back(fd, id);
                          return true;
                        },
                    .unwatch = [this](int fd) { unwatched_.push_back(fd); },
                    .hinted = [this](std::span<const uint32_t> hints) { hints_.push_back(hints[0]); }}};
};

TEST_F(LaneTableTest, AnAddedLaneIsWatchedCountedAndPolled) {
  const auto first = Attach(7);
  EXPECT_EQ(watched_sockets_, (std::vector<std::pair<int, uint64_t>>{{socket_fd_, 7}}));
  EXPECT_TRUE(watched_processes_.empty());
  const ClientPtr process = Process(77);
  const auto second = Attach(8, process);
  EXPECT_EQ(watched_processes_, (std::vector<std::pair<int, uint64_t>>{{process->pid_fd.get(), 77}}));
  EXPECT_EQ(Count(Counter::kAttaches), 2u);
  EXPECT_EQ(table_.size(), 2u);
}

TEST_F(LaneTableTest, EachTurnVisitsEveryLaneOnce) {
  EXPECT_EQ(Turn(), Ids());
  const auto a = Attach(1), b = Attach(2), c = Attach(3);
  for (int i = 0; i < 3; ++i) {
    const Ids ids = Turn();
    EXPECT_EQ(ids.size(), 3u);
    EXPECT_EQ(std::set<uint64_t>(ids.begin(), ids.end()), std::set<uint64_t>({1, 2, 3}));
  }
}

TEST_F(LaneTableTest, ASilentLaneIsParkedUntilItsSocketSpeaks) {
  const auto client = Attach(1);
  Park();
  EXPECT_EQ(Turn(), Ids());
  EXPECT_EQ(table_.parked(), 1u);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_TRUE(client->parked());
  client->Send(1);
  table_.OnSocket(1, false);
  EXPECT_FALSE(client->parked());
  EXPECT_EQ(Turn(), Ids({1}));
  table_.OnSocket(1, false);  // once
  EXPECT_EQ(Turn(), Ids({1}));
}

TEST_F(LaneTableTest, ALaneThatCannotBeHeardIsNeitherParkedNorLeftOutOfTheSweep) {
  epoll_is_full_ = true;
  const auto client = Attach(1, Process(77));
  Park();
  EXPECT_EQ(Turn(), Ids({1}));
  EXPECT_EQ(table_.parked(), 0u);
  client->Die();
  table_.Sweep();
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(LaneTableTest, AParkedLaneDetachesAndDies) {
  const auto detaches = Attach(1), hangs_up = Attach(2, Process(72)), dies = Attach(3, Process(73)), killed = Attach(4);
  Park();
  EXPECT_EQ(table_.parked(), 4u);
  detaches->Send(0);
  table_.OnSocket(1, false);
  hangs_up->client = UniqueFd();
  table_.OnSocket(2, true);
  dies->Die();
  table_.OnProcessEnd(73);
  killed->Die();
  table_.Sweep();
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(table_.parked(), 0u);
  EXPECT_EQ(Turn(), Ids());
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(Count(Counter::kLanesDead), 3u);
}

// Everything that its client still sent is read, however often it rang.
TEST_F(LaneTableTest, AGoodbyeBehindManyDoorbellsIsADetach) {
  const auto client = Attach(1);
  client->Send(1, 100);
  client->Send(0);
  client->client = UniqueFd();
  table_.OnSocket(1, true);
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(Count(Counter::kLanesDead), 0u);
}

TEST_F(LaneTableTest, OfManyDoorbellsAnEventTakesTwo) {
  const auto client = Attach(1);
  client->Send(1, 20);
  table_.OnSocket(1, false);
  int left = 0;
  for (char byte; recv(socket_fd_, &byte, 1, MSG_DONTWAIT) == 1;) ++left;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(left, 18);
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(LaneTableTest, AGoodbyeIsADetachAndNoLineIsWorthIt) {
  const auto client = Attach(1);
  client->Send(1, 3);
  client->Send(0);
  client->client = UniqueFd();  // the hang-up comes with it
  table_.OnSocket(1, true);
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(client->state(), uint32_t{kLaneClosed});
  EXPECT_EQ(client->close_reason(), StatusCode::kOk);
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(Count(Counter::kLanesDead), 0u);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(LaneTableTest, AHangUpWithoutAGoodbyeIsADeath) {
  const auto client = Attach(1);
  client->client = UniqueFd();
  table_.OnSocket(1, true);
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(client->close_reason(), StatusCode::kEngineGone);
  EXPECT_EQ(Count(Counter::kLanesDead), 1u);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_NE(lines_[0].find("lane 1 of uid 1000 pid 1 (scripted) closed: its process died"), std::string::npos)
      << lines_[0];
}

// The end of the stream is seen even if the event itself did not report it.
TEST_F(LaneTableTest, AnEndOfTheSocketThatIsOnlyReadIsADeathToo) {
  const auto client = Attach(1);
  client->client = UniqueFd();
  table_.OnSocket(1, false);
  EXPECT_EQ(Count(Counter::kLanesDead), 1u);
}

TEST_F(LaneTableTest, ASweepFindsWhoseLockIsGone) {
  const auto alive = Attach(1), dead = Attach(2), said_goodbye = Attach(3);
  table_.Sweep();
  EXPECT_EQ(table_.size(), 3u);
  dead->Die();
  said_goodbye->Send(0);
  said_goodbye->Die();
  table_.Sweep();
  EXPECT_EQ(Turn(), Ids({1}));
  EXPECT_EQ(Count(Counter::kLanesDead), 1u);
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(alive->state(), uint32_t{kLaneOpen});
}

TEST_F(LaneTableTest, ASweepAsksOnlyWhereNothingElseTells) {
  const auto watched = Attach(1, Process(77)), half = Attach(2);
  asked_fds.clear();
  table_.Sweep();
  EXPECT_EQ(asked_fds, std::vector<int>({half->request_fd()}));
}

// Its socket and its lock may have other holders by now: a forked child, or whoever it handed them to.
TEST_F(LaneTableTest, TheEndOfTheProcessEndsTheLaneWhoeverHoldsSocketAndLock) {
  const auto client = Attach(1, Process(77));
  table_.OnProcessEnd(1);
  EXPECT_EQ(table_.size(), 1u) << "the id of a lane is not one of a process";
  asked_fds.clear();
  table_.OnProcessEnd(77);
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_TRUE(asked_fds.empty());
  EXPECT_EQ(client->close_reason(), StatusCode::kEngineGone);
  EXPECT_EQ(Count(Counter::kLanesDead), 1u);
  EXPECT_EQ(unwatched_, std::vector<int>({watched_processes_[0].first}));
}

TEST_F(LaneTableTest, AProcessThatSaidGoodbyeBeforeItEndedHasDetached) {
  const auto client = Attach(1, Process(77));
  client->Send(1, 40);
  client->Send(0);
  table_.OnProcessEnd(77);
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(Count(Counter::kLanesDead), 0u);
}

// The socket tells, and in the end the process: a lock more or less costs nobody a question.
TEST_F(LaneTableTest, AWatchedLaneWhoseLockIsDroppedLastsAsLongAsItsProcess) {
  const auto client = Attach(1, Process(77));
  client->Die();
  table_.Sweep();
  EXPECT_EQ(table_.size(), 1u);
  table_.OnProcessEnd(77);
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(LaneTableTest, AProcessIsWatchedOnceAndAsLongAsItHasLanes) {
  const ClientPtr process = Process(77), other = Process(78);
  const auto a = Attach(1, process), b = Attach(2, process), c = Attach(3, other);
  ASSERT_EQ(watched_processes_.size(), 2u);
  a->Send(0);
  table_.OnSocket(1, false);
  EXPECT_TRUE(unwatched_.empty());
  b->Send(0);
  table_.OnSocket(2, false);
  EXPECT_EQ(unwatched_, std::vector<int>({process->pid_fd.get()})) << "an ended process would stay readable";
  const auto d = Attach(4, process);
  EXPECT_EQ(watched_processes_.size(), 3u);
}

TEST_F(LaneTableTest, TheEndOfAProcessEndsAllItsLanesAndNoOthers) {
  const ClientPtr process = Process(77), other = Process(78);
  const auto a = Attach(1, process), b = Attach(2, other), c = Attach(3, process);
  a->Die();
  b->Die();
  c->Die();
  table_.OnProcessEnd(77);
  EXPECT_EQ(Turn(), Ids({2}));
  EXPECT_EQ(Count(Counter::kLanesDead), 2u);
}

TEST_F(LaneTableTest, AViolatorIsClosedAfterTheTurnAndCountedWithItsReason) {
  const auto honest = Attach(1), violator = Attach(2);
  Ids seen;
  Visit([&](const std::shared_ptr<Lane>& lane) {
    seen.push_back(lane->id());
    if (lane->id() == 2) table_.ReportViolation(*lane, "it wrote nonsense");
  });
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_EQ(table_.size(), 2u);
  table_.EndViolators();
  EXPECT_EQ(Turn(), Ids({1}));
  EXPECT_EQ(violator->close_reason(), StatusCode::kProtocolViolation);
  EXPECT_EQ(Count(Counter::kLanesViolated), 1u);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_NE(lines_[0].find("it wrote nonsense"), std::string::npos);
  table_.EndViolators();  // once
  EXPECT_EQ(Count(Counter::kLanesViolated), 1u);
}

TEST_F(LaneTableTest, DrainingReachesParkedLanesAndThoseThatAreAddedLater) {
  const auto early = Attach(1);
  Park();
  table_.SetDraining();
  const auto late = Attach(2);
  EXPECT_EQ(early->state(), uint32_t{kLaneDraining});
  EXPECT_EQ(late->state(), uint32_t{kLaneDraining});
}

TEST_F(LaneTableTest, CloseAllClosesEveryLaneAndHangsUp) {
  const auto a = Attach(1), b = Attach(2);
  Park();
  table_.CloseAll(StatusCode::kShuttingDown);
  EXPECT_EQ(Count(Counter::kLanesShutDown), 2u);
  EXPECT_EQ(Count(Counter::kLanesEngineFailed), 0u);
  EXPECT_EQ(table_.size(), 0u);
  for (const auto* client : {a.get(), b.get()}) {
    EXPECT_EQ(client->close_reason(), StatusCode::kShuttingDown);
    char byte;
    EXPECT_EQ(recv(client->client.get(), &byte, 1, MSG_DONTWAIT), 0);
  }
}

// Whoever finds all in the hot table sends nothing, so it is parked.
TEST_F(LaneTableTest, HotHitsAreCountedForParkedLanesTooAndOnlyWhereThereIsATable) {
  const auto with = AttachHot(1), without = Attach(2);
  Park();
  with->SayHotHits(30);
  with->scripted.client().client().hot_hints[0].store(5, std::memory_order_relaxed);
  without->SayHotHits(1000);
  const uint64_t later_ns = MonotonicNs() + kNsPerSecond;
  table_.LookAtHotHits(later_ns);
  table_.LookAtHotHits(later_ns);
  EXPECT_EQ(Count(Counter::kHotHits), 30u);
  EXPECT_EQ(hints_, std::vector<uint32_t>{5});
}

TEST_F(LaneTableTest, ATickLooksAtABoundedNumberOfReportsAndAtAllInTurn) {
  std::vector<std::unique_ptr<Client>> clients;
  for (uint64_t id = 1; id <= 150; ++id) clients.push_back(AttachHot(id));
  for (const auto& client : clients) client->SayHotHits(1);
  const uint64_t later_ns = MonotonicNs() + kNsPerSecond;
  table_.LookAtHotHits(later_ns);
  EXPECT_EQ(Count(Counter::kHotHits), 64u);
  // Lanes that end are counted once more then, and skipped from then on.
  for (uint64_t id = 1; id <= 100; ++id) {
    clients[id - 1]->Send(0);
    table_.OnSocket(id, false);
  }
  EXPECT_EQ(Count(Counter::kHotHits), 100u);
  for (int tick = 0; tick < 5; ++tick) table_.LookAtHotHits(later_ns);
  EXPECT_EQ(Count(Counter::kHotHits), 150u);
}

TEST_F(LaneTableTest, TheLastHitsOfAClientAreCountedHoweverItsLaneEnds) {
  const auto gone = AttachHot(1), dead = AttachHot(2), last = AttachHot(3);
  const auto wait = MonotonicNs() + kNsPerMs;
  while (MonotonicNs() < wait) {
  }
  for (Client* client : {gone.get(), dead.get(), last.get()}) client->SayHotHits(10);
  gone->Send(0);
  table_.OnSocket(1, false);
  table_.OnSocket(2, true);
  EXPECT_EQ(Count(Counter::kHotHits), 20u);
  table_.CloseAll(StatusCode::kShuttingDown);
  EXPECT_EQ(Count(Counter::kHotHits), 30u);
}

// An event may arrive after its lane has ended.
TEST_F(LaneTableTest, EventsOfLanesThatEndedAreIgnored) {
  const auto client = Attach(1);
  client->Send(0);
  table_.OnSocket(1, false);
  table_.OnSocket(1, true);
  table_.OnProcessEnd(101);
  table_.OnSocket(99, true);
  EXPECT_EQ(Count(Counter::kDetaches), 1u);
  EXPECT_EQ(Count(Counter::kLanesDead), 0u);
}

using LaneTableDeathTest = LaneTableTest;

TEST_F(LaneTableDeathTest, ALaneThatIsAddedWhileATurnVisitsIsOurBug) {
  const auto client = Attach(1);
  EXPECT_DEATH(Visit([&](const std::shared_ptr<Lane>&) { Attach(2); }), "in_turn_");
}

}  // namespace
}  // namespace sutra
