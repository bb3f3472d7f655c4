// Removals of many entries: what a preview finds, what a commit takes out, whom it tells, what a restart finds.
#include <string>

#include "tests/cache/admin_fixture.h"

namespace sutra {
namespace {

using test::Containing;
using test::GoOn;
using test::kEverything;
using test::NeverHit;
using test::OlderThan;
using test::Put;
using test::VectorOf;
using test::VersionOf;

class ShardRemoval : public test::AdminTest {};

TEST_F(ShardRemoval, AFilterNeedsAConditionAndNoContradiction) {
  Open();
  EXPECT_EQ(shard_->PreviewRemoval({}, GoOn).status().code(), StatusCode::kBadOption);
  CacheFilter both = kEverything;
  both.never_hit = true;
  EXPECT_EQ(shard_->PreviewRemoval(both, GoOn).status().code(), StatusCode::kBadOption);
  EXPECT_EQ(shard_->PreviewRemoval(Containing(std::string(kFilterContainsBytesMax + 1, 'x')), GoOn).status().code(),
            StatusCode::kBadOption);
  EXPECT_TRUE(shard_->PreviewRemoval(Containing(std::string(kFilterContainsBytesMax, 'x')), GoOn).ok());
}

TEST_F(ShardRemoval, ThePreviewChangesNothingAndCountsWhatTheCommitThenTakesOut) {
  Open();
  Fill(0, 300);
  Fill(0, 50, "secret ");
  const uint64_t bytes = shard_->Stats().bytes;
  const CacheAdmin::Preview preview = Preview(Containing("secret"));
  EXPECT_EQ(preview.entries, 50u);
  EXPECT_EQ(preview.examined, 350u);
  EXPECT_NE(preview.token, 0u);
  EXPECT_EQ(shard_->Stats().entries, 350u);
  const Result<CacheAdmin::Removal> removal = Commit(preview);
  ASSERT_TRUE(removal.ok());
  EXPECT_EQ(removal->entries, 50u);
  EXPECT_EQ(removal->bytes, preview.bytes);
  EXPECT_EQ(shard_->Stats().bytes, bytes - preview.bytes);
  EXPECT_EQ(Found(0, 50, "secret "), 0u);
  EXPECT_EQ(Found(0, 300), 300u);
  Open();
  EXPECT_EQ(Found(0, 50, "secret "), 0u);
  EXPECT_EQ(Found(0, 300), 300u);
}

TEST_F(ShardRemoval, AConfirmedRemovalSurvivesAKillAndAPowerCut) {
  for (const bool power_cut : {false, true}) {
    for (const CacheFilter& filter : {Containing("secret"), kEverything}) {
      Open();
      Fill(0, 40, "secret ");
      ASSERT_TRUE(shard_->Sync().ok());
      Remove(filter);
      if (power_cut) disk_.PowerCut();
      Kill();
      Open();
      EXPECT_EQ(Found(0, 40, "secret "), 0u) << power_cut << filter.everything;
    }
  }
}

TEST_F(ShardRemoval, EntriesOfALaterStartAreFoundToo) {
  Open();
  Fill(0, 100);
  Fill(0, 30, "secret ");
  options_.load_at_open = false;  // all are unread
  Open();
  EXPECT_EQ(shard_->Stats().unread_entries, 130u);
  EXPECT_EQ(Remove(Containing("secret")), 30u);
  EXPECT_EQ(Found(0, 30, "secret "), 0u);
  Open();
  EXPECT_EQ(Found(0, 30, "secret "), 0u);
  EXPECT_EQ(Found(0, 100), 100u);
}

// What a disk does not give may contain the text: it goes, and does not come back when the disk gives it again.
TEST_F(ShardRemoval, WhatCannotBeReadGoesWithTheCommit) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 16 << 20;
  Open();
  Fill(0, 100, "secret ");
  options_.load_at_open = false;
  Open();
  const std::vector<std::string> paths = disk_.Paths();
  const auto segment = std::find_if(paths.begin(), paths.end(),
                                    [](const std::string& path) { return path.find("/wal-") != std::string::npos; });
  ASSERT_NE(segment, paths.end());
  const std::vector<std::byte> bytes = disk_.Bytes(*segment);
  disk_.SpoilBlock(*segment, 12'288);
  const CacheAdmin::Preview preview = Preview(Containing("secret"));
  EXPECT_GT(preview.lost, 0u);
  EXPECT_EQ(preview.entries + preview.lost, 100u);
  const Result<CacheAdmin::Removal> removal = Commit(preview);
  ASSERT_TRUE(removal.ok());
  EXPECT_EQ(removal->entries, 100u);
  disk_.SetBytes(*segment, bytes);
  Open();
  EXPECT_EQ(Found(0, 100, "secret "), 0u);
}

TEST_F(ShardRemoval, UnreadEntriesAreTakenOutUnreadWhereTheTextDoesNotMatter) {
  Open();
  Fill(0, 50);
  clock_.Advance(100 * kSecond);
  Fill(50, 80);
  options_.load_at_open = false;
  Open();
  const CacheAdmin::Preview preview = Preview(OlderThan(100));
  EXPECT_EQ(preview.entries, 50u);
  EXPECT_EQ(shard_->Stats().unread_entries, 80u) << "nothing was read for it";
  EXPECT_EQ(Found(0, 20), 20u) << "an entry that is read meanwhile stays the same one";
  ASSERT_TRUE(Commit(preview).ok());
  EXPECT_EQ(Found(0, 50), 0u);
  Open();
  EXPECT_EQ(Found(0, 50), 0u);
  EXPECT_EQ(Found(50, 80), 30u);
}

// A filter about texts is about whoever has computed them.
TEST_F(ShardRemoval, ATextThatIsComputedAgainAfterThePreviewIsStillDoomed) {
  Open();
  Fill(0, 100, "secret ");
  const CacheAdmin::Preview preview = Preview(Containing("secret"));
  clock_.Advance(1);
  Put(shard_.get(), "secret 7", 1007);
  ASSERT_TRUE(shard_->Erase("secret 8", 0).ok());
  Put(shard_.get(), "other", 1);        // takes its slot
  Put(shard_.get(), "secret 8", 1008);  // comes to another one
  const Result<CacheAdmin::Removal> removal = Commit(preview);
  ASSERT_TRUE(removal.ok());
  EXPECT_EQ(VersionOf(shard_.get(), "secret 7"), -1);
  EXPECT_EQ(VersionOf(shard_.get(), "secret 8"), -1);
  EXPECT_EQ(VersionOf(shard_.get(), "other"), 1);
  EXPECT_EQ(shard_->Stats().entries, 1u);
}

TEST_F(ShardRemoval, TextsOfOneHashAreToldApart) {
  options_.hash_mask = 0;
  Open();
  Fill(0, 30);
  Fill(0, 10, "secret ");
  EXPECT_EQ(Remove(Containing("secret")), 10u);
  EXPECT_EQ(Found(0, 30), 30u);
  Open();
  EXPECT_EQ(Found(0, 30), 30u);
  EXPECT_EQ(Found(0, 10, "secret "), 0u);
}

TEST_F(ShardRemoval, WhatThePreviewDidNotSeeStays) {
  config_.entries_max = 100;
  Open();
  Fill(0, 100, "secret ");
  clock_.Advance(10 * kSecond);
  const CacheAdmin::Preview preview = Preview(OlderThan(10));
  EXPECT_EQ(preview.entries, 100u);
  clock_.Advance(1);
  Put(shard_.get(), "secret 7", 7);                                                           // replaced
  for (uint32_t i = 0; i < 20; ++i) Put(shard_.get(), "new secret " + std::to_string(i), i);  // evicts others
  const Result<CacheAdmin::Removal> removal = Commit(preview);
  ASSERT_TRUE(removal.ok());
  const uint64_t replaced = VersionOf(shard_.get(), "secret 7") == 7 ? 1 : 0;
  EXPECT_EQ(removal->entries, 80u - replaced);
  EXPECT_EQ(Found(0, 20, "new secret "), 20u);
  EXPECT_EQ(shard_->Stats().entries, 20 + replaced);
}

TEST_F(ShardRemoval, ATokenIsGoodOnceAndForFiveMinutesAndForTheLastPreviewOnly) {
  Open();
  Fill(0, 10);
  const CacheAdmin::Preview first = Preview(Containing("text 1"));
  const CacheAdmin::Preview second = Preview(Containing("text"));
  EXPECT_NE(first.token, second.token);
  EXPECT_EQ(Commit(first).status().code(), StatusCode::kBadOption);
  EXPECT_EQ(Commit(second).status().code(), StatusCode::kBadOption) << "a wrong token uses it up";
  const CacheAdmin::Preview old = Preview(Containing("text"));
  clock_.Advance(CacheAdmin::kPreviewSecondsMax * kSecond + 1);
  EXPECT_EQ(Commit(old).status().code(), StatusCode::kBadOption);
  EXPECT_EQ(Found(0, 10), 10u);
  const CacheAdmin::Preview good = Preview(Containing("text"));
  EXPECT_TRUE(Commit(good).ok());
  EXPECT_EQ(Commit(good).status().code(), StatusCode::kBadOption);
}

TEST_F(ShardRemoval, AgeIsThatOfTheInsertAcrossRestartsAndWhatTheLogAppendsAgain) {
  config_.wal_bytes_max = 512 << 10;
  Open();
  Fill(0, 20, "old ");
  clock_.Advance(1000 * kSecond);
  // The log goes round: the old ones are appended again.
  for (uint32_t i = 0; i < 8000; ++i) {
    Put(shard_.get(), "changing " + std::to_string(i % 50), i);
    if (i % 20 == 0) {
      clock_.Advance(60'000'000);
      shard_->Turn();
    }
  }
  EXPECT_EQ(Preview(OlderThan(1000)).entries, 20u);
  EXPECT_EQ(Preview(OlderThan(1100)).entries, 0u);
  Open();
  EXPECT_EQ(Preview(OlderThan(1000)).entries, 20u);
  EXPECT_EQ(Preview(OlderThan(1100)).entries, 0u);
  EXPECT_EQ(Remove(OlderThan(1000)), 20u);
  EXPECT_EQ(Found(0, 20, "old "), 0u);
}

TEST_F(ShardRemoval, NeverHitForgetsNoHitOverACleanRestart) {
  Open();
  Fill(0, 40);
  EXPECT_EQ(Found(0, 10), 10u);
  // A hit elsewhere counts as one here.
  std::vector<float> vector(test::kWidth);
  CacheValue value;
  ASSERT_TRUE(shard_->Lookup("text 10", 0, vector.data(), &value));
  Put(shard_.get(), "text 10", 10);
  EXPECT_EQ(Preview(NeverHit()).entries, 30u) << "a new insert was hit by nobody";
  shard_->Touch(value.handle);
  EXPECT_EQ(Preview(NeverHit()).entries, 29u);
  Open();
  EXPECT_EQ(Preview(NeverHit()).entries, 29u);
  EXPECT_EQ(Remove(NeverHit()), 29u);
  EXPECT_EQ(Found(0, 40), 11u);
}

TEST_F(ShardRemoval, TouchOfAnEntryThatIsNoLongerThereTouchesNobody) {
  Open();
  Put(shard_.get(), "a", 1);
  std::vector<float> vector(test::kWidth);
  CacheValue value;
  ASSERT_TRUE(shard_->Lookup("a", 0, vector.data(), &value));
  ASSERT_TRUE(shard_->Erase("a", 0).ok());
  Put(shard_.get(), "b", 1);  // in the same slot
  shard_->Touch(value.handle);
  shard_->Touch({value.handle.slot + 1000, value.handle.tag});
  shard_->Touch({});
  EXPECT_EQ(Preview(NeverHit()).entries, 1u);
}

TEST_F(ShardRemoval, ExpiredEntriesMatchNothing) {
  Open();
  Put(shard_.get(), "short secret", 1, 5);
  Put(shard_.get(), "long secret", 2, 50);
  clock_.Advance(5 * kSecond);
  EXPECT_EQ(Preview(Containing("secret")).entries, 1u);
}

TEST_F(ShardRemoval, LongTextsAreFoundAndTakenOut) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 16 << 20;
  Open();
  const std::string a = std::string(100'000, 'a') + "needle" + std::string(10, 'b');
  const std::string b(100'000, 'a');
  Put(shard_.get(), a, 1);
  Put(shard_.get(), b, 2);
  EXPECT_EQ(Remove(Containing("needle")), 1u);
  EXPECT_EQ(VersionOf(shard_.get(), a), -1);
  EXPECT_EQ(VersionOf(shard_.get(), b), 2);
  Open();
  EXPECT_EQ(VersionOf(shard_.get(), a), -1);
  EXPECT_EQ(VersionOf(shard_.get(), b), 2);
}

TEST_F(ShardRemoval, EverythingGoesAndWhatComesLaterStays) {
  for (const DurabilityPolicy policy :
       {DurabilityPolicy::kInterval, DurabilityPolicy::kGroup, DurabilityPolicy::kSync, DurabilityPolicy::kNone}) {
    config_.policy = policy;
    Open();
    Fill(0, 200);
    const CacheAdmin::Preview preview = Preview(kEverything);
    EXPECT_EQ(preview.entries, 200u);
    EXPECT_EQ(preview.bytes, shard_->Stats().bytes);
    const Result<CacheAdmin::Removal> removal = Commit(preview);
    ASSERT_TRUE(removal.ok());
    EXPECT_EQ(removal->entries, 200u);
    EXPECT_EQ(removal->bytes, preview.bytes);
    EXPECT_EQ(shard_->Stats().entries, 0u);
    EXPECT_EQ(shard_->Stats().bytes, 0u);
    Fill(500, 550);
    EXPECT_EQ(Found(0, 200), 0u);
    if (policy == DurabilityPolicy::kNone) continue;
    Open();
    EXPECT_EQ(Found(0, 200), 0u);
    EXPECT_EQ(Found(500, 550), 50u);
    EXPECT_EQ(Remove(kEverything), 50u);
  }
}

TEST_F(ShardRemoval, APolicyThatSyncsEachRecordDoesNotSyncEachOfAFilter) {
  config_.policy = DurabilityPolicy::kSync;
  Open();
  Fill(0, 500);
  const uint64_t syncs = shard_->Stats().wal_syncs;
  EXPECT_EQ(Remove(Containing("text")), 500u);
  EXPECT_LE(shard_->Stats().wal_syncs - syncs, 8u);
  Open();
  EXPECT_EQ(shard_->Stats().entries, 0u);
}

// What a computation that began before would store does not come in afterwards, whatever its text.
TEST_F(ShardRemoval, AComputationThatBeganBeforeStoresNothing) {
  Open();
  for (const CacheFilter& filter : {Containing("secret"), kEverything}) {
    Put(shard_.get(), "secret", 1);
    const CacheAdmin::Preview preview = Preview(filter);
    const uint64_t before = shard_->Removals();
    ASSERT_TRUE(Commit(preview).ok());
    EXPECT_GT(shard_->Removals(), before);
    shard_->Insert("secret", 0, VectorOf("secret", 2), CacheValue{2, 2, false}, 0, before);
    EXPECT_EQ(VersionOf(shard_.get(), "secret"), -1);
    shard_->Insert("secret", 0, VectorOf("secret", 3), CacheValue{3, 3, false}, 0, shard_->Removals());
    EXPECT_EQ(VersionOf(shard_.get(), "secret"), 3);
  }
}

// In the middle of a commit, too: what was taken out already does not come back from a computation that began before.
TEST_F(ShardRemoval, TheFenceStandsBeforeTheFirstEntryGoes) {
  config_.wal_bytes_max = 16 << 20;
  Open();
  Fill(0, 9000, "s");
  const CacheAdmin::Preview preview = Preview(Containing("s"));
  const uint64_t before = shard_->Removals();
  uint64_t in_between = 0;
  int asked = 0;
  const Result<CacheAdmin::Removal> removal = shard_->CommitRemoval(preview.token, [&](uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    ++asked;
    if (done > 0) {
      EXPECT_EQ(VersionOf(shard_.get(), "s0"), -1);
      shard_->Insert("s0", 0, VectorOf("s0", 0), CacheValue{0, 0, false}, 0, before);
      EXPECT_EQ(VersionOf(shard_.get(), "s0"), -1);
      in_between = shard_->Removals();
    }
    return true;
  });
  ASSERT_TRUE(removal.ok());
  EXPECT_GE(asked, 2);
  EXPECT_LT(in_between, observer_.removals) << "a copy that was made in between is one of before";
  EXPECT_EQ(shard_->Stats().entries, 0u);
}

TEST_F(ShardRemoval, ACancelledCommitHasRemovedDurablyWhatItHasRemoved) {
  config_.wal_bytes_max = 16 << 20;
  Open();
  Fill(0, 9000, "s");
  ASSERT_TRUE(shard_->Sync().ok());
  const CacheAdmin::Preview preview = Preview(Containing("s"));
  observer_.told.clear();
  EXPECT_EQ(shard_->CommitRemoval(preview.token, [](uint64_t done, uint64_t) { return done == 0; }).status().code(),
            StatusCode::kCancelled);
  EXPECT_EQ(observer_.told, std::vector<std::string>{"*"});
  const uint32_t left = Found(0, 9000, "s");
  EXPECT_GT(left, 0u);
  EXPECT_LT(left, 9000u);
  disk_.PowerCut();
  Kill();
  Open();
  EXPECT_EQ(Found(0, 9000, "s"), left);
  const CacheAdmin::Preview again = Preview(Containing("s"));
  EXPECT_EQ(shard_->CommitRemoval(again.token, [](uint64_t, uint64_t) { return false; }).status().code(),
            StatusCode::kCancelled);
  EXPECT_EQ(Found(0, 9000, "s"), left);
  EXPECT_EQ(shard_->PreviewRemoval(Containing("s"), [](uint64_t, uint64_t) { return false; }).status().code(),
            StatusCode::kCancelled);
}

// Told when memory is free of it and before the disk is waited for, and of the number of removals from then on.
TEST_F(ShardRemoval, TheObserverIsToldBeforeTheDiskIsAsked) {
  Open();
  Fill(0, 10);
  ASSERT_TRUE(shard_->Sync().ok());
  uint64_t syncs = 0;
  observer_.then = [&] {
    EXPECT_EQ(shard_->Stats().wal_syncs, syncs);
    EXPECT_EQ(VersionOf(shard_.get(), "text 3"), -1);
    EXPECT_EQ(observer_.removals, shard_->Removals());
  };
  syncs = shard_->Stats().wal_syncs;
  ASSERT_TRUE(shard_->Erase("text 3", 0).ok());
  EXPECT_EQ(observer_.told, std::vector<std::string>{"-text 3"});
  EXPECT_GT(shard_->Stats().wal_syncs, syncs);
  syncs = shard_->Stats().wal_syncs;
  EXPECT_EQ(Remove(Containing("text 4")), 1u);
  EXPECT_EQ(observer_.told.back(), "*");
  EXPECT_GT(shard_->Stats().wal_syncs, syncs);
  syncs = shard_->Stats().wal_syncs;
  EXPECT_EQ(Remove(Containing("nothing has this")), 0u);
  EXPECT_EQ(observer_.told.size(), 3u) << "copies elsewhere may be of what the store no longer has";
  EXPECT_EQ(Remove(kEverything), 8u);
  EXPECT_EQ(observer_.told.back(), "*");
}

TEST_F(ShardRemoval, WithoutALogOrderIsTheSame) {
  config_.policy = DurabilityPolicy::kNone;
  Open();
  Fill(0, 100);
  EXPECT_EQ(Remove(Containing("text 1")), 11u);
  EXPECT_EQ(Found(0, 100), 89u);
  ASSERT_TRUE(shard_->Erase("text 2", 0).ok());
  EXPECT_EQ(observer_.told, (std::vector<std::string>{"*", "-text 2"}));
  EXPECT_EQ(disk_.operations(), 0u);
}

TEST_F(ShardRemoval, ALogThatRefusesLeavesMemoryEmptyAndSaysSo) {
  for (const CacheFilter& filter : {Containing("text"), kEverything}) {
    Open();
    Fill(0, 100);
    ASSERT_TRUE(shard_->Sync().ok());
    const CacheAdmin::Preview preview = Preview(filter);
    sim::SimDisk::Faults faults;
    faults.fail_at = 1;
    faults.fail_forever = true;
    disk_.SetFaults(faults);
    EXPECT_EQ(Commit(preview).status().code(), StatusCode::kStorageError);
    EXPECT_EQ(Found(0, 100), 0u);
    EXPECT_EQ(observer_.told.back(), "*");
    disk_.SetFaults({});
    EXPECT_EQ(Commit(preview).status().code(), StatusCode::kBadOption) << "it is used up";
    clock_.Advance(2 * kSecond);
    shard_->Turn();
    ASSERT_FALSE(shard_->Stats().storage_failed);
    EXPECT_EQ(Commit(Preview(Containing("text"))).status().code(), StatusCode::kStorageError)
        << "a filter finds nothing in memory, and the log has it all";
    Remove(kEverything);  // repeated, it counts
    Open();
    EXPECT_EQ(Found(0, 100), 0u);
  }
}

// Each chunk has to be durable, not the last one alone: the log refuses the first ones, and takes the last one again.
TEST_F(ShardRemoval, AChunkThatTheLogLostInTheMiddleIsNoConfirmation) {
  config_.wal_segment_bytes = 1 << 20;
  config_.interval_bytes_max = 64 << 10;
  config_.wal_bytes_max = 16 << 20;
  Open();
  Fill(0, 9000, "s");
  ASSERT_TRUE(shard_->Sync().ok());
  const CacheAdmin::Preview preview = Preview(Containing("s"));
  const Result<CacheAdmin::Removal> removal = shard_->CommitRemoval(preview.token, [&](uint64_t done, uint64_t) {
    sim::SimDisk::Faults faults;
    faults.fail_at = done == 4096 ? 0 : 1;
    faults.fail_forever = true;
    if (done == 0) disk_.SetFaults(faults);
    if (done == 4096) {
      disk_.SetFaults({});
      clock_.Advance(2 * kSecond);
      shard_->Turn();
      EXPECT_FALSE(shard_->Stats().storage_failed) << "it takes records again";
    }
    return true;
  });
  EXPECT_EQ(removal.status().code(), StatusCode::kStorageError);
}

// The quarter of a segment that is kept for removals is enough for one of a thousand entries.
TEST_F(ShardRemoval, AFullDiskTakesRemovals) {
  config_.wal_segment_bytes = 1 << 20;
  config_.wal_bytes_max = 16 << 20;
  Open();
  Fill(0, 1000, "s");
  ASSERT_TRUE(shard_->Sync().ok());
  disk_.SetCapacity(LogBytes() + (64 << 10));
  EXPECT_EQ(Remove(Containing("s")), 1000u);
  disk_.PowerCut();
  Kill();
  disk_.SetCapacity(UINT64_MAX);
  Open();
  EXPECT_EQ(Found(0, 1000, "s"), 0u);
}

}  // namespace
}  // namespace sutra
