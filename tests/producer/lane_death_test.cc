// The end of a lane's engine: nobody sleeps on, and nothing is closed under a thread that looks.
#include "producer/lane_death.h"

#include <thread>
#include <vector>

#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

using client::LanePhase;
using client::WaitEnd;

class LaneDeathTest : public LaneTest {};

// A dead engine makes no wake, and the waiter's own slice would take 200 ms: the wakes go on until no sleeper is left.
TEST_F(LaneDeathTest, ToldDeathsLeaveNobodyAsleep) {
  const uint32_t slot = Submit();
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      const auto done = [&] { return client::IsAnswered(lane_, slot, Sequence(slot)); };
      EXPECT_EQ(client::WaitUntil(lane_, UINT64_MAX, 0, done), WaitEnd::kGone);
    });
  }
  const SharedWord<uint32_t>& sleepers = engine_.memory().request().client().sleepers;
  while (sleepers.load(std::memory_order_relaxed) < 4) std::this_thread::yield();  // relaxed: only waits for it
  engine_.Die();
  ASSERT_TRUE(client::Pin(lane_));
  EXPECT_FALSE(client::CheckAlive(lane_, MonotonicNs()));
  client::TellDeath(lane_);
  EXPECT_EQ(sleepers.load(std::memory_order_relaxed), 0u);  // relaxed: no waiter is left
  client::Unpin(lane_);
  for (std::thread& waiter : waiters) waiter.join();
}

// What the helper thread does when every waiter has left and released its slot meanwhile.
TEST_F(LaneDeathTest, APinnedLaneIsClosedByItsLastPin) {
  ASSERT_TRUE(client::Pin(lane_));
  ASSERT_TRUE(client::Pin(lane_));
  engine_.Die();
  EXPECT_FALSE(client::CheckAlive(lane_, MonotonicNs()));
  client::Unpin(lane_);
  EXPECT_EQ(lane_->phase.load(std::memory_order_relaxed), LanePhase::kOpen);  // relaxed: one thread
  client::Unpin(lane_);
  EXPECT_EQ(lane_->phase.load(std::memory_order_relaxed), LanePhase::kEmpty);  // relaxed: one thread
  EXPECT_FALSE(client::Pin(lane_));
}

// An engine wrote the client's words, or a thread of the client was stopped: telling ends all the same.
TEST_F(LaneDeathTest, ASleeperThatNeverLeavesHoldsNobodyUp) {
  // relaxed: one thread
  lane_->connection.mapping.request.client().sleepers.store(1, std::memory_order_relaxed);
  engine_.Die();
  ASSERT_TRUE(client::Pin(lane_));
  EXPECT_FALSE(client::CheckAlive(lane_, MonotonicNs()));
  client::TellDeath(lane_);
  client::TellDeath(lane_);  // once
  client::Unpin(lane_);
}

}  // namespace
}  // namespace sutra::test
