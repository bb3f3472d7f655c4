// A short run of the kills of processes that use a cache shard (P1, P3), and the canaries that show that it sees a
// promise that was not kept. SUTRA_SEED repeats a run's choices; SUTRA_CACHE_KILLS makes it long.
#include "tests/crash/cache_kills.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "tests/crash/kill_history.h"
#include "tests/kit/seed.h"

namespace sutra::test {
namespace {

CacheKillTotals RunKills(CacheKillOptions options) {
  options.seed = FreshTestSeed();
  options.end_at_first = true;
  const CacheKillTotals totals = RunCacheKills(options);
  std::printf(
      "%llu kills (%llu at checkpoints, %llu during starts), %llu changes, %llu removals, %llu evictions, "
      "%llu entries found, %llu starts missed a late one, %llu ms\n",
      static_cast<unsigned long long>(totals.kills), static_cast<unsigned long long>(totals.at_checkpoints),
      static_cast<unsigned long long>(totals.during_starts), static_cast<unsigned long long>(totals.changes),
      static_cast<unsigned long long>(totals.removals), static_cast<unsigned long long>(totals.evictions),
      static_cast<unsigned long long>(totals.found), static_cast<unsigned long long>(totals.late),
      static_cast<unsigned long long>(totals.ms));
  EXPECT_EQ(totals.log_evictions, 0u);
  return totals;
}

uint64_t Kills() { return NumberFromEnvironment("SUTRA_CACHE_KILLS", 100); }

TEST(CacheKills, StartsFindWhatWasWrittenInAFullStore) {
  CacheKillOptions options;
  options.kills = Kills();
  const CacheKillTotals totals = RunKills(options);
  EXPECT_EQ(totals.failure, "");
  EXPECT_TRUE(totals.good());
  EXPECT_GT(totals.evictions, 0u);
  EXPECT_GT(totals.removals, 0u);
}

TEST(CacheKills, StartsFindWhatWasWrittenInAStoreWithRoomForAll) {
  CacheKillOptions options;
  options.kills = Kills();
  options.full = false;
  const CacheKillTotals totals = RunKills(options);
  EXPECT_EQ(totals.failure, "");
  EXPECT_TRUE(totals.good());
  EXPECT_GT(totals.removals, 0u);
}

TEST(CacheKills, CanaryAChildThatLiesAboutASyncIsNoticed) {
  CacheKillOptions options;
  options.kills = 200;
  options.full = false;
  options.lie = true;
  const CacheKillTotals totals = RunKills(options);
  EXPECT_GT(totals.missing, 0u) << totals.failure;
}

TEST(CacheKills, CanaryARemovedEntryThatReturnsIsNoticed) {
  CacheKillOptions options;
  options.kills = 200;
  options.full = false;
  options.revive = true;
  const CacheKillTotals totals = RunKills(options);
  EXPECT_GT(totals.returned, 0u) << totals.failure;
}

// The journal of a child as it would be, and what a start may find after it.
class KillHistoryTest : public testing::Test {
 protected:
  static KillRecord Event(KillEvent event, uint16_t key = 0, uint32_t version = 0) {
    return KillRecord{event, key, version, 999'999'999};
  }
  KillHistoryTest() {
    begin_.fill(-1);
    const std::vector<KillRecord> first = {Event(KillEvent::kPut, 0, 1), Event(KillEvent::kDone)};
    history_.Read(begin_, first);
    begin_[0] = 1;
  }
  KillVerdict Judge(const std::vector<KillRecord>& records, const std::vector<std::pair<uint16_t, int64_t>>& found) {
    history_.Read(begin_, records);
    KillSet set;
    set.fill(-1);
    for (const auto& [key, version] : found) set[key] = version;
    return history_.Judge(set, 1'000'000'000);
  }
  KillSet begin_;
  KillHistory history_;
};

TEST_F(KillHistoryTest, AStartFindsASetThatWasThereSinceTheLastWrite) {
  const std::vector<KillRecord> records = {Event(KillEvent::kPut, 1, 5), Event(KillEvent::kEvicted, 0),
                                           Event(KillEvent::kDone),      Event(KillEvent::kWritten),
                                           Event(KillEvent::kErase, 1),  Event(KillEvent::kDone),
                                           Event(KillEvent::kPut, 2, 7)};
  EXPECT_EQ(Judge(records, {{1, 5}}).text, "");
  EXPECT_EQ(Judge(records, {}).text, "");
  EXPECT_EQ(Judge(records, {{2, 7}}).text, "") << "the call under way";
  EXPECT_EQ(Judge(records, {{0, 1}, {1, 5}}).revived, 1u);
  EXPECT_EQ(Judge(records, {{0, 1}}).revived, 1u);
  EXPECT_EQ(Judge(records, {{1, 5}, {2, 7}}).mixed, 1u);
  EXPECT_EQ(Judge(records, {{1, 6}}).wrong, 1u);
  EXPECT_EQ(Judge(records, {{1, 5}, {2, 8}}).wrong, 1u);
}

TEST_F(KillHistoryTest, WhatWasConfirmedIsNeitherMissingNorBack) {
  std::vector<KillRecord> records = {
      Event(KillEvent::kErase, 0), Event(KillEvent::kConfirmed),  Event(KillEvent::kDone), Event(KillEvent::kPut, 3, 9),
      Event(KillEvent::kDone),     Event(KillEvent::kPut, 3, 10), Event(KillEvent::kDone)};
  EXPECT_EQ(Judge(records, {}).text, "");
  EXPECT_EQ(Judge(records, {{0, 1}}).returned, 1u);
  records.push_back(Event(KillEvent::kConfirmed));
  EXPECT_EQ(Judge(records, {}).missing, 1u);
  EXPECT_EQ(Judge(records, {{3, 9}}).missing, 1u);
  EXPECT_EQ(Judge(records, {{3, 10}}).text, "");
}

TEST_F(KillHistoryTest, EvictionsOfACallThatWasNotToldWholeAreUnknown) {
  const std::vector<KillRecord> records = {Event(KillEvent::kPut, 4, 2)};
  EXPECT_EQ(Judge(records, {{4, 2}}).text, "") << "key 0 may have been evicted for it";
  EXPECT_EQ(Judge(records, {}).missing, 1u) << "but not without it";
}

}  // namespace
}  // namespace sutra::test
