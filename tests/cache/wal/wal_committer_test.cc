// When records are written and synced under each policy, which waiters are told and in which order, and what is
// refused. Without a thread and on a manual clock; wal_committer_threads_test.cc has the threads.
#include "cache/wal/wal_committer.h"

#include "tests/cache/wal/wal_committer_fixture.h"

namespace sutra::test {
namespace {

TEST_F(WalCommitterTest, IntervalWritesWhenTheOldestRecordIsOldEnoughAndSyncsLater) {
  Open(DurabilityPolicy::kInterval);
  ASSERT_TRUE(Insert("a", 1));
  Advance(49 * kMs);
  ASSERT_TRUE(Insert("b", 2));
  EXPECT_EQ(appends(), 0u);
  WalCommitter::Pending pending = committer_->GetPending();
  EXPECT_EQ(pending.records, 2u);
  EXPECT_EQ(pending.oldest_unwritten_us, 49'000u) << "the oldest counts";
  Advance(1 * kMs);
  EXPECT_EQ(appends(), 3u) << "both, and a watermark";
  EXPECT_EQ(syncs(), 0u);
  pending = committer_->GetPending();
  EXPECT_EQ(pending.records, 0u);
  EXPECT_EQ(pending.oldest_unwritten_us, 0u);
  EXPECT_EQ(pending.oldest_unsynced_us, 50'000u);
  Advance(949 * kMs);
  EXPECT_EQ(syncs(), 0u);
  Advance(1 * kMs);
  EXPECT_EQ(syncs(), 1u);
  EXPECT_EQ(committer_->GetPending().oldest_unsynced_us, 0u);
}

TEST_F(WalCommitterTest, IntervalWritesAtOnceWhenEnoughBytesWait) {
  interval_bytes_max_ = 10 * 192;
  Open(DurabilityPolicy::kInterval);
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(Insert("t", i));
  committer_->RunDue();
  EXPECT_EQ(appends(), 0u);
  ASSERT_TRUE(Insert("t", 9));
  committer_->RunDue();
  EXPECT_EQ(appends(), 11u);
  EXPECT_EQ(syncs(), 0u);
}

TEST_F(WalCommitterTest, GroupWritesAndSyncsTogetherWhatCameMeanwhile) {
  Open(DurabilityPolicy::kGroup);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Insert("t" + std::to_string(i), i));
  committer_->RunDue();
  EXPECT_EQ(appends(), 4u);
  EXPECT_EQ(syncs(), 1u);
}

// Each further write would make it wait for another access to the disk, without end where others go on waiting.
TEST_F(WalCommitterTest, WhatIsAwaitedIsSyncedBeforeMoreIsWritten) {
  Open(DurabilityPolicy::kGroup);
  CommitPtr first, second;
  uint64_t synced_with_first = 0;
  disk_->BesideTheNextWrite([&] {
    second = Erase("second");
    disk_->BesideTheNextWrite([&] { synced_with_first = syncs(); });
  });
  first = Erase("first");
  committer_->RunDue();
  EXPECT_EQ(synced_with_first, 1u) << "when the second was written";
  EXPECT_TRUE(first->Wait());
  EXPECT_TRUE(second->Wait());
  EXPECT_EQ(syncs(), 2u);
}

TEST_F(WalCommitterTest, SyncGivesEachRecordItsOwnWriteAndSync) {
  Open(DurabilityPolicy::kSync);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Insert("t" + std::to_string(i), i));
  committer_->RunDue();
  EXPECT_EQ(appends(), 6u) << "three records and three watermarks";
  EXPECT_EQ(syncs(), 3u);
}

TEST_F(WalCommitterTest, ARemovalIsDurableAtOnceWithEveryPolicyAndTakesAlongWhatCameBefore) {
  for (const DurabilityPolicy policy :
       {DurabilityPolicy::kInterval, DurabilityPolicy::kGroup, DurabilityPolicy::kSync}) {
    Open(policy);
    ASSERT_TRUE(Insert("before", 1));
    ASSERT_TRUE(Insert("gone", 2));
    const CommitPtr commit = Erase("gone");
    ASSERT_NE(commit, nullptr);
    EXPECT_FALSE(commit->finished());
    committer_->RunDue();
    EXPECT_TRUE(commit->Wait());
    EXPECT_EQ(ContentAfterKill(), (LogContent{{"before", 1}}));
  }
}

// No waiter is told that a record is durable before everything pushed before it is durable.
TEST_F(WalCommitterTest, ConfirmationsComeInTheOrderOfThePushes) {
  for (uint64_t failing = 1; failing <= 4; ++failing) {
    Open(DurabilityPolicy::kSync);
    std::vector<CommitPtr> commits;
    for (int i = 0; i < 4; ++i) commits.push_back(Erase("t" + std::to_string(i)));
    Fail(2 * failing - 1, true);  // a write and a sync each
    committer_->RunDue();
    for (size_t i = 0; i < commits.size(); ++i) {
      EXPECT_EQ(commits[i]->Wait(), i + 1 < failing) << "removal " << i << ", failing " << failing;
    }
  }
}

TEST_F(WalCommitterTest, RequestSyncWaitsForEverythingPushedBefore) {
  Open(DurabilityPolicy::kInterval);
  bool refused = true;
  EXPECT_EQ(committer_->RequestSync(&refused), nullptr);
  EXPECT_FALSE(refused) << "nothing was pushed: all is durable";

  ASSERT_TRUE(Insert("pending", 1));
  CommitPtr commit = committer_->RequestSync(&refused);
  ASSERT_NE(commit, nullptr);
  committer_->RunDue();
  EXPECT_TRUE(commit->Wait());
  EXPECT_EQ(syncs(), 1u);

  ASSERT_TRUE(Insert("written", 2));
  Advance(50 * kMs);
  EXPECT_EQ(syncs(), 1u) << "written, not synced";
  commit = committer_->RequestSync(&refused);
  ASSERT_NE(commit, nullptr);
  committer_->RunDue();
  EXPECT_TRUE(commit->Wait());
  EXPECT_EQ(syncs(), 2u);
  EXPECT_EQ(committer_->RequestSync(&refused), nullptr);
  EXPECT_FALSE(refused);
}

TEST_F(WalCommitterTest, ABusySpellEndsWithOneWatermark) {
  Open(DurabilityPolicy::kGroup);
  ASSERT_TRUE(Insert("a", 1));
  committer_->RunDue();
  Advance(19 * kMs);
  EXPECT_EQ(appends(), 2u);
  Advance(1 * kMs);
  EXPECT_EQ(appends(), 3u);
  EXPECT_EQ(syncs(), 2u);
  for (int i = 0; i < 10; ++i) Advance(1000 * kMs);
  EXPECT_EQ(appends(), 3u);
}

TEST_F(WalCommitterTest, AFullQueueDropsInsertsButTakesRemovals) {
  interval_bytes_max_ = UINT64_MAX;
  Open(DurabilityPolicy::kInterval);
  const std::string text(200'000, 't');
  int taken = 0;
  while (Insert(text, taken)) ++taken;
  EXPECT_GT(taken, 325) << "64 MiB wait at most";
  EXPECT_LT(taken, 336);
  EXPECT_EQ(dropped(), 1u);
  EXPECT_TRUE(Insert("short", 1)) << "what fits is taken";
  const CommitPtr commit = Erase(text);
  ASSERT_NE(commit, nullptr);
  committer_->RunDue();
  EXPECT_TRUE(commit->Wait());
  EXPECT_TRUE(Insert(text, 0)) << "there is room again";
}

TEST_F(WalCommitterTest, RefusesWhileTheLogHasFailedAndGoesOnWhenItWorksAgain) {
  Open(DurabilityPolicy::kGroup);
  Fail(1, true);
  const CommitPtr commit = Erase("a");
  committer_->RunDue();
  EXPECT_FALSE(commit->Wait());
  EXPECT_FALSE(Insert("b", 1));
  EXPECT_EQ(dropped(), 1u);
  EXPECT_EQ(Erase("b"), nullptr);
  bool refused = false;
  EXPECT_EQ(committer_->RequestSync(&refused), nullptr);
  EXPECT_TRUE(refused);

  disk_->SetFaults(sim::SimDisk::Faults());
  Advance(999 * kMs);
  EXPECT_EQ(Erase("b"), nullptr);
  Advance(1 * kMs);
  const CommitPtr again = Erase("b");
  ASSERT_NE(again, nullptr) << "tried again after a second";
  committer_->RunDue();
  EXPECT_TRUE(again->Wait());
}

TEST_F(WalCommitterTest, LossesAreKeptUntilTheyAreReportedOnce) {
  Open(DurabilityPolicy::kInterval);
  EXPECT_EQ(committer_->TakeLost(), 0u);
  ASSERT_TRUE(Insert("a", 1));
  ASSERT_TRUE(Insert("b", 2));
  Fail(1, true);
  Advance(50 * kMs);
  EXPECT_FALSE(Insert("c", 3)) << "dropped at once: it was never accepted";
  disk_->SetFaults(sim::SimDisk::Faults());
  Advance(1000 * kMs);
  ASSERT_TRUE(Insert("d", 4));
  Advance(2000 * kMs);
  EXPECT_EQ(committer_->TakeLost(), 2u);
  EXPECT_EQ(committer_->TakeLost(), 0u);
  EXPECT_EQ(dropped(), 3u);
}

TEST_F(WalCommitterTest, CloseWritesAndSyncsWhatIsPendingAndRefusesFromThenOn) {
  Open(DurabilityPolicy::kInterval);
  ASSERT_TRUE(Insert("a", 1));
  committer_->Close();
  EXPECT_EQ(committer_->GetPending().records, 0u);
  EXPECT_FALSE(log_->has_unsynced());
  EXPECT_FALSE(Insert("b", 2));
  EXPECT_EQ(Erase("a"), nullptr);
  committer_->Close();
  EXPECT_EQ(ContentAfterKill(), (LogContent{{"a", 1}}));
}

}  // namespace
}  // namespace sutra::test
