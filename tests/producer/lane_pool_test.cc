// The lanes of a client: which one a call gets, when another is opened, and what happens when none is left.
#include "producer/lane_pool.h"

#include <string>
#include <thread>
#include <vector>

#include "tests/producer/client_fixture.h"

namespace sutra::test {
namespace {

using client::ClientLane;

class LanePoolTest : public ClientTest {
 protected:
  // Holds nothing afterwards. RETURNS the lane a call would get, or nullptr and status_.
  ClientLane* Acquire(const ClientPtr& client) {
    ClientLane* lane = nullptr;
    if (!client::AcquireLane(client.get(), MonotonicNs(), 1, &lane, &status_)) return nullptr;
    EXPECT_GT(lane->free_count, 0u);
    lane->mutex.Unlock();
    return lane;
  }
  static uint32_t Lanes(const ClientPtr& client) {
    return client->lane_count.load(std::memory_order_relaxed);  // relaxed: one thread
  }
  // Takes `count` slots. Tries again while the helper thread opens the lanes for them.
  std::vector<sutra_ticket> Fill(const ClientPtr& client, size_t count) {
    std::vector<sutra_ticket> tickets;
    while (tickets.size() < count) {
      sutra_ticket ticket = 0;
      const sutra_status status = Submit(client, "held", &ticket);
      EXPECT_TRUE(status == SUTRA_OK || status == SUTRA_FULL) << sutra_error_text();
      if (status == SUTRA_OK) tickets.push_back(ticket);
    }
    return tickets;
  }

  sutra_status status_ = SUTRA_OK;
};

TEST_F(LanePoolTest, ANewClientHasOneLaneWithWhatTheEngineOffered) {
  StartEngine();
  const ClientPtr client = Attach(8);
  EXPECT_EQ(Lanes(client), 1u);
  EXPECT_EQ(client->lanes_max, client::kLanesDefault);
  EXPECT_EQ(client->spin_ns, SUTRA_SPIN_US_DEFAULT * 1000);
  ClientLane* lane = Acquire(client);
  ASSERT_NE(lane, nullptr);
  EXPECT_EQ(lane->index, 0u);
  EXPECT_EQ(lane->slot_count, 8u);
  EXPECT_EQ(Acquire(client), lane) << "the lane this thread used last comes first";
}

TEST_F(LanePoolTest, FullLanesBringAnotherUpToTheLimitAndThenFull) {
  StartEngine();
  const ClientPtr client = Attach(4, 3);
  Fill(client, 12);
  EXPECT_EQ(Lanes(client), 3u);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Acquire(client), nullptr);
    EXPECT_EQ(status_, SUTRA_FULL);
  }
  EXPECT_EQ(Lanes(client), 3u);
  EXPECT_EQ(engine_->control().lanes_opened.load(), 3u);
}

TEST_F(LanePoolTest, MoreLanesThanTheLimitAreNotAskedFor) {
  StartEngine();
  EXPECT_EQ(Attach(4, 1'000'000)->lanes_max, client::kLanesLimit);
}

TEST_F(LanePoolTest, ALaneThatAnotherThreadHoldsIsPassedBy) {
  StartEngine();
  const ClientPtr client = Attach(4, 2);
  for (const sutra_ticket ticket : Fill(client, 8)) {
    EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, nullptr), SUTRA_OK);
    sutra_release(client.get(), ticket);
  }
  ASSERT_EQ(Lanes(client), 2u);
  ClientLane* held = nullptr;
  ASSERT_TRUE(client::AcquireLane(client.get(), MonotonicNs(), 1, &held, &status_));
  std::thread([&] {
    client::CurrentThread().lane_hint = held->index;
    ClientLane* other = Acquire(client);
    EXPECT_NE(other, nullptr);
    EXPECT_NE(other, held);
  }).join();
  held->mutex.Unlock();
}

TEST_F(LanePoolTest, ABlockingCallGetsTheSlotThatIsReleasedMeanwhile) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  const std::vector<sutra_ticket> held = Fill(client, 2);
  sutra_result result = embed::Result();
  ASSERT_EQ(sutra_wait(client.get(), held[0], 60'000, &result), SUTRA_OK);
  std::thread release([&] { sutra_release(client.get(), held[0]); });
  ClientLane* lane = nullptr;
  EXPECT_TRUE(client::AcquireLaneWaiting(client.get(), UINT64_MAX, {1, false}, &lane, &status_));
  if (lane != nullptr) lane->mutex.Unlock();
  release.join();
}

TEST_F(LanePoolTest, ABlockingCallWithoutRoomEndsAtItsDeadline) {
  StartEngine();
  const ClientPtr client = Attach(2, 1);
  Fill(client, 2);
  ClientLane* lane = nullptr;
  EXPECT_FALSE(client::AcquireLaneWaiting(client.get(), MonotonicNs() + kNsPerMs, {1, false}, &lane, &status_));
  EXPECT_EQ(status_, SUTRA_FULL);
}

TEST_F(LanePoolTest, ADeadEnginesLaneIsEmptiedAndUsedForTheNext) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  for (int round = 0; round < 3; ++round) {
    engine_->Kill();
    const sutra_options fail_fast = FailFast();
    EXPECT_EQ(Embed(client, "gone", &fail_fast), SUTRA_ENGINE_GONE);
    StartEngine();
    while (Acquire(client) == nullptr) std::this_thread::yield();
    EXPECT_EQ(Lanes(client), 1u);
  }
}

TEST_F(LanePoolTest, ALaneWithAnUnreleasedTicketServesOnWithItsOtherSlots) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  sutra_ticket ticket = 0;
  ASSERT_EQ(Submit(client, "kept", &ticket), SUTRA_OK);
  EXPECT_EQ(sutra_wait(client.get(), ticket, 60'000, nullptr), SUTRA_OK);
  engine_->Kill();
  const sutra_options fail_fast = FailFast();
  EXPECT_EQ(Embed(client, "gone", &fail_fast), SUTRA_ENGINE_GONE);
  StartEngine();
  ClientLane* lane = nullptr;
  while ((lane = Acquire(client)) == nullptr) std::this_thread::yield();
  EXPECT_EQ(lane->index, 0u);
  EXPECT_EQ(Lanes(client), 1u);
  sutra_release(client.get(), ticket);
}

TEST_F(LanePoolTest, FailedAttachesBackOffAndSayWhy) {
  StartEngine();
  const ClientPtr client = Attach(4, 1);
  engine_->Kill();
  const auto backoff_ns = [&] {
    const MutexLock lock(client->attempt_mutex);
    return client->backoff_ns;
  };
  while (backoff_ns() < client::kBackoffNsMax) std::this_thread::yield();  // nobody calls: the helper goes on by itself
  EXPECT_EQ(Acquire(client), nullptr);
  EXPECT_EQ(status_, SUTRA_ENGINE_GONE);
  EXPECT_NE(std::string(sutra_error_text()).find("nothing listens"), std::string::npos) << sutra_error_text();
  StartEngine();
  while (Acquire(client) == nullptr) std::this_thread::yield();
  while (backoff_ns() != client::kBackoffNsMin) std::this_thread::yield();  // a successful attach resets it
}

// What a release frees in one lane is a slot for a call that found every lane full, whichever lane it used last.
TEST_F(LanePoolTest, ABlockingCallGetsTheSlotThatComesFreeInAnyLane) {
  StartEngine();
  const ClientPtr client = Attach(2, 2);
  std::vector<sutra_ticket> held = Fill(client, 4);
  ASSERT_EQ(Lanes(client), 2u);
  for (const sutra_ticket ticket : held) ASSERT_EQ(sutra_wait(client.get(), ticket, 60'000, nullptr), SUTRA_OK);
  for (int round = 0; round < 20; ++round) {
    const sutra_ticket released = held[round % 4];
    std::atomic<bool> waits = false;
    std::thread caller([&] {
      client::CurrentThread().lane_hint = (round / 4) % 2;
      waits = true;
      ClientLane* lane = nullptr;
      sutra_status status = SUTRA_OK;
      EXPECT_TRUE(client::AcquireLaneWaiting(client.get(), UINT64_MAX, {1, false}, &lane, &status));
      if (lane != nullptr) lane->mutex.Unlock();
    });
    while (!waits) std::this_thread::yield();
    sutra_release(client.get(), released);
    caller.join();
    held[round % 4] = Fill(client, 1)[0];
    ASSERT_EQ(sutra_wait(client.get(), held[round % 4], 60'000, nullptr), SUTRA_OK);
  }
}

TEST_F(LanePoolTest, ABlockingCallThatFindsAllLanesFullGetsTheLaneThatIsOpenedForIt) {
  StartEngine();
  const ClientPtr client = Attach(2, 2);
  Fill(client, 2);
  EXPECT_EQ(Embed(client, "in the second lane"), SUTRA_OK);
  EXPECT_EQ(Lanes(client), 2u);
}

}  // namespace
}  // namespace sutra::test
