// Attacks by doing things at the wrong time, too often, or never.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "shm/lane_ring.h"
#include "tests/hostile/hostile_fixture.h"

namespace sutra::test {
namespace {

using TimingAttackTest = HostileTest;
constexpr auto kRelaxed = std::memory_order_relaxed;

TEST_F(TimingAttackTest, AClientStoppedInsideASubmitHoldsUpNobodyAndIsNotDeclaredDead) {
  const std::unique_ptr<ChildProcess> client = StartHostile("stop-inside-submit");
  ASSERT_TRUE(client->WaitStopped(kWaitMs));
  EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
  client->Continue();
  const std::optional<ExitStatus> status = client->Wait(kWaitMs);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->exited && status->code == 0) << ToText(*status);
  ExpectOnlyNeighbourLeft();
}

TEST_F(TimingAttackTest, AClientThatNeverDrainsItsRepliesHoldsUpNobody) {
  RawClient client = Attach();
  // It reads no completion and holds every slot; its submission ring stands still after one lap.
  std::vector<uint64_t> sequences;
  for (uint32_t slot = 0; slot < client.geometry().slots; ++slot) {
    sequences.push_back(client.Submit(slot, "reply " + std::to_string(slot)));
  }
  for (uint32_t slot = 0; slot < client.geometry().slots; ++slot) {
    EXPECT_EQ(client.WaitAnswer(slot, sequences[slot], kWaitMs), StatusCode::kOk);
  }
  // Then laps without ever reading the completion ring.
  for (int lap = 0; lap < 20; ++lap) {
    for (uint32_t slot = 0; slot < client.geometry().slots; ++slot) {
      const uint64_t sequence = client.Submit(slot, "lap");
      ASSERT_EQ(client.WaitAnswer(slot, sequence, kWaitMs), StatusCode::kOk);
    }
  }
}

TEST_F(TimingAttackTest, AMillionDoorbellsHoldUpNobody) {
  RawClient client = Attach();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rung{0};
  std::thread thread([&] {
    while (!stop.load(kRelaxed)) {
      client.Ring();
      rung.fetch_add(1, kRelaxed);
    }
  });
  EXPECT_TRUE(neighbour_->WaitAnswers(5 * kAnswersAfterwards));
  while (rung.load(kRelaxed) < 1'000'000) {
    EXPECT_TRUE(neighbour_->WaitAnswers(1));
  }
  stop.store(true, kRelaxed);
  thread.join();
  const uint64_t sequence = client.Submit(0, "after a million doorbells");
  EXPECT_EQ(client.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
}

TEST_F(TimingAttackTest, BigDoorbellsAreOnlyDoorbells) {
  RawClient client = Attach();
  const std::vector<char> big(4096, 1);
  for (int i = 0; i < 100; ++i) static_cast<void>(client.Send(big.data(), big.size()));
  const uint64_t sequence = client.Submit(0, "after big doorbells");
  EXPECT_EQ(client.WaitAnswer(0, sequence, kWaitMs), StatusCode::kOk);
}

// Its lane may be parked by then: that it did not ring costs itself only, and one late ring is enough.
TEST_F(TimingAttackTest, AClientThatRingsLateIsAnsweredAllTheSame) {
  const RawClient client = Attach();
  client.FillSlot(0, "without a doorbell", 1);
  client.request().submission(0).store(RingEntry(0, 0), std::memory_order_release);
  EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
  client.Ring();
  EXPECT_EQ(client.WaitAnswer(0, 1, kWaitMs), StatusCode::kOk);
}

TEST_F(TimingAttackTest, AClosedEventPipeDoesNotEndTheEngine) {
  RawClient client = Attach();
  client.event_owner() = UniqueFd();
  client.request().client().event_armed.store(1, kRelaxed);
  for (uint32_t i = 0; i < 50; ++i) {
    const uint64_t sequence = client.Submit(i % 8, "who hears the event " + std::to_string(i % 3));
    ASSERT_EQ(client.WaitAnswer(i % 8, sequence, kWaitMs), StatusCode::kOk);
  }
}

TEST_F(TimingAttackTest, AFullEventPipeHoldsUpNobody) {
  RawClient client = Attach();
  ASSERT_GE(fcntl(client.event_fd(), F_SETPIPE_SZ, 4096), 0);
  // The write end, opened again without O_NONBLOCK and filled: neither may change how the engine writes.
  const std::string path = "/proc/self/fd/" + std::to_string(client.event_fd());
  const UniqueFd writer(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  ASSERT_GE(writer.get(), 0);
  const std::vector<char> bytes(8192, 1);
  while (write(writer.get(), bytes.data(), 512) > 0) {
  }
  fcntl(writer.get(), F_SETFL, 0);
  fcntl(client.event_fd(), F_SETFL, 0);
  client.request().client().event_armed.store(1, kRelaxed);
  client.request().client().sleepers.store(UINT32_MAX, kRelaxed);
  for (uint32_t i = 0; i < 50; ++i) {
    const uint64_t sequence = client.Submit(i % 8, "into a full pipe " + std::to_string(i % 3));
    ASSERT_EQ(client.WaitAnswer(i % 8, sequence, kWaitMs), StatusCode::kOk);
  }
}

TEST_F(TimingAttackTest, AFloodOfLongTextsLeavesTheNeighbourItsShare) {
  RawClient client = Attach();
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    std::vector<uint64_t> sequences(client.geometry().slots, 0);
    for (uint64_t round = 0; !stop.load(kRelaxed); ++round) {
      for (uint32_t slot = 0; slot < client.geometry().slots && !stop.load(kRelaxed); ++slot) {
        if (sequences[slot] != 0 && !client.WaitAnswer(slot, sequences[slot], kWaitMs).has_value()) return;
        sequences[slot] = client.Submit(slot, std::to_string(round * 1000 + slot) + std::string(60'000, 'f'));
      }
    }
  });
  EXPECT_TRUE(neighbour_->WaitAnswers(4 * kAnswersAfterwards));
  stop.store(true, kRelaxed);
  thread.join();
}

}  // namespace
}  // namespace sutra::test
