// When records are written and synced under each policy, which waiters are told and in which order, and what is
// refused. Without a thread and on a manual clock, except for the last tests.
#include "cache/wal/wal_committer.h"

#include <gtest/gtest.h>

#include <pthread.h>
#include <sched.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>
#include <utility>

#include "tests/cache/wal/fake_live_entries.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

using test::LogContent;
using CommitPtr = std::shared_ptr<WalCommit>;

constexpr uint64_t kMs = 1'000'000;

// Its syncs end only while the gate is open.
class GatedDisk final : public sim::SimDisk {
 public:
  void SetOpen(bool open) {
    MutexLock lock(gate_);
    open_ = open;
    changed_.NotifyAll();
  }
  void WaitForASync() {
    MutexLock lock(gate_);
    while (waiting_ == 0) changed_.Wait(gate_);
  }

  // Runs once, in the middle of the next write.
  void BesideTheNextWrite(std::function<void()> action) { beside_ = std::move(action); }

  // Who synced last.
  std::thread::id syncer() {
    MutexLock lock(gate_);
    return syncer_;
  }

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    if (beside_) std::exchange(beside_, nullptr)();
    SimDisk::RawSubmit(operation);
  }
  int RawSync(FileHandle file) override {
    {
      MutexLock lock(gate_);
      ++waiting_;
      syncer_ = std::this_thread::get_id();
      changed_.NotifyAll();
      while (!open_) changed_.Wait(gate_);
      --waiting_;
    }
    return SimDisk::RawSync(file);
  }

 private:
  Mutex gate_;
  CondVar changed_;
  bool open_ SUTRA_GUARDED_BY(gate_) = true;
  int waiting_ SUTRA_GUARDED_BY(gate_) = 0;
  std::thread::id syncer_ SUTRA_GUARDED_BY(gate_);
  std::function<void()> beside_;  // without threads only
};

class WalCommitterTest : public testing::Test {
 protected:
  void Open(DurabilityPolicy policy, bool threaded = false) {
    committer_.reset();
    log_.reset();
    disk_ = std::make_unique<GatedDisk>();
    shared_ = std::make_unique<WalShared>();
    ASSERT_TRUE(disk_->MakeDirectory(test::kSmallLogDirectory).ok());
    WalLog::Config log;
    log.directory = test::kSmallLogDirectory;
    log.model = test::Model();
    log.width = test::kWidth;
    log.segment_bytes = segment_bytes_;
    log.wal_bytes_max = 128 << 20;
    log.sync_each_group = policy == DurabilityPolicy::kSync;
    log.threaded = threaded;
    log_ = std::make_unique<WalLog>(disk_.get(), &clock_, &live_, shared_.get(), log);
    ASSERT_TRUE(log_->Start(RecoveryPlan()).ok());
    WalCommitter::Config config;
    config.policy = policy;
    config.interval_us_max = kIntervalUsDefault;
    config.interval_bytes_max = interval_bytes_max_;
    config.sync_us_max = kSyncUsDefault;
    config.threaded = threaded;
    committer_ = std::make_unique<WalCommitter>(&clock_, log_.get(), shared_.get(), config);
    committer_->Start();
  }

  bool Push(const std::string& text, int version) {
    return test::WithRecord({text, version},
                            [&](const UnplacedRecord& record) { return committer_->PushInsert(record); });
  }
  bool Insert(const std::string& text, int version) {
    const bool taken = Push(text, version);
    committer_->Wake();
    return taken;
  }
  CommitPtr Erase(const std::string& text) {
    return committer_->PushErase(UnplacedRecord::Erase(test::DigestOf(text, 0, 0)));
  }
  void Advance(uint64_t ns) {
    clock_.Advance(ns);
    committer_->RunDue();
  }

  // False after ten seconds without it.
  bool Written(uint64_t records) const {
    const uint64_t end_ns = Clock::Real()->MonotonicNs() + 10'000 * kMs;
    while (appends() < records) {
      if (Clock::Real()->MonotonicNs() > end_ns) return false;
      std::this_thread::yield();
    }
    return true;
  }

  uint64_t appends() const { return shared_->appends.load(std::memory_order_relaxed); }
  uint64_t syncs() const { return shared_->syncs.load(std::memory_order_relaxed); }
  uint64_t dropped() const { return shared_->dropped_inserts.load(std::memory_order_relaxed); }
  void Fail(uint64_t at, bool forever) {
    sim::SimDisk::Faults faults;
    faults.fail_at = at;
    faults.fail_forever = forever;
    disk_->SetFaults(faults);
  }
  LogContent ContentAfterKill() {
    disk_->ProcessKill();
    return test::Recover(disk_.get(), test::kSmallLogDirectory).content;
  }

  std::unique_ptr<GatedDisk> disk_;
  sim::ManualClock clock_;
  test::FakeLiveEntries live_;
  std::unique_ptr<WalShared> shared_;
  uint64_t interval_bytes_max_ = kIntervalBytesDefault;
  uint64_t segment_bytes_ = 1 << 20;
  std::unique_ptr<WalLog> log_;
  std::unique_ptr<WalCommitter> committer_;
};

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
  const test::Watchdog watchdog(std::chrono::seconds(10));
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
}  // namespace sutra
