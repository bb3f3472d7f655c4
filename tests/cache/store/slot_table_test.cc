// The store in memory: exact matches only, bounds, who is evicted, collisions.
#include "cache/store/slot_table.h"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>

#include "tests/cache/cache_test_support.h"
#include "tests/sim/manual_clock.h"

namespace sutra {
namespace {

using test::kWidth;
using test::VectorOf;

class SlotTableTest : public testing::Test {
 protected:
  void Make(uint64_t entries_max, uint64_t bytes_max = 64 << 20, uint64_t hash_mask = ~0ull) {
    store_ = std::make_unique<SlotTable>(SlotTable::Limits{kWidth, entries_max, bytes_max, hash_mask});
  }
  bool Insert(const std::string& text, uint32_t version, uint32_t variant = 0, uint64_t segment = 1) {
    const EntryKey key = store_->KeyOf(text, variant);
    MutexLock lock(store_->mutex());
    const std::vector<float> vector = VectorOf(text, version);
    const SlotTable::Placed placed = store_->PutLocked(key, std::as_bytes(std::span(vector)),
                                                       CacheValue{1, version, false}, UINT64_MAX, clock_.BootNs());
    if (placed.slot == SlotTable::kNoSlot) return false;
    store_->SetSegmentLocked(placed.slot, segment);
    return true;
  }
  bool Erase(const std::string& text) {
    const EntryKey key = store_->KeyOf(text, 0);
    MutexLock lock(store_->mutex());
    return store_->EraseLocked(key);
  }
  int Find(const std::string& text, uint32_t variant = 0) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    if (!store_->Lookup(store_->KeyOf(text, variant), clock_.BootNs(), vector.data(), &value)) return -1;
    return vector == VectorOf(text, value.token_count) ? static_cast<int>(value.token_count) : -2;
  }

  sim::ManualClock clock_;
  std::unique_ptr<SlotTable> store_;
};

// Whoever holds the lock may have lost its CPU: nobody who only looks waits for that.
TEST_F(SlotTableTest, ALookupFindsAnEntryWhileAWriterHasTheLock) {
  Make(100);
  EXPECT_TRUE(Insert("text", 1));
  const MutexLock lock(store_->mutex());
  std::vector<float> vector(kWidth);
  CacheValue value;
  EXPECT_TRUE(store_->Lookup(store_->KeyOf("text", 0), 0, vector.data(), &value));
  EXPECT_EQ(vector, VectorOf("text", 1));
  EXPECT_EQ(store_->TryLookup(store_->KeyOf("other", 0), 0, vector.data(), &value), std::optional(false));
}

TEST_F(SlotTableTest, AnswersExactlyWhatWasStored) {
  Make(100);
  EXPECT_TRUE(Insert("text", 1));
  EXPECT_EQ(Find("text"), 1);
  EXPECT_EQ(Find("text", 1), -1);
  EXPECT_EQ(Find("text "), -1);
  EXPECT_EQ(Find("Text"), -1);
  EXPECT_TRUE(Insert("text", 2));
  EXPECT_TRUE(Insert("text", 3, 7));
  EXPECT_EQ(Find("text"), 2);
  EXPECT_EQ(Find("text", 7), 3);
  EXPECT_EQ(store_->GetCounts().entries, 2u);
  const std::string with_nul("a\0b", 3);
  EXPECT_TRUE(Insert(with_nul, 4));
  EXPECT_EQ(Find(with_nul), 4);
  EXPECT_EQ(Find("a"), -1);
}

TEST_F(SlotTableTest, CollidingHashesNeverExchangeVectors) {
  Make(400, 64 << 20, 0xff);  // 256 places, the same hash for many texts
  std::mt19937_64 random(test::TestSeed(3));
  std::unordered_map<std::string, int> oracle;
  for (int step = 0; step < 20'000; ++step) {
    const std::string text = std::to_string(random() % 300);
    if (random() % 3 == 0) {
      EXPECT_EQ(Erase(text), oracle.erase(text) == 1);
    } else {
      ASSERT_TRUE(Insert(text, static_cast<uint32_t>(step)));
      oracle[text] = step;
    }
    const std::string other = std::to_string(random() % 300);
    const auto found = oracle.find(other);
    ASSERT_EQ(Find(other), found == oracle.end() ? -1 : found->second);
  }
  EXPECT_EQ(store_->GetCounts().entries, oracle.size());
}

TEST_F(SlotTableTest, LongTextsAreToldApartAndFreedWithTheirEntries) {
  Make(100, 64 << 20, 0);
  const std::string one(SlotTable::kLongTextBytes + 1, '1'), two(SlotTable::kLongTextBytes + 1, '2');
  EXPECT_TRUE(Insert(one, 1));
  EXPECT_EQ(Find(two), -1);
  EXPECT_TRUE(Insert(two, 2));
  EXPECT_EQ(Find(one), 1);
  EXPECT_EQ(Find(two), 2);
  EXPECT_TRUE(Erase(one));
  EXPECT_EQ(Find(one), -1);
  EXPECT_EQ(Find(two), 2);
  EXPECT_TRUE(Erase(two));
  EXPECT_EQ(store_->GetCounts().bytes, 0u);
}

// To copy 16 MiB takes milliseconds, in which no other writer would come in.
TEST_F(SlotTableTest, ACopyOfALongTextMadeBeforeTheLockIsTaken) {
  Make(100);
  const std::string text(SlotTable::kLongTextBytes + 1, 'l');
  const EntryKey key = store_->KeyOf(text, 0);
  LongText::Ptr copy = SlotTable::CopyLongText(key);
  const char* bytes = copy->view().data();
  {
    const std::vector<float> vector = VectorOf(text, 1);
    const MutexLock lock(store_->mutex());
    ASSERT_NE(store_->PutLocked(key, std::as_bytes(std::span(vector)), {1, 1, false}, UINT64_MAX, 0, &copy).slot,
              SlotTable::kNoSlot);
  }
  EXPECT_EQ(copy, nullptr) << "taken, not copied again";
  store_->HoldBy(1);
  EXPECT_EQ(Find(text), 1);
  uint64_t cursor = 0;
  {
    const MutexLock lock(store_->mutex());
    store_->SetSegmentLocked(0, 1);
  }
  const auto visit = [&](const EntryView& entry, uint64_t* segment) {
    EXPECT_EQ(entry.text.data(), bytes);
    *segment = 0;
    return true;
  };
  uint32_t unread = 0;
  EXPECT_TRUE(store_->VisitOlder(1, &cursor, visit, &unread));
  EXPECT_EQ(unread, SlotTable::kNoSlot);
  EXPECT_EQ(SlotTable::CopyLongText(store_->KeyOf(std::string(SlotTable::kLongTextBytes, 's'), 0)), nullptr);
}

TEST_F(SlotTableTest, BoundsHoldAtEveryMoment) {
  for (const uint64_t entries_max : {1u, 7u, 200u}) {
    Make(entries_max, 128 << 10);
    for (uint32_t i = 0; i < 2000; ++i) {
      ASSERT_TRUE(Insert(std::string(i % 700, 'x') + std::to_string(i), i));
      const SlotTable::Counts counts = store_->GetCounts();
      ASSERT_LE(counts.entries, entries_max);
      ASSERT_LE(counts.bytes, 128u << 10);
    }
    EXPECT_EQ(Find(std::string(1999 % 700, 'x') + "1999"), 1999) << "the newest is there";
    EXPECT_GT(store_->GetCounts().evictions, 0u);
  }
}

TEST_F(SlotTableTest, HoldsExactlyAsManyEntriesAsItMay) {
  Make(100'000, 1 << 30);
  for (uint32_t i = 0; i < 120'000; ++i) ASSERT_TRUE(Insert(std::to_string(i), i));
  const SlotTable::Counts counts = store_->GetCounts();
  EXPECT_EQ(counts.entries, 100'000u);
  EXPECT_EQ(counts.evictions, 20'000u);
}

TEST_F(SlotTableTest, AHitGivesASecondChance) {
  Make(100);
  for (uint32_t i = 0; i < 100; ++i) Insert(std::to_string(i), i);
  EXPECT_EQ(Find("5"), 5);
  for (uint32_t i = 100; i < 190; ++i) Insert(std::to_string(i), i);
  EXPECT_EQ(Find("5"), 5);
  EXPECT_EQ(Find("6"), -1);
}

// A job that asks for ten times the size of the store, every text once.
TEST_F(SlotTableTest, ABulkJobLeavesTheHotEntriesAlone) {
  Make(1000);
  const auto ask = [&](const std::string& text) { return Find(text) >= 0 || (Insert(text, 10), false); };
  std::mt19937_64 random(test::TestSeed(9));
  for (int step = 0; step < 20'000; ++step) {
    ask("hot" + std::to_string(random() % 800));
    if (step % 4 == 0) ask("new" + std::to_string(step));
  }
  for (int i = 0; i < 10'000; ++i) EXPECT_FALSE(ask("bulk" + std::to_string(i)));
  int hot = 0;
  for (int i = 0; i < 800; ++i) hot += Find("hot" + std::to_string(i)) >= 0;
  EXPECT_GE(hot, 780);
  EXPECT_EQ(store_->GetCounts().entries, 1000u);
}

TEST_F(SlotTableTest, WhatHasExpiredGoesAsSoonAsItsTurnComesHoweverHotItWas) {
  Make(100);
  const auto insert = [&](const std::string& text, uint64_t expires_ns) {
    const EntryKey key = store_->KeyOf(text, 0);
    MutexLock lock(store_->mutex());
    const std::vector<float> vector = VectorOf(text, 1);
    return store_
               ->PutLocked(key, std::as_bytes(std::span(vector)), CacheValue{1, 1, false}, expires_ns, clock_.BootNs())
               .slot != SlotTable::kNoSlot;
  };
  const uint64_t soon = clock_.BootNs() + 1'000'000;
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(insert(std::to_string(i), i < 50 ? soon : UINT64_MAX));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Find(std::to_string(i)), 1);
  clock_.Advance(2'000'000);
  for (int i = 100; i < 150; ++i) ASSERT_TRUE(insert(std::to_string(i), UINT64_MAX));
  EXPECT_EQ(store_->GetCounts().expirations, 50u);
  EXPECT_EQ(store_->GetCounts().evictions, 0u);
  for (int i = 50; i < 150; ++i) EXPECT_EQ(Find(std::to_string(i)), 1);
}

// Texts of all lengths, hits, removals, replacements: the bounds hold, and what is found is what was stored.
TEST_F(SlotTableTest, BoundsHoldThroughARandomHistory) {
  std::mt19937_64 random(test::TestSeed(4));
  Make(300, 256 << 10);
  std::unordered_map<std::string, uint32_t> stored;
  for (uint32_t step = 0; step < 30'000; ++step) {
    const uint64_t number = random() % (random() % 2 == 0 ? 100 : 2'000);
    const std::string text = std::to_string(number) + std::string(number % 11 == 0 ? number * 7 : number % 40, 't');
    switch (random() % 8) {
      case 0:
        ASSERT_LE(Erase(text) ? 1u : 0u, stored.count(text));
        stored.erase(text);
        break;
      case 1:
      case 2:
      case 3:
        ASSERT_TRUE(Insert(text, step));
        stored[text] = step;
        break;
      default: {
        const int found = Find(text);
        ASSERT_TRUE(found == -1 || static_cast<uint32_t>(found) == stored.at(text)) << text;
      }
    }
    const SlotTable::Counts counts = store_->GetCounts();
    ASSERT_LE(counts.entries, 300u);
    ASSERT_LE(counts.bytes, 256u << 10);
  }
  EXPECT_GT(store_->GetCounts().evictions, 1'000u);
  EXPECT_GT(store_->DropAll(), 0u);
  EXPECT_EQ(store_->GetCounts().bytes, 0u);
}

TEST_F(SlotTableTest, AnEntryOverTheBoundIsRefused) {
  Make(10, 64 << 10);
  EXPECT_FALSE(Insert(std::string(70'000, 'x'), 1));
  EXPECT_FALSE(store_->CanHold(70'000));
  EXPECT_TRUE(Insert("small", 1));
}

TEST_F(SlotTableTest, VisitsAndEvictsBySegment) {
  Make(1000);
  for (uint32_t i = 0; i < 300; ++i) Insert(std::to_string(i), i, 0, 1 + i / 100);
  Insert("unlogged", 1, 0, 0);
  uint64_t cursor = 0;
  int seen = 0;
  const auto visit = [&](const EntryView&, uint64_t* segment) {
    if (++seen == 50) return false;  // stops before the 50th, and continues there
    *segment = 9;
    return true;
  };
  uint32_t unread = 0;
  EXPECT_FALSE(store_->VisitOlder(1, &cursor, visit, &unread));
  EXPECT_TRUE(store_->VisitOlder(1, &cursor, visit, &unread));
  EXPECT_EQ(seen, 101);
  EXPECT_EQ(store_->EvictOlder(2), 100u);
  EXPECT_EQ(Find("50"), 50);
  EXPECT_EQ(Find("150"), -1);
  EXPECT_EQ(Find("250"), 250);
  EXPECT_EQ(Find("unlogged"), 1);
  store_->HoldBy(4);
  EXPECT_EQ(store_->EvictOlder(4), 200u);
  EXPECT_EQ(store_->DropAll(), 1u);
  EXPECT_EQ(Find("unlogged"), -1);
}

TEST_F(SlotTableTest, DropsAllOfFewAndOfManyAndTakesNewOnes) {
  Make(10'000);
  for (const uint32_t count : {1u, 30u, 5'000u, 2u}) {
    for (uint32_t i = 0; i < count; ++i) ASSERT_TRUE(Insert(std::to_string(i) + std::string(i % 2 * 500, 'x'), i));
    EXPECT_EQ(store_->DropAll(), count);
    const SlotTable::Counts counts = store_->GetCounts();
    EXPECT_EQ(counts.entries, 0u);
    EXPECT_EQ(counts.bytes, 0u);
    for (uint32_t i = 0; i < count; ++i) ASSERT_EQ(Find(std::to_string(i) + std::string(i % 2 * 500, 'x')), -1);
  }
}

// What the log relies on: whoever comes takes the slot of the last who left, and the others that left for it are told.
TEST_F(SlotTableTest, SaysWhichSlotsAPutLeftEmpty) {
  Make(1000, 256 << 10);
  const auto put = [&](const std::string& text, std::vector<uint32_t>* vacated) {
    const std::vector<float> vector = VectorOf(text, 1);
    const MutexLock lock(store_->mutex());
    const SlotTable::Placed placed =
        store_->PutLocked(store_->KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 1, false}, UINT64_MAX, 0);
    store_->VisitVacatedLocked(placed.vacated, [&](uint32_t slot) { vacated->push_back(slot); });
    return placed.slot;
  };
  std::unordered_map<uint32_t, std::string> log;  // what the records say of each slot
  std::mt19937_64 random(test::TestSeed(5));
  size_t vacated_at_once = 0;
  for (int step = 0; step < 5'000; ++step) {
    const std::string text = std::to_string(step) + std::string(random() % 50 == 0 ? 40'000 : random() % 200, 'x');
    std::vector<uint32_t> vacated;
    const uint32_t slot = put(text, &vacated);
    for (const uint32_t other : vacated) log.erase(other);
    log[slot] = text;
    vacated_at_once = std::max(vacated_at_once, vacated.size());
  }
  EXPECT_GT(vacated_at_once, 10u) << "a long text for many short ones";
  EXPECT_EQ(log.size(), store_->GetCounts().entries);
  for (const auto& [slot, text] : log) EXPECT_EQ(Find(text), 1) << slot;
}

TEST_F(SlotTableTest, AKeyIsRemovedByItsDigest) {
  for (const uint64_t mask : {~uint64_t{0}, uint64_t{0}}) {
    Make(100, 64 << 20, mask);
    for (uint32_t i = 0; i < 50; ++i) Insert(std::to_string(i), i, i % 2);
    const EntryKey key = store_->KeyOf("8", 0);
    const MutexLock lock(store_->mutex());
    EXPECT_FALSE(store_->EraseDigestLocked(key.digest, 1)) << "another variant";
    EXPECT_TRUE(store_->EraseDigestLocked(key.digest, 0));
    EXPECT_FALSE(store_->EraseDigestLocked(key.digest, 0));
    EXPECT_EQ(store_->GetCounts().entries, 49u);
  }
}

TEST_F(SlotTableTest, ASweepTakesOutWhatHasExpiredAndNothingElse) {
  Make(100);
  const auto insert = [&](const std::string& text, uint64_t expires_ns) {
    const std::vector<float> vector = VectorOf(text, 1);
    const MutexLock lock(store_->mutex());
    store_->PutLocked(store_->KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 1, false}, expires_ns, 1);
  };
  for (int i = 0; i < 90; ++i) insert(std::to_string(i), i % 3 == 0 ? 1000 : UINT64_MAX);
  store_->Sweep(90, 999);
  EXPECT_EQ(store_->GetCounts().entries, 90u);
  for (int step = 0; step < 9; ++step) store_->Sweep(10, 1000);
  EXPECT_EQ(store_->GetCounts().entries, 60u);
  EXPECT_EQ(store_->GetCounts().expirations, 30u);
  store_->Sweep(1000, UINT64_MAX);
  EXPECT_EQ(store_->GetCounts().entries, 0u);
  EXPECT_EQ(store_->GetCounts().bytes, 0u);
}

}  // namespace
}  // namespace sutra
