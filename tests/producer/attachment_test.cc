// One connection to one engine: what says that it is gone, who is woken, and what stays while anything needs it.
#include "producer/attachment.h"

#include <thread>
#include <vector>

#include "producer/lane_wait.h"
#include "tests/producer/lane_fixture.h"

namespace sutra::test {
namespace {

using client::Attachment;
using client::WaitEnd;

class AttachmentTest : public LaneTest {};

// A dead engine makes no wake, and the waiter's own slice would take 200 ms: the wakes go on until no sleeper is left.
TEST_F(AttachmentTest, ToldDeathsLeaveNobodyAsleep) {
  const uint32_t slot = Submit();
  Attachment* const attachment = Current();
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      const auto done = [&] { return client::IsAnswered(lane_, slot); };
      EXPECT_EQ(client::WaitUntil(lane_, attachment, UINT64_MAX, 0, done), WaitEnd::kGone);
    });
  }
  const SharedWord<uint32_t>& sleepers = engine_.memory().request().client().sleepers;
  while (sleepers.load(std::memory_order_relaxed) < 4) std::this_thread::yield();  // relaxed: only waits for it
  EXPECT_EQ(Die(), SUTRA_ENGINE_GONE);
  EXPECT_EQ(sleepers.load(std::memory_order_relaxed), 0u);  // relaxed: no waiter is left
  for (std::thread& waiter : waiters) waiter.join();
}

// An engine wrote the client's words, or a thread of the client was stopped: telling ends all the same.
TEST_F(AttachmentTest, ASleeperThatNeverLeavesHoldsNobodyUp) {
  // relaxed: one thread
  Current()->connection.mapping.request.client().sleepers.store(1, std::memory_order_relaxed);
  EXPECT_EQ(Die(), SUTRA_ENGINE_GONE);
  EXPECT_EQ(client::TellDeath(lane_), SUTRA_OK) << "once";
}

// What the helper thread does when every waiter has left and released its slot meanwhile.
TEST_F(AttachmentTest, AGoneOneIsClosedWithItsLastPin) {
  Attachment* const first = client::Pin(lane_);
  ASSERT_NE(first, nullptr);
  ASSERT_EQ(client::Pin(lane_), first);
  Die();
  client::Unpin(lane_, first);
  EXPECT_EQ(Current(), first);
  EXPECT_GE(first->connection.socket, 0) << "the other pin may be a doorbell under way";
  client::Unpin(lane_, first);
  EXPECT_EQ(Current(), nullptr);
  EXPECT_EQ(client::Pin(lane_), nullptr);
}

TEST_F(AttachmentTest, AKeptVectorKeepsTheMappingsButNoDescriptor) {
  const uint32_t slot = Submit();
  engine_.Vector(slot)[0] = 2.5f;
  engine_.Answer(slot);
  Attachment* const attachment = Current();
  Die();
  EXPECT_EQ(attachment->connection.socket, -1);
  EXPECT_EQ(attachment->connection.reply_fd, -1);
  EXPECT_EQ(attachment->connection.mapping.reply.vector(slot)[0], 2.5f);
  Release(slot);
  EXPECT_EQ(Current(), nullptr);
}

TEST_F(AttachmentTest, AHangUpAnOldHeartbeatOrDrainingIsNoEvidence) {
  EXPECT_FALSE(client::HungUp(*Current()));
  engine_.page()->heartbeat_ns.store(1, std::memory_order_relaxed);  // relaxed: one thread
  engine_.SetState(kLaneDraining);
  engine_.HangUp();
  EXPECT_TRUE(client::HungUp(*Current()));
  EXPECT_EQ(client::AskHowGone(Current(), MonotonicNs()), 0u);
  engine_.SetState(kLaneClosed, StatusCode::kShuttingDown);
  EXPECT_EQ(client::AskHowGone(Current(), MonotonicNs()), SUTRA_SHUTTING_DOWN);
}

}  // namespace
}  // namespace sutra::test
