// The order with scripted backlogs: take() is the test's, so that what each visit may take is seen exactly. Parking is
// tried with a real client thread, and with an engine that leaves a step out, whose lost requests must be noticed.
#include "engine/lanes/turn_order.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "shm/base/cpu_pause.h"
#include "shm/sleep_wake.h"
#include "tests/kit/scripted_lane.h"
#include "tests/kit/seed.h"
#include "tests/kit/wake_calls.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using testing::ScriptedLane;
constexpr int64_t kQuantum = TurnOrder::kQuantumBytes;

// Clients, their lanes, and what waits in each; an endless lane never runs out of requests of one size.
class TurnOrderTest : public ::testing::Test {
 protected:
  struct Backlog {
    std::unique_ptr<ScriptedLane> scripted;
    std::deque<int64_t> costs;
    int64_t endless = 0;
    int64_t taken = 0;
  };

  ClientPtr NewClient() { return std::make_shared<Client>(next_client_++, 1000, 1, "scripted"); }
  uint64_t AddLane(const ClientPtr& client, bool parkable = true) {
    const uint64_t id = next_lane_++;
    Backlog& backlog = lanes_[id];
    backlog.scripted = std::make_unique<ScriptedLane>(LaneGeometry{4, 256, 4}, id, client);
    order_.Add(backlog.scripted->lane(), parkable);
    return id;
  }
  uint64_t AddEndless(const ClientPtr& client, int64_t cost) {
    const uint64_t id = AddLane(client);
    lanes_[id].endless = cost;
    return id;
  }
  int64_t Take(const std::shared_ptr<Lane>& lane, int64_t bytes) {
    Backlog& backlog = lanes_.at(lane->id());
    looked_at_.push_back(lane->id());
    int64_t cost = 0;
    while (cost < bytes) {
      if (backlog.endless > 0) {
        cost += backlog.endless;
      } else if (!backlog.costs.empty()) {
        cost += backlog.costs.front();
        backlog.costs.pop_front();
      } else {
        break;
      }
    }
    backlog.taken += cost;
    visit_ += cost;
    visited_ = lane->client().get();
    return cost;
  }
  // One turn of at most `visits` visits; the costs of each visit that looked at anything are in visits_.
  bool Turn(size_t visits_max = SIZE_MAX) {
    looked_at_.clear();
    visits_.clear();
    size_t count = 0;
    return order_.Turn([this](const std::shared_ptr<Lane>& lane, int64_t bytes) { return Take(lane, bytes); },
                       [&] {
                         if (visited_ != nullptr) visits_.emplace_back(visited_, visit_);
                         visited_ = nullptr;
                         visit_ = 0;
                         return ++count >= visits_max;
                       });
  }
  bool Parked(uint64_t id) { return IsParked(lanes_.at(id).scripted->lane()->reply()); }

  TurnOrder order_;
  std::map<uint64_t, Backlog> lanes_;
  uint64_t next_client_ = 1, next_lane_ = 1;
  std::vector<uint64_t> looked_at_;
  std::vector<std::pair<const Client*, int64_t>> visits_;
  const Client* visited_ = nullptr;
  int64_t visit_ = 0;
};

using Ids = std::vector<uint64_t>;

TEST_F(TurnOrderTest, ATurnLooksAtEveryRingOnceIfThereIsLittleToDo) {
  EXPECT_FALSE(Turn());
  const ClientPtr a = NewClient(), b = NewClient();
  AddLane(a);
  AddLane(b);
  AddLane(a);
  lanes_[1].costs = {100};
  EXPECT_TRUE(Turn());
  std::sort(looked_at_.begin(), looked_at_.end());
  EXPECT_EQ(looked_at_, Ids({1, 2, 3}));
  EXPECT_FALSE(Turn());
  EXPECT_EQ(looked_at_.size(), 3u);
}

TEST_F(TurnOrderTest, ATurnThatIsOverGoesOnWithTheNextClient) {
  for (int i = 0; i < 5; ++i) AddEndless(NewClient(), 100);
  std::set<const Client*> seen;
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(Turn(1));
    ASSERT_EQ(visits_.size(), 1u);
    seen.insert(visits_[0].first);
  }
  EXPECT_EQ(seen.size(), 5u);
}

TEST_F(TurnOrderTest, ATurnThatDidNotLookEverywhereIsNotIdle) {
  for (int i = 0; i < 3; ++i) AddLane(NewClient());
  EXPECT_TRUE(Turn(2));
  EXPECT_FALSE(Turn(3));
  // A quantum that is spent on looking leaves rings unseen too.
  const ClientPtr many = NewClient();
  for (int64_t i = 0; i < kQuantum / TurnOrder::kLookBytes + 1; ++i) AddLane(many);
  EXPECT_TRUE(Turn());
}

TEST_F(TurnOrderTest, LanesOfOneClientGetTogetherWhatOneLaneGets) {
  const ClientPtr many = NewClient(), one = NewClient();
  std::vector<uint64_t> of_many;
  for (int i = 0; i < 250; ++i) of_many.push_back(AddEndless(many, 9 << 10));
  const uint64_t single = AddEndless(one, 9 << 10);
  for (int i = 0; i < 1000; ++i) Turn();
  int64_t sum = 0, least = INT64_MAX, most = 0;
  for (const uint64_t id : of_many) {
    sum += lanes_[id].taken;
    least = std::min(least, lanes_[id].taken);
    most = std::max(most, lanes_[id].taken);
  }
  EXPECT_NEAR(static_cast<double>(sum), static_cast<double>(lanes_[single].taken), 0.01 * static_cast<double>(sum));
  EXPECT_LE(most - least, kQuantum + (9 << 10)) << "its lanes take turns";
}

TEST_F(TurnOrderTest, NothingIsHoarded) {
  const ClientPtr client = NewClient();
  const uint64_t id = AddLane(client);
  for (int i = 0; i < 100; ++i) Turn();
  EXPECT_LE(client->turn_bytes, kQuantum);
  lanes_[id].endless = 1000;
  Turn();
  EXPECT_LE(lanes_[id].taken, kQuantum + 1000);
}

TEST_F(TurnOrderTest, ALargeRequestIsPaidBackBeforeTheNext) {
  const ClientPtr client = NewClient();
  const uint64_t id = AddEndless(client, 10 * kQuantum);
  EXPECT_TRUE(Turn());
  EXPECT_EQ(lanes_[id].taken, 10 * kQuantum);
  for (int i = 0; i < 9; ++i) {
    EXPECT_TRUE(Turn()) << "in debt is not idle";
    EXPECT_TRUE(looked_at_.empty());
  }
  order_.ParkSilent();
  order_.ParkSilent();
  EXPECT_FALSE(Parked(id)) << "whom nobody looked at is not silent";
  EXPECT_TRUE(Turn());
  EXPECT_EQ(lanes_[id].taken, 20 * kQuantum);
}

// Random clients, lanes and requests come, go and stop in random turns. Whoever has work is visited in rotation, and
// takes per visit at most a quantum and the rest of one request.
TEST_F(TurnOrderTest, InARandomRunNobodyTakesMoreThanItsShareOrWaitsLongerThanARound) {
  std::mt19937_64 random(test::TestSeed());
  const int64_t cost_max = 3 * kQuantum;
  std::vector<ClientPtr> clients;
  std::map<const Client*, int64_t> entitled, taken;             // since the client's work began
  std::map<const Client*, std::map<const Client*, int>> since;  // visits of others since the last one of this client
  const auto number = [&](uint64_t below) { return random() % below; };
  for (int i = 0; i < 12; ++i) clients.push_back(NewClient());
  for (const ClientPtr& client : clients) AddLane(client);
  for (int turn = 0; turn < 3000; ++turn) {
    if (number(20) == 0 && lanes_.size() < 60) AddLane(clients[number(clients.size())]);
    if (number(25) == 0) {
      const auto victim = std::next(lanes_.begin(), static_cast<ptrdiff_t>(number(lanes_.size())));
      order_.Remove(victim->second.scripted->lane().get());
      lanes_.erase(victim);
    }
    for (auto& [id, backlog] : lanes_) {
      if (number(4) != 0) continue;
      const uint64_t count = number(8);
      for (uint64_t i = 0; i < count; ++i) {
        backlog.costs.push_back(1 + static_cast<int64_t>(number(number(10) == 0 ? cost_max : 4096)));
      }
    }
    std::map<const Client*, int64_t> credit;
    for (const ClientPtr& client : clients) credit[client.get()] = client->turn_bytes;
    Turn(1 + number(15));
    for (const auto& [client, cost] : visits_) {
      EXPECT_LE(cost, std::min(kQuantum, credit[client] + kQuantum) + cost_max);
      EXPECT_GT(credit[client] + kQuantum, 0) << "whoever is in debt is passed over";
    }
    std::set<const Client*> distinct;
    for (const auto& [client, cost] : visits_) EXPECT_TRUE(distinct.insert(client).second) << "once per turn";
    for (const ClientPtr& client : clients) {
      EXPECT_LE(client->turn_bytes, kQuantum);
      EXPECT_GT(client->turn_bytes, -cost_max - kQuantum);
    }
    ASSERT_EQ(order_.lanes(), lanes_.size());
  }
  // The rotation: with everybody busy, any window of as many visits as there are clients sees each of them once.
  for (const ClientPtr& client : clients) AddEndless(client, 1000);
  for (const ClientPtr& client : clients) client->turn_bytes = 0;
  for (auto& [id, backlog] : lanes_) backlog.costs.clear();
  std::vector<const Client*> visits;
  while (visits.size() < 40 * clients.size()) {
    Turn(1 + number(5));
    for (const auto& [client, cost] : visits_) visits.push_back(client);
  }
  for (size_t i = 0; i + clients.size() <= visits.size(); ++i) {
    const auto begin = visits.begin() + static_cast<ptrdiff_t>(i);
    EXPECT_EQ(std::set<const Client*>(begin, begin + static_cast<ptrdiff_t>(clients.size())).size(), clients.size());
  }
}

TEST_F(TurnOrderTest, ASilentLaneIsParkedAndComesBackFirst) {
  const ClientPtr a = NewClient(), b = NewClient();
  const uint64_t silent = AddLane(a), busy = AddEndless(b, 1000), deaf = AddLane(a, false);
  Turn();
  EXPECT_EQ(order_.ParkSilent(), 0u) << "a lane that was just added is not silent";
  Turn();
  EXPECT_EQ(order_.ParkSilent(), 1u);
  EXPECT_TRUE(Parked(silent));
  EXPECT_FALSE(Parked(busy));
  EXPECT_FALSE(Parked(deaf)) << "it could not be called back";
  Turn();
  EXPECT_EQ(std::set<uint64_t>(looked_at_.begin(), looked_at_.end()), std::set<uint64_t>({busy, deaf}));
  order_.Remove(lanes_[deaf].scripted->lane().get());
  EXPECT_EQ(order_.clients(), 1u);
  order_.Add(lanes_[silent].scripted->lane(), true);
  EXPECT_FALSE(Parked(silent));
  Turn();
  ASSERT_FALSE(looked_at_.empty());
  EXPECT_EQ(looked_at_[0], silent);
}

// The client published before it could see the word, so nobody rings.
TEST_F(TurnOrderTest, AnEntryThatCameBeforeTheParkingKeepsTheLanePolled) {
  const uint64_t id = AddLane(NewClient());
  EXPECT_EQ(order_.ParkSilent(), 0u);
  EXPECT_FALSE(Turn());
  lanes_[id].scripted->Submit(0, "text");
  EXPECT_EQ(order_.ParkSilent(), 0u);
  EXPECT_FALSE(Parked(id));
  EXPECT_EQ(order_.lanes(), 1u);
}

TEST_F(TurnOrderTest, LanesThatLeaveDuringAParkingDoNotDisturbTheRotation) {
  std::vector<ClientPtr> clients;
  for (int i = 0; i < 6; ++i) {
    clients.push_back(NewClient());
    AddLane(clients.back());
    if (i % 2 == 0) AddEndless(clients.back(), 100);
  }
  order_.ParkSilent();
  for (int i = 0; i < 3; ++i) Turn(5);
  EXPECT_EQ(order_.ParkSilent(), 6u);
  EXPECT_EQ(order_.lanes(), 3u);
  EXPECT_EQ(order_.clients(), 3u);
  std::set<uint64_t> seen;
  for (int i = 0; i < 3; ++i) {
    Turn(1);
    seen.insert(looked_at_.begin(), looked_at_.end());
  }
  EXPECT_EQ(seen.size(), 3u);
}

// A client thread and an engine thread that parks and sleeps as often as it can. `look` = false leaves out the look
// after the parking.
class Torture {
 public:
  static constexpr uint64_t kEntries = 5'000;

  explicit Torture(bool look) : look_(look) {
    int fds[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    client_socket_ = UniqueFd(fds[0]);
    engine_socket_ = UniqueFd(fds[1]);
    page_ = std::move(EnginePageMemory::Create(77)).value();
    order_.Add(lane_.lane(), true);
  }

  // RETURNS how many entries lay in a lane that nobody would have looked at again.
  uint64_t Run() {
    std::thread client([this] { Submit(); });
    Serve();
    client.join();
    return lost_;
  }

 private:
  void Submit() {
    std::mt19937_64 random(test::TestSeed());
    for (uint64_t i = 1; i <= kEntries; ++i) {
      lane_.writer().Publish(static_cast<uint32_t>(i % 4));
      EXPECT_TRUE(test::RingDoorbell(page_.page(), lane_.lane()->reply(), client_socket_.get()));
      decided_.store(i, std::memory_order_release);  // to ring, or that there is no need
      while (taken_.load(std::memory_order_acquire) < i) std::this_thread::yield();
      for (uint64_t pause = random() % 200; pause > 0; --pause) CpuPause();
    }
  }
  bool Turn() {
    return order_.Turn(
        [this](const std::shared_ptr<Lane>& lane, int64_t) {
          uint32_t slot = 0;
          if (lane->submissions().Next(&slot) != SubmissionReader::Take::kTaken) return int64_t{0};
          taken_.store(lane->submissions().position(), std::memory_order_release);
          return int64_t{1};
        },
        [] { return false; });
  }
  void Park() {
    if (look_) {
      order_.ParkSilent();
      return;
    }
    AnnounceParked(lane_.lane()->reply());
    FullFence();
    order_.Remove(lane_.lane().get());
  }
  // As the loop: sleeps with the lane parked or not; or stays awake, and then only a parked lane may wait.
  void Serve() {
    std::mt19937_64 random(test::TestSeed() + 1);
    while (taken_.load(std::memory_order_relaxed) < kEntries) {
      if (Turn()) continue;
      const bool sleep = random() % 2 == 0;
      if (random() % 8 == 0) AwaitEntry();  // which comes between the turn's look and the parking
      if (!sleep || random() % 2 == 0) {
        Park();
        if (order_.lanes() != 0 && !Turn()) Park();
      }
      if (sleep) {
        AnnounceEngineAsleep(page_.page());
        if (!Turn()) AwaitDoorbell();
        AnnounceEngineAwake(page_.page());
      } else if (order_.lanes() == 0) {
        AwaitDoorbell();
      }
    }
  }
  void AwaitEntry() {
    while (decided_.load(std::memory_order_acquire) <= taken_.load(std::memory_order_relaxed))
      std::this_thread::yield();
  }
  void AwaitDoorbell() {
    pollfd item = {engine_socket_.get(), POLLIN, 0};
    while (poll(&item, 1, 1) == 0) {
      // No doorbell yet. If the client has decided that the next entry needs none, none will come.
      if (decided_.load(std::memory_order_acquire) <= taken_.load(std::memory_order_relaxed)) continue;
      if (poll(&item, 1, 0) != 0) continue;
      ++lost_;
      break;
    }
    if (IsParked(lane_.lane()->reply())) order_.Add(lane_.lane(), true);
    char byte;
    while (recv(engine_socket_.get(), &byte, 1, MSG_DONTWAIT) == 1) continue;
  }

  const bool look_;
  ScriptedLane lane_{LaneGeometry{4, 256, 4}};
  UniqueFd client_socket_, engine_socket_;
  EnginePageMemory page_;
  TurnOrder order_;
  std::atomic<uint64_t> decided_{0}, taken_{0};
  uint64_t lost_ = 0;
};

TEST(TurnOrderTortureTest, NoRequestIsLostBetweenParkingSleepingAndRinging) {
  const test::Watchdog watchdog(std::chrono::seconds(120));
  EXPECT_EQ(Torture(true).Run(), 0u);
}

// The canary: without its last look the engine parks lanes that hold an entry, and the torture notices.
TEST(TurnOrderTortureTest, AParkingWithoutALastLookIsNoticed) {
  const test::Watchdog watchdog(std::chrono::seconds(120));
  EXPECT_GT(Torture(false).Run(), 0u);
}

}  // namespace
}  // namespace sutra
