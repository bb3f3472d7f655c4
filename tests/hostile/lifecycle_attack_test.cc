// Attacks through the client's life cycle: it forks, execs, dies, detaches, and goes on using what it gave back.
#include <signal.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "shm/lane_ring.h"
#include "tests/hostile/hostile_fixture.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

using LifecycleAttackTest = HostileTest;

class ForkAttackTest : public LifecycleAttackTest {
 protected:
  void ExpectTheLaneToEndWithTheClientNotWithItsChild(const std::string& duty) {
    const std::unique_ptr<ChildProcess> client = StartHostile(duty);
    const std::string said = client->ReadLine(kWaitMs).value_or("");
    ASSERT_EQ(said.find("grandchild "), 0U) << said;
    ASSERT_TRUE(engine_->WaitLanes(2));
    EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
    EXPECT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.gauge("lanes") == 2; }, 3));
    client->Signal(SIGKILL);
    ExpectOnlyNeighbourLeft();  // while the client is neither reaped nor without descendants
    EXPECT_EQ(kill(std::stoi(said.substr(11)), SIGKILL), 0) << "the grandchild held everything but the lock till now";
  }
};

TEST_F(ForkAttackTest, AForkedChildDoesNotKeepADeadClientsLane) {
  ExpectTheLaneToEndWithTheClientNotWithItsChild("fork-and-wait");
}

// Nobody asks for the lock of a lane whose socket and process tell.
TEST_F(ForkAttackTest, AClientThatDropsItsLockKeepsItsLaneUntilItsProcessEndsAndCostsNobody) {
  ExpectTheLaneToEndWithTheClientNotWithItsChild("fork-without-lock");
}

// One process is one client: with the sockets of its children it would have a share, a quota and turns for each.
class BorrowedIdentityTest : public LifecycleAttackTest {
 protected:
  void ExpectSays(const std::string& duty, const std::vector<std::string>& lines) {
    const std::unique_ptr<ChildProcess> client = StartHostile(duty);
    for (const std::string& line : lines) EXPECT_EQ(client->ReadLine(kWaitMs), line);
    const std::optional<ExitStatus> status = client->Wait(kWaitMs);
    EXPECT_TRUE(status.has_value() && status->exited && status->code == 0) << duty;
    ExpectOnlyNeighbourLeft();
  }
};

TEST_F(BorrowedIdentityTest, ASocketOfAProcessThatEndedBringsNoLane) { ExpectSays("borrow-of-the-dead", {"refused"}); }

TEST_F(BorrowedIdentityTest, ASocketOfAnotherLivingProcessBringsNoLane) {
  ExpectSays("borrow-of-the-living", {"refused"});
}

TEST_F(BorrowedIdentityTest, ASocketHandedOverAfterItsHelloBringsNoLane) {
  ExpectSays("borrow-after-hello", {"refused"});
}

TEST_F(BorrowedIdentityTest, ALaneEndsWithItsProcessThoughAnotherTakesSocketMemoryAndLock) {
  ExpectSays("inherit-lane", {"attached", "closed"});
}

TEST_F(BorrowedIdentityTest, ALaneEndsWithItsProcessThoughTheLockIsKeptInASharedTableOfFiles) {
  ExpectSays("inherit-files", {"attached", "closed"});
}

TEST_F(LifecycleAttackTest, AnExecGivesTheLaneBack) {
  const std::unique_ptr<ChildProcess> client = StartHostile("exec");
  EXPECT_TRUE(engine_->WaitStats(
      [&](const StatsSnapshot& now) {
        return now.counter("attaches") > before_.counter("attaches") && now.gauge("lanes") == 1;
      },
      1));
  EXPECT_TRUE(client->Running());
}

TEST_F(LifecycleAttackTest, KillsAtRandomMomentsLeaveNothing) {
  const ProcessFootprint before = FootprintOf(engine_->process().pid());
  std::mt19937_64 random(FreshTestSeed());
  for (int round = 0; round < 15; ++round) {
    const std::unique_ptr<ChildProcess> client = StartHostile("stream");
    ASSERT_EQ(client->ReadLine(kWaitMs), "ready");
    EXPECT_TRUE(neighbour_->WaitAnswers(1 + random() % 20));
    client->Kill();
  }
  ExpectOnlyNeighbourLeft();
  ExpectNothingLeft(before);
}

TEST_F(LifecycleAttackTest, TwoThreadsOnOneLaneHurtOnlyThemselves) {
  RawClient client = Attach();
  const auto submit = [&](uint32_t first_slot) {
    for (uint64_t position = 0; position < 400; ++position) {
      const auto slot = static_cast<uint32_t>(first_slot + position % 8);
      client.FillSlot(slot, "two writers", position + 1);
      client.PublishEntry(position, RingEntry(position, slot));
      client.Ring();
      static_cast<void>(client.WaitAnswer(slot, position + 1, 2));
    }
  };
  std::thread one(submit, 0), other(submit, 8);
  one.join();
  other.join();
}

TEST_F(LifecycleAttackTest, DetachingTwiceIsDetachingOnce) {
  RawClient client = Attach();
  const char goodbye = 0;
  static_cast<void>(client.Send(&goodbye, 1));
  static_cast<void>(client.Send(&goodbye, 1));
  client.socket_owner() = UniqueFd();
  EXPECT_TRUE(client.WaitClosed(kWaitMs));
  ExpectOnlyNeighbourLeft();
  EXPECT_EQ(engine_->Stats().counter("detaches"), before_.counter("detaches") + 1);
}

TEST_F(LifecycleAttackTest, WhatIsSubmittedAfterDetachIsNeverTaken) {
  RawClient client = Attach();
  client.socket_owner() = UniqueFd();
  ASSERT_TRUE(client.WaitClosed(kWaitMs));
  const uint64_t taken = client.reply().engine().taken.load(std::memory_order_relaxed);
  for (uint32_t slot = 0; slot < 8; ++slot) client.Submit(slot, "too late");
  EXPECT_TRUE(neighbour_->WaitAnswers(kAnswersAfterwards));
  EXPECT_EQ(client.WaitAnswer(0, 1, 0), std::nullopt);
  EXPECT_EQ(client.reply().engine().taken.load(std::memory_order_relaxed), taken);
}

TEST_F(LifecycleAttackTest, AHalfClosedSocketIsADetach) {
  const RawClient client = Attach();
  ASSERT_EQ(shutdown(client.socket(), SHUT_WR), 0);
  EXPECT_TRUE(client.WaitClosed(kWaitMs));
  ExpectOnlyNeighbourLeft();
}

TEST_F(LifecycleAttackTest, AHangUpWithRequestsUnderWayLeavesNothing) {
  for (int round = 0; round < 30; ++round) {
    RawClient client = Attach();
    for (uint32_t slot = 0; slot < client.geometry().slots; ++slot) {
      client.Submit(slot, "under way " + std::to_string(round) + std::string(slot * 50, 'w'));
    }
  }
  ExpectOnlyNeighbourLeft();
  EXPECT_TRUE(engine_->WaitStats([](const StatsSnapshot& now) { return now.gauge("in_flight_texts") <= 8; }));
}

}  // namespace
}  // namespace sutra::test
