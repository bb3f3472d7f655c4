// Writes beside a sync under way, threads that write and sync, and many that wait for them.
#include <pthread.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/cache/wal/wal_committer_fixture.h"
#include "tests/kit/watchdog.h"

namespace sutra::test {
namespace {

TEST_F(WalCommitterTest, TheThreadWritesWhenTheClockSaysSo) {
  Open(DurabilityPolicy::kInterval, true);
  ASSERT_TRUE(Insert("a", 1));
  EXPECT_EQ(committer_->GetPending().records, 1u) << "the clock stands still";
  clock_.Advance(50 * kMs);
  while (committer_->GetPending().records != 0) std::this_thread::yield();
  bool refused = true;
  const CommitPtr commit = committer_->RequestSync(&refused);
  EXPECT_TRUE(commit == nullptr || committer_->Await(commit.get()));
  EXPECT_FALSE(refused);
  committer_->Close();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"a", 1}}));
}

TEST_F(WalCommitterTest, WritesGoOnWhileASyncRuns) {
  Open(DurabilityPolicy::kInterval, true);
  disk_->SetOpen(false);
  ASSERT_TRUE(Insert("before", 1));
  clock_.Advance(50 * kMs);
  ASSERT_TRUE(Written(2));
  bool refused = true;
  const CommitPtr before = committer_->RequestSync(&refused);
  ASSERT_NE(before, nullptr);
  std::thread waiter([&] { EXPECT_TRUE(committer_->Await(before.get())); });
  disk_->WaitForASync();

  ASSERT_TRUE(Insert("beside", 2));
  clock_.Advance(50 * kMs);
  EXPECT_TRUE(Written(4)) << "a record is written within 50 ms, however long a sync takes";
  const CommitPtr beside = committer_->RequestSync(&refused);
  EXPECT_FALSE(before->finished());
  disk_->SetOpen(true);
  waiter.join();
  ASSERT_NE(beside, nullptr);
  EXPECT_TRUE(committer_->Await(beside.get())) << "by a sync of its own";
  EXPECT_EQ(syncs(), 2u);
  committer_->Close();
  disk_->PowerCut();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"before", 1}, {"beside", 2}}));
}

// Without threads: a sync goes on over many turns, until the disk has done it or somebody waits.
TEST_F(WalCommitterTest, ASyncUnderWayEndsWhenItIsAwaited) {
  Open(DurabilityPolicy::kInterval);
  disk_->SetSlowSyncs(100);
  ASSERT_TRUE(Insert("before", 1));
  Advance(50 * kMs);
  Advance(950 * kMs);
  ASSERT_TRUE(Insert("beside", 2));
  Advance(50 * kMs);
  EXPECT_EQ(appends(), 4u);
  EXPECT_EQ(syncs(), 0u) << "begun, not done";
  bool refused = true;
  const CommitPtr beside = committer_->RequestSync(&refused);
  committer_->RunDue();
  ASSERT_NE(beside, nullptr);
  EXPECT_TRUE(committer_->Await(beside.get()));
  EXPECT_EQ(syncs(), 2u);
}

// Its sync could not begin before the one under way ends, so it is not written alone either, unless it is old enough.
TEST_F(WalCommitterTest, AWaitingGroupCollectsOthersWhileASyncRuns) {
  Open(DurabilityPolicy::kGroup, true);
  disk_->SetOpen(false);
  const CommitPtr first = Erase("first");
  std::thread waiter([&] { EXPECT_TRUE(committer_->Await(first.get())); });
  disk_->WaitForASync();
  std::vector<CommitPtr> commits;
  for (int i = 0; i < 10; ++i) commits.push_back(Erase(std::to_string(i)));
  EXPECT_EQ(appends(), 2u);
  disk_->SetOpen(true);
  waiter.join();
  for (const CommitPtr& commit : commits) EXPECT_TRUE(committer_->Await(commit.get()));
  EXPECT_EQ(syncs(), 2u) << "one for the ten";
}

TEST_F(WalCommitterTest, CloseWaitsForTheSyncUnderWayAndForWhatCameBesideIt) {
  Open(DurabilityPolicy::kGroup, true);
  disk_->SetOpen(false);
  const CommitPtr before = Erase("before");
  std::thread waiter([&] { EXPECT_TRUE(committer_->Await(before.get())); });
  disk_->WaitForASync();
  ASSERT_TRUE(Insert("beside", 2));
  std::thread opener([&] { disk_->SetOpen(true); });
  committer_->Close();
  opener.join();
  waiter.join();
  EXPECT_FALSE(log_->has_unsynced());
  disk_->PowerCut();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"beside", 2}}));
}

TEST_F(WalCommitterTest, WhoWaitsAloneDoesTheWorkItselfAndOthersAreServed) {
  Open(DurabilityPolicy::kInterval, true);
  int own = 0;
  for (int i = 0; i < 50; ++i) {
    const CommitPtr commit = Erase("t");
    ASSERT_NE(commit, nullptr);
    EXPECT_TRUE(committer_->Await(commit.get()));
    own += disk_->syncer() == std::this_thread::get_id() ? 1 : 0;
  }
  EXPECT_GT(own, 0);
  // Beside the sync of one who waits alone the threads go on.
  disk_->SetOpen(false);
  const CommitPtr alone = Erase("alone");
  std::thread waiter([&] { EXPECT_TRUE(committer_->Await(alone.get())); });
  disk_->WaitForASync();
  const uint64_t before = appends();
  ASSERT_TRUE(Insert("beside", 1));
  clock_.Advance(50 * kMs);
  EXPECT_TRUE(Written(before + 2));
  disk_->SetOpen(true);
  waiter.join();
}

// All threads at once on a disk whose syncs fail now and then, in segments that are full after some fifty records.
TEST_F(WalCommitterTest, FailingSyncsBesideWritesLoseNothingThatWasConfirmed) {
  for (uint64_t round = 0; round < 20; ++round) {
    segment_bytes_ = kSegmentBytesMin;
    Open(DurabilityPolicy::kGroup, true);
    std::vector<std::thread> threads;
    std::vector<int> confirmed(4, -1);
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 40; ++i) {
          if (t == 0 && i % 10 == 3) Fail(1 + (round + static_cast<uint64_t>(i)) % 5, false);
          bool refused = true;
          if (!Insert(std::to_string(t), i)) continue;
          const CommitPtr commit = committer_->RequestSync(&refused);
          if (!refused && (commit == nullptr || committer_->Await(commit.get()))) confirmed[static_cast<size_t>(t)] = i;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    Fail(1, true);  // what a dead engine would still do
    committer_->Close();
    disk_->PowerCut();
    const LogContent content = ContentAfterKill();
    for (int t = 0; t < 4; ++t) {
      const auto found = content.find(std::to_string(t));
      const int version = found == content.end() ? -1 : found->second;
      EXPECT_GE(version, confirmed[static_cast<size_t>(t)]) << "thread " << t << ", round " << round;
    }
  }
}

// The scheduling policies of the threads of this process called `name`.
std::vector<int> PoliciesOf(const std::string& name) {
  std::vector<int> policies;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string found;
    std::ifstream(task.path() / "comm") >> found;
    if (found == name) policies.push_back(sched_getscheduler(std::stoi(task.path().filename())));
  }
  return policies;
}

TEST_F(WalCommitterTest, ItsThreadsRunBeforeComputingOnesWhereThatIsAllowed) {
  bool allowed = false;
  std::thread([&] {
    sched_param priority{};
    priority.sched_priority = WalCommitter::kRealTimePriority;
    allowed = pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0;
  }).join();
  Open(DurabilityPolicy::kGroup, true);
  const int expected = allowed ? SCHED_FIFO : SCHED_OTHER;
  const Watchdog watchdog(std::chrono::seconds(10));
  while (PoliciesOf("sutra-log") != std::vector<int>{expected, expected}) std::this_thread::yield();
}

// Else that thread, which runs first, would take the CPU of one who holds a lock that all others need.
TEST_F(WalCommitterTest, AThreadIsWokenOnlyWhenItsWakerHasLeftItsLocks) {
  Open(DurabilityPolicy::kGroup, true);
  int unwritten = 0;
  for (int i = 0; i < 20; ++i) {
    // With the closing watermark synced the threads sleep without a limit; now and then one has not yet got there.
    const CommitPtr idle = Erase("idle");
    ASSERT_TRUE(committer_->Await(idle.get()));
    const uint64_t closing = appends() + 1;
    clock_.Advance(20 * kMs);
    ASSERT_TRUE(Written(closing));
    while (committer_->GetPending().oldest_unsynced_us != 0) std::this_thread::yield();
    const uint64_t before = appends();
    ASSERT_TRUE(Push("pushed", i));
    const uint64_t end_ns = Clock::Real()->MonotonicNs() + kMs;
    while (Clock::Real()->MonotonicNs() < end_ns) std::this_thread::yield();
    unwritten += appends() == before ? 1 : 0;
    committer_->Wake();
    ASSERT_TRUE(Written(before + 2));
  }
  EXPECT_GT(unwritten, 0);
  // Who waits takes over what another one pushed and has not woken a thread for.
  ASSERT_TRUE(Push("pushed", 20));
  const CommitPtr waiting = Erase("waiting");
  EXPECT_TRUE(committer_->Await(waiting.get()));
}

TEST_F(WalCommitterTest, TheThreadAnswersManyWaiters) {
  Open(DurabilityPolicy::kGroup, true);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const CommitPtr commit = Erase(std::to_string(t));
        ASSERT_NE(commit, nullptr);
        EXPECT_TRUE(committer_->Await(commit.get()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(syncs(), 200u);
  EXPECT_GE(appends(), 200u);
}

}  // namespace
}  // namespace sutra::test
