// Looking at entries, and the log written anew.
#include <set>
#include <string>

#include "tests/cache/admin_fixture.h"

namespace sutra {
namespace {

using test::Containing;
using test::GoOn;
using test::Put;
using test::VectorOf;
using test::VersionOf;

class ShardAdmin : public test::AdminTest {
 protected:
  std::multiset<std::string> Texts(CacheAdmin::Which which = CacheAdmin::Which::kAll, size_t at_once = SIZE_MAX) {
    std::multiset<std::string> texts;
    uint64_t cursor = 0;
    for (bool all = false; !all;) {
      size_t left = at_once;
      const Result<bool> visited = shard_->Visit(which, &cursor, [&](const CacheEntry& entry) {
        EXPECT_EQ(entry.vector, VectorOf(entry.text, entry.value.token_count));
        texts.insert(entry.text);
        return --left > 0;
      });
      EXPECT_TRUE(visited.ok());
      all = !visited.ok() || *visited;
    }
    return texts;
  }
  CacheAdmin::Compaction Compact() {
    const Result<CacheAdmin::Compaction> compaction = shard_->Compact(GoOn);
    EXPECT_TRUE(compaction.ok()) << compaction.status().message();
    return compaction.ok() ? *compaction : CacheAdmin::Compaction();
  }
};

TEST_F(ShardAdmin, GetTellsAllThatIsKnownAndCountsAsNoHit) {
  Open();
  shard_->Insert("t", 3, VectorOf("t", 1), CacheValue{2.5f, 17, true}, 100);
  clock_.Advance(30 * kSecond);
  for (int i = 0; i < 2; ++i) {
    const Result<CacheEntry> entry = shard_->Get("t", 3);
    ASSERT_TRUE(entry.ok());
    EXPECT_EQ(entry->text, "t");
    EXPECT_EQ(entry->variant, 3u);
    EXPECT_EQ(entry->vector, VectorOf("t", 1));
    EXPECT_EQ(entry->value.norm, 2.5f);
    EXPECT_EQ(entry->value.token_count, 17u);
    EXPECT_TRUE(entry->value.truncated);
    EXPECT_EQ(entry->value.expires_ns, clock_.BootNs() + 70 * kSecond);
    EXPECT_EQ(entry->age_s, 30u);
    EXPECT_EQ(entry->left_s, 70u);
    EXPECT_FALSE(entry->hit);
    EXPECT_FALSE(entry->hot);
  }
  EXPECT_EQ(shard_->Get("t", 0).status().message(), "not cached");
  EXPECT_EQ(shard_->Get("u", 3).status().code(), StatusCode::kBadOption);
  std::vector<float> vector(test::kWidth);
  CacheValue value;
  ASSERT_TRUE(shard_->Lookup("t", 3, vector.data(), &value));
  EXPECT_EQ(value.expires_ns, clock_.BootNs() + 70 * kSecond);
  EXPECT_EQ(value.handle, shard_->Get("t", 3)->value.handle);
  EXPECT_TRUE(shard_->Get("t", 3)->hit);
  EXPECT_TRUE(shard_->Get("t", 3)->hot);
  options_.load_at_open = false;
  Open();
  const Result<CacheEntry> entry = shard_->Get("t", 3);
  ASSERT_TRUE(entry.ok()) << "an unread entry is read";
  EXPECT_EQ(entry->age_s, 30u);
  EXPECT_TRUE(entry->hit);
  clock_.Advance(70 * kSecond);
  EXPECT_FALSE(shard_->Get("t", 3).ok()) << "it has expired";
}

TEST_F(ShardAdmin, VisitShowsEveryEntryOnceInPiecesOfAnySize) {
  Open();
  std::multiset<std::string> all;
  for (uint32_t i = 0; i < 300; ++i) all.insert("text " + std::to_string(i));
  Fill(0, 300);
  all.insert(std::string(100'000, 'l'));
  Put(shard_.get(), std::string(100'000, 'l'), 1);
  for (const size_t at_once : {size_t{1}, size_t{7}, size_t{64}, size_t{1000}}) {
    EXPECT_EQ(Texts(CacheAdmin::Which::kAll, at_once), all) << at_once;
  }
  EXPECT_EQ(Found(5, 9), 4u);
  EXPECT_EQ(Texts(CacheAdmin::Which::kHot), (std::multiset<std::string>{"text 5", "text 6", "text 7", "text 8"}));
  options_.load_at_open = false;
  Open();
  EXPECT_GE(Texts().size(), 300u) << "unread ones are read";
}

TEST_F(ShardAdmin, AfterACompactionRemovedAndExpiredTextsAreNowhereOnTheDisk) {
  for (const bool goes_round : {false, true}) {
    Open();
    Remove(test::kEverything);
    Fill(0, 30, "kept ");
    Fill(0, 100, "secret ");
    Put(shard_.get(), "expired secret", 1, 5);
    Put(shard_.get(), "replaced", 1);
    clock_.Advance(6 * kSecond);
    if (goes_round) {  // so that files are written over
      for (uint32_t i = 0; i < 12'000; ++i) {
        Put(shard_.get(), (i % 3 == 0 ? "changing secret " : "changing ") + std::to_string(i % 60), i);
        if (i % 20 != 0) continue;
        clock_.Advance(60'000'000);
        shard_->Turn();
      }
    }
    ASSERT_TRUE(shard_->Sync().ok());
    EXPECT_TRUE(OnDisk("secret"));
    Remove(Containing("secret"));
    Put(shard_.get(), "erased", 1);
    ASSERT_TRUE(shard_->Erase("erased", 0).ok());
    EXPECT_TRUE(OnDisk("secret")) << "the log still holds it";
    const CacheAdmin::Compaction compaction = Compact();
    EXPECT_FALSE(OnDisk("secret"));
    EXPECT_FALSE(OnDisk("erased"));
    EXPECT_EQ(compaction.bytes_after, LogBytes());
    EXPECT_LE(compaction.bytes_after, compaction.bytes_before + 2 * config_.wal_segment_bytes);
    if (goes_round) {
      EXPECT_LT(compaction.bytes_after, compaction.bytes_before);
    }
    EXPECT_EQ(Found(0, 30, "kept "), 30u);
    Open();
    EXPECT_EQ(Found(0, 30, "kept "), 30u);
    EXPECT_EQ(VersionOf(shard_.get(), "replaced"), 1);
    EXPECT_FALSE(OnDisk("secret"));
    EXPECT_EQ(Found(0, 100, "secret "), 0u);
  }
}

TEST_F(ShardAdmin, ACompactionEvictsNothingFromALogAtItsBound) {
  config_.wal_bytes_max = 512 << 10;
  Open();
  Fill(0, 1500);  // evicts
  for (int i = 0; i < 20; ++i) {
    clock_.Advance(60'000'000);
    shard_->Turn();
  }
  const uint64_t entries = shard_->Stats().entries;
  const uint32_t found = Found(0, 1500);
  Compact();
  EXPECT_EQ(shard_->Stats().entries, entries);
  EXPECT_EQ(Found(0, 1500), found);
  clock_.Advance(2 * kSecond);
  shard_->Turn();
  EXPECT_LE(LogBytes(), config_.wal_bytes_max);
  Open();
  EXPECT_EQ(Found(0, 1500), found);
}

TEST_F(ShardAdmin, UnreadEntriesAreCompactedToo) {
  Open();
  Fill(0, 100);
  Fill(0, 100, "secret ");
  options_.load_at_open = false;
  Open();
  Remove(Containing("secret"));
  Open();
  EXPECT_EQ(shard_->Stats().unread_entries, 100u);
  Compact();
  EXPECT_FALSE(OnDisk("secret"));
  EXPECT_EQ(Found(0, 100), 100u);
  Open();
  EXPECT_EQ(Found(0, 100), 100u);
}

// A power cut at each operation of a compaction loses nothing that was there, and revives nothing.
TEST_F(ShardAdmin, APowerCutAtAnyStepOfACompactionLosesNothing) {
  uint64_t cuts = 0;
  for (uint64_t at = 1;; ++at) {
    disk_.~SimDisk();
    new (&disk_) sim::SimDisk(at);
    Open();
    Fill(0, 60);
    Fill(0, 60, "secret ");
    Remove(Containing("secret"));
    sim::SimDisk::Faults faults;
    faults.power_off_at = at;
    disk_.SetFaults(faults);
    const bool done = shard_->Compact(GoOn).ok();
    disk_.PowerCut();
    Kill();
    Open();
    ASSERT_EQ(Found(0, 60), 60u) << "cut at " << at;
    ASSERT_EQ(Found(0, 60, "secret "), 0u) << "cut at " << at;
    ASSERT_EQ(shard_->Stats().quarantined_segments, 0u) << "cut at " << at;
    if (done) break;
    ++cuts;
  }
  EXPECT_GT(cuts, 10u);
}

TEST_F(ShardAdmin, ACancelledCompactionLeavesALogThatIsWhole) {
  Open();
  for (uint32_t i = 0; i < 2000; ++i) {
    Put(shard_.get(), "text " + std::to_string(i % 400), i % 400);
    if (i % 20 != 0) continue;
    clock_.Advance(60'000'000);
    shard_->Turn();
  }
  EXPECT_EQ(shard_->Compact([](uint64_t, uint64_t) { return false; }).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(Found(0, 400), 400u);
  Compact();
  Open();
  EXPECT_EQ(Found(0, 400), 400u);
}

TEST_F(ShardAdmin, ACompactionThatTheDiskRefusesFails) {
  Open();
  Fill(0, 100);
  ASSERT_TRUE(shard_->Sync().ok());
  sim::SimDisk::Faults faults;
  faults.fail_at = 1;
  faults.fail_forever = true;
  disk_.SetFaults(faults);
  EXPECT_EQ(shard_->Compact(GoOn).status().code(), StatusCode::kStorageError);
  disk_.SetFaults({});
  clock_.Advance(2 * kSecond);
  shard_->Turn();
  Compact();
  EXPECT_EQ(Found(0, 100), 100u);
  config_.policy = DurabilityPolicy::kNone;
  Open();
  EXPECT_EQ(shard_->Compact(GoOn).status().code(), StatusCode::kBadOption);
}

}  // namespace
}  // namespace sutra
