// A group's bytes before and after it is stamped, and the one answer of its commit.
#include "cache/wal/wal_group.h"

#include <gtest/gtest.h>

#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/cache/wal/hand_made_log.h"
#include "tests/kit/watchdog.h"

namespace sutra {
namespace {

SegmentId SomeId() {
  SegmentId id;
  id.fill(0x17);
  return id;
}

TEST(WalGroup, CloseFillsTheLastBlockWithAWatermark) {
  WalGroup empty(100);
  EXPECT_EQ(empty.capacity(), kWalBlockBytes);
  EXPECT_TRUE(empty.empty());
  empty.Close();
  EXPECT_EQ(empty.bytes().size(), kWalBlockBytes) << "a watermark of a whole block";
  EXPECT_EQ(empty.records(), 1u);
  EXPECT_EQ(empty.inserts(), 0u);

  const std::unique_ptr<WalGroup> group = test::GroupOf({{"a", 1}, {"a"}});
  EXPECT_EQ(group->bytes().size(), kWalBlockBytes);
  EXPECT_EQ(group->records(), 3u);
  EXPECT_EQ(group->inserts(), 1u);
  group->Close();
  EXPECT_EQ(group->records(), 3u) << "closing again changes nothing";
}

TEST(WalGroup, TakesRecordsAsLongAsTheyFit) {
  WalGroup group(kWalBlockBytes);
  while (group.Fits(192)) {
    test::WithRecord({"text", 1}, [&](const UnplacedRecord& record) { group.Append(record); });
  }
  EXPECT_EQ(group.records(), 21u);
  EXPECT_TRUE(group.Fits(64));
  EXPECT_FALSE(group.Fits(128));
  group.Close();
  EXPECT_EQ(group.bytes().size(), kWalBlockBytes);
}

TEST(WalGroup, AFullGroupNeedsNoWatermark) {
  WalGroup group(kWalBlockBytes);
  while (group.Fits(64)) group.Append(UnplacedRecord::Clear(1));
  group.Close();
  EXPECT_EQ(group.records(), kWalBlockBytes / 64);
  EXPECT_EQ(group.bytes().size(), kWalBlockBytes);
}

// What failed in one segment is stamped again for the next one.
TEST(WalGroup, IsNumberedWithoutAGapWheneverItIsStamped) {
  const std::unique_ptr<WalGroup> group = test::GroupOf({{"a", 1}, {"b", 2}, {"c", 3}});
  for (const uint64_t behind : {uint64_t{0}, uint64_t{41}, uint64_t{7}}) {
    RecordStamp stamp{behind, behind, 5, 0};
    group->Stamp(SomeId(), kSegmentDataStart + kWalBlockBytes, &stamp);
    EXPECT_EQ(stamp.sequence, behind + 4);
    uint64_t sequence = behind;
    for (uint64_t at = 0; at < group->bytes().size();) {
      RecordHeader header;
      std::memcpy(&header, group->bytes().data() + at, sizeof(header));
      EXPECT_EQ(header.sequence, ++sequence);
      EXPECT_EQ(header.header_crc, RecordHeaderCrc(header, SomeId(), kSegmentDataStart + kWalBlockBytes + at));
      at += header.length;
    }
    EXPECT_EQ(sequence, behind + 4);
  }
}

// Equal numbers on both sides of a gap prove that no removal is in it.
TEST(WalGroup, EveryRecordCountsTheRemovalsUpToItself) {
  WalGroup group(kWalBlockBytes);
  group.Append(UnplacedRecord::Clear(1));
  group.Append(UnplacedRecord::Erase({}));
  group.Append(UnplacedRecord::Clear(2));
  group.Append(UnplacedRecord::DropAll());
  group.Close();
  RecordStamp stamp;
  stamp.removals = 5;
  group.Stamp(SomeId(), kSegmentDataStart, &stamp);
  std::vector<uint64_t> removals;
  for (uint64_t at = 0; at < group.bytes().size();) {
    RecordHeader header;
    std::memcpy(&header, group.bytes().data() + at, sizeof(header));
    removals.push_back(header.removals);
    at += header.length;
  }
  EXPECT_EQ(removals, (std::vector<uint64_t>{5, 6, 6, 7, 7}));
  EXPECT_EQ(stamp.removals, 7u);
}

TEST(WalGroup, ResetForgetsRecordsAndTheirCommit) {
  const std::unique_ptr<WalGroup> group = test::GroupOf({{"a", 1}});
  group->urgent = true;
  group->first_accepted_ns = 9;
  const std::shared_ptr<WalCommit> commit = group->commit;
  commit->Finish(true);
  group->Reset();
  EXPECT_TRUE(group->empty());
  EXPECT_EQ(group->records(), 0u);
  EXPECT_EQ(group->first_accepted_ns, 0u);
  EXPECT_FALSE(group->urgent);
  EXPECT_FALSE(group->commit->finished());
  EXPECT_TRUE(commit->finished());
}

TEST(WalCommit, AnswersEveryWaiter) {
  for (const bool durable : {true, false}) {
    WalCommit commit;
    EXPECT_FALSE(commit.finished());
    std::thread waiter([&] { EXPECT_EQ(commit.Wait(), durable); });
    commit.Finish(durable);
    waiter.join();
    EXPECT_TRUE(commit.finished());
    EXPECT_EQ(commit.Wait(), durable);
  }
}

// How often the calling thread was made to give its CPU to another one while it could have gone on.
int64_t CpuGivenAway() {
  rusage usage{};
  EXPECT_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
  return usage.ru_nivcsw;
}

// Beside others that compute on its CPU, each time would cost it a time slice.
TEST(WalCommit, WhoWaitsSleepsAtOnceInsteadOfGivingItsCpuAwayFirst) {
  constexpr int kWaits = 50;
  const test::Watchdog watchdog(std::chrono::seconds(60));
  std::atomic<bool> stop{false};
  cpu_set_t cpu;
  CPU_ZERO(&cpu);
  CPU_SET(sched_getcpu(), &cpu);
  std::vector<WalCommit> commits(kWaits);
  std::atomic<int> waiting{0};  // the commit that is waited for; both threads are on one CPU
  int64_t given_away = 0;
  std::thread waiter([&] {
    ASSERT_EQ(pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu), 0);
    for (WalCommit& commit : commits) {
      waiting.fetch_add(1);
      const int64_t before = CpuGivenAway();
      EXPECT_TRUE(commit.Wait());
      given_away += CpuGivenAway() - before;
    }
    stop.store(true);
  });
  std::thread computing([&] {
    ASSERT_EQ(pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu), 0);
    int finished = 0;
    for (uint64_t rounds = 0; !stop.load(); ++rounds) {
      if (rounds % 100'000 == 0 && waiting.load() > finished) commits[static_cast<size_t>(finished++)].Finish(true);
    }
  });
  waiter.join();
  computing.join();
  EXPECT_LT(given_away, kWaits / 2) << "preempted now and then, but not each time";
}

TEST(WalCommitDeathTest, IsFinishedOnce) {
  WalCommit commit;
  commit.Finish(true);
  EXPECT_DEATH(commit.Finish(false), "kOpen");
}

}  // namespace
}  // namespace sutra
