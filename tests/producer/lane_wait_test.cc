// Waiting for a request: how a wait ends, where it sleeps when the engine is gone, and when it spins.
#include "producer/lane_wait.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/kit/wake_calls.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

using client::Attachment;
using client::WaitEnd;

class LaneWaitTest : public LaneTest {};

TEST_F(LaneWaitTest, SpinningStopsWhereItNeverPaysAndComesBackWhenItDoes) {
  for (int miss = 0; miss < 3; ++miss) {
    EXPECT_TRUE(client::WorthSpinning(lane_));
    client::NoteSpin(lane_, false);
  }
  EXPECT_FALSE(client::WorthSpinning(lane_));
  EXPECT_FALSE(client::WorthSpinning(lane_));
  EXPECT_TRUE(client::WorthSpinning(lane_)) << "now and then it tries again";
  client::NoteSpin(lane_, true);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(client::WorthSpinning(lane_));
    client::NoteSpin(lane_, true);
  }
}

TEST_F(LaneWaitTest, AWaitEndsWhenItIsDoneAtItsTimeOrWithTheEngine) {
  const uint32_t slot = Submit();
  Attachment* const attachment = Current();
  const auto done = [&] { return client::IsAnswered(lane_, slot); };
  EXPECT_EQ(client::WaitUntil(lane_, attachment, 0, 0, done), WaitEnd::kTime);
  EXPECT_EQ(client::WaitUntil(lane_, attachment, MonotonicNs() + kNsPerMs, 0, done), WaitEnd::kTime);
  std::thread answer([&] {
    engine_.Answer(slot);
    WakeSleepers(engine_.memory().reply());
  });
  EXPECT_EQ(client::WaitUntil(lane_, attachment, UINT64_MAX, 0, done), WaitEnd::kDone);
  answer.join();
  EXPECT_EQ(engine_.memory().request().client().sleepers.load(std::memory_order_relaxed), 0u);  // relaxed: no waiter
  std::thread death([&] { engine_.Die(); });
  EXPECT_EQ(client::WaitUntil(lane_, attachment, UINT64_MAX, 0, [] { return false; }), WaitEnd::kGone);
  death.join();
}

// Nothing of it changed: neither its home nor its end. It must look again all the same.
TEST_F(LaneWaitTest, AWaiterOfAGoneEngineWaitsForTheMoveAndGoesOnAtTheNextOne) {
  const uint32_t slot = Submit();
  std::thread waiter([&] { EXPECT_EQ(client::WaitForSlot(lane_, slot, UINT64_MAX, 0), WaitEnd::kDone); });
  Die();
  EXPECT_EQ(client::WaitForSlot(lane_, slot, MonotonicNs() + kNsPerMs, 0), WaitEnd::kTime) << "no engine yet";
  for (int i = 0; i < 100; ++i) client::BumpMoves(lane_);
  EngineEnd next;
  EXPECT_EQ(Open(&next), 1u);
  ASSERT_EQ(next.Take(), static_cast<int>(slot));
  next.Answer(slot);
  WakeSleepers(next.memory().reply());
  waiter.join();
}

}  // namespace
}  // namespace sutra::test
