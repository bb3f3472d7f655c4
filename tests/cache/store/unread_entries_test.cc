// Entries after a start: they come to their slots by what the log's index says of them, count at once, and their texts
// and vectors follow later.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <unordered_map>

#include "cache/store/slot_table.h"
#include "tests/cache/cache_test_support.h"

namespace sutra {
namespace {

using test::kWidth;
using test::VectorOf;

constexpr uint64_t kNow = 100;

class UnreadEntries : public testing::Test {
 protected:
  void Make(uint64_t entries_max, uint64_t bytes_max = 64 << 20, uint64_t hash_mask = ~0ull) {
    store_ = std::make_unique<SlotTable>(SlotTable::Limits{kWidth, entries_max, bytes_max, hash_mask});
    store_->BeginReplay(7);
  }
  bool PutUnread(uint32_t slot, const std::string& text, uint32_t version, uint64_t expires_ns = UINT64_MAX) {
    SlotTable::Unread entry;
    entry.digest = store_->KeyOf(text, 0).digest;
    entry.text_bytes = static_cast<uint32_t>(text.size());
    entry.token_count = version;
    entry.lifetime = expires_ns;
    entry.place = {3, slot + 128};
    const MutexLock lock(store_->mutex());
    return store_->PutUnreadLocked(slot, entry);
  }
  bool Fill(uint32_t slot, const std::string& text, uint32_t version) {
    const std::vector<float> vector = VectorOf(text, version);
    const EntryKey key = store_->KeyOf(text, 0);
    LongText::Ptr copy = SlotTable::CopyLongText(key);
    const MutexLock lock(store_->mutex());
    return store_->FillLocked(slot, key, std::as_bytes(std::span(vector)), 1.5f, &copy);
  }
  // -1: not found, -2: another vector.
  int Find(const std::string& text, const std::function<void(uint32_t)>& read = {}) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    if (!store_->Lookup(store_->KeyOf(text, 0), kNow, vector.data(), &value, read)) return -1;
    return vector == VectorOf(text, value.token_count) ? static_cast<int>(value.token_count) : -2;
  }
  std::optional<bool> Try(const std::string& text) {
    std::vector<float> vector(kWidth);
    CacheValue value;
    return store_->TryLookup(store_->KeyOf(text, 0), kNow, vector.data(), &value);
  }
  void Put(const std::string& text, uint32_t version) {
    const std::vector<float> vector = VectorOf(text, version);
    const MutexLock lock(store_->mutex());
    store_->PutLocked(store_->KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, version, false}, UINT64_MAX, kNow);
  }
  std::optional<SlotTable::LogPlace> PlaceOf(uint32_t slot) {
    const MutexLock lock(store_->mutex());
    return store_->UnreadPlaceLocked(slot);
  }

  std::unique_ptr<SlotTable> store_;
};

TEST_F(UnreadEntries, ALookupThatMayNotWaitLeavesOneToSomebodyElseAndOneThatMayReadsIt) {
  Make(100);
  ASSERT_TRUE(PutUnread(5, "text", 4));
  store_->FinishReplay();
  EXPECT_EQ(store_->GetCounts().entries, 1u);
  EXPECT_EQ(store_->GetCounts().unread, 1u);
  EXPECT_EQ(Try("text"), std::nullopt);
  EXPECT_EQ(Try("other"), std::optional(false));
  EXPECT_EQ(Find("text"), -1) << "nobody reads it";
  EXPECT_EQ(PlaceOf(5), (SlotTable::LogPlace{3, 133}));
  EXPECT_EQ(PlaceOf(4), std::nullopt);
  EXPECT_EQ(Find("text", [&](uint32_t slot) { EXPECT_TRUE(Fill(slot, "text", 4)); }), 4);
  EXPECT_EQ(Try("text"), std::optional(true));
  EXPECT_EQ(PlaceOf(5), std::nullopt);
  EXPECT_EQ(store_->GetCounts().unread, 0u);
  EXPECT_EQ(store_->GetCounts().entries, 1u);
}

TEST_F(UnreadEntries, AnotherTextThanTheOneInTheLogIsNotTaken) {
  for (const uint64_t mask : {~uint64_t{0}, uint64_t{0}}) {
    Make(100, 64 << 20, mask);
    ASSERT_TRUE(PutUnread(5, "text", 4));
    EXPECT_FALSE(Fill(5, "Text", 4));
    EXPECT_FALSE(Fill(5, "tex", 4));
    EXPECT_EQ(Try("Text"), std::optional(false));
    EXPECT_TRUE(Fill(5, "text", 4));
    EXPECT_EQ(Find("text"), 4);
  }
}

TEST_F(UnreadEntries, TheyExpireAreRemovedAndAreReplacedLikeOthers) {
  Make(100);
  ASSERT_TRUE(PutUnread(1, "expired", 1, kNow));
  ASSERT_TRUE(PutUnread(2, "erased", 2));
  ASSERT_TRUE(PutUnread(3, "replaced", 3));
  ASSERT_TRUE(PutUnread(4, "swept", 4, kNow + 1));
  ASSERT_TRUE(PutUnread(6, std::string(SlotTable::kLongTextBytes + 1, 'x'), 5));
  store_->FinishReplay();
  EXPECT_EQ(Try("expired"), std::optional(false));
  {
    const MutexLock lock(store_->mutex());
    EXPECT_TRUE(store_->EraseLocked(store_->KeyOf("erased", 0)));
  }
  EXPECT_EQ(Try("erased"), std::optional(false));
  Put("replaced", 30);
  EXPECT_EQ(Find("replaced"), 30);
  store_->Sweep(100, kNow + 1);
  EXPECT_EQ(Try("swept"), std::optional(false));
  EXPECT_EQ(store_->GetCounts().entries, 2u);
  EXPECT_EQ(store_->GetCounts().unread, 1u);
  EXPECT_TRUE(Fill(6, std::string(SlotTable::kLongTextBytes + 1, 'x'), 5));
  EXPECT_EQ(Find(std::string(SlotTable::kLongTextBytes + 1, 'x')), 5);
  EXPECT_EQ(store_->DropAll(), 2u);
  EXPECT_EQ(store_->GetCounts().unread, 0u);
}

TEST_F(UnreadEntries, AWalkStopsBeforeOneAndFindsEach) {
  Make(1000);
  for (uint32_t slot = 0; slot < 900; slot += 3) ASSERT_TRUE(PutUnread(slot, std::to_string(slot), slot));
  store_->FinishReplay();
  uint64_t cursor = 0, seen = 0;
  const auto visit = [&](const EntryView& entry, uint64_t* segment) {
    EXPECT_EQ(entry.text, std::to_string(entry.slot));
    ++seen;
    *segment = 9;
    return true;
  };
  uint32_t unread = 0;
  EXPECT_FALSE(store_->VisitOlder(3, &cursor, visit, &unread));
  EXPECT_EQ(unread, 0u);
  EXPECT_TRUE(Fill(0, "0", 0));
  EXPECT_FALSE(store_->VisitOlder(3, &cursor, visit, &unread));
  EXPECT_EQ(unread, 3u);
  EXPECT_EQ(seen, 1u);
  store_->HoldBy(1);
  EXPECT_EQ(PlaceOf(3), (SlotTable::LogPlace{3, 131})) << "it is where it was, whatever became of others";
  uint64_t at = 0;
  uint32_t found = 0;
  for (uint32_t slot; (slot = store_->NextUnread(&at)) != SlotTable::kNoSlot; ++found) {
    ASSERT_TRUE(Fill(slot, std::to_string(slot), slot));
  }
  EXPECT_EQ(found, 299u);
  EXPECT_TRUE(store_->VisitOlder(3, &cursor, visit, &unread));
  EXPECT_EQ(unread, SlotTable::kNoSlot);
  EXPECT_EQ(seen, 300u);
}

TEST_F(UnreadEntries, ComeToTheirSlotAndWhoeverWasThereGoes) {
  Make(100);
  const auto put_at = [&](uint32_t slot, const std::string& text, uint32_t version) {
    return PutUnread(slot, text, version) && Fill(slot, text, version);
  };
  EXPECT_TRUE(put_at(7, "a", 1));
  EXPECT_TRUE(put_at(7, "b", 2));
  EXPECT_EQ(Find("a"), -1);
  EXPECT_EQ(Find("b"), 2);
  EXPECT_TRUE(put_at(9, "b", 3)) << "the same key elsewhere";
  EXPECT_EQ(Find("b"), 3);
  EXPECT_TRUE(PutUnread(9, "b", 4)) << "and again, where it was";
  EXPECT_EQ(Try("b"), std::nullopt);
  EXPECT_TRUE(PutUnread(8, "b", 4)) << "and elsewhere before it is read";
  EXPECT_EQ(PlaceOf(9), std::nullopt);
  EXPECT_TRUE(put_at(9, "b", 4));
  EXPECT_EQ(Find("b"), 4);
  EXPECT_FALSE(put_at(100, "c", 1)) << "beyond the bounds";
  EXPECT_EQ(store_->GetCounts().entries, 1u);
  store_->FinishReplay();
  for (uint32_t i = 0; i < 99; ++i) Put(std::to_string(i), i);
  EXPECT_EQ(store_->GetCounts().entries, 100u);
  EXPECT_EQ(store_->GetCounts().evictions, 0u) << "the slots left free are used";
  EXPECT_EQ(Find("b"), 4);
  {
    const MutexLock lock(store_->mutex());
    store_->ClearLocked(9);
    store_->ClearLocked(9);
  }
  EXPECT_EQ(Find("b"), -1);
}

// What was within the bounds is within them when it is replayed, and its texts fit into the heap in any order.
// What it replaced is older: a start would answer with it.
TEST_F(UnreadEntries, OneThatIsBeyondTheBoundsStillTakesAwayWhatItReplaced) {
  Make(100, 64 << 10);
  ASSERT_TRUE(PutUnread(3, "moved", 1));
  EXPECT_FALSE(PutUnread(100, "moved", 2)) << "there is no such slot any more";
  ASSERT_TRUE(PutUnread(5, "before", 1));
  EXPECT_FALSE(PutUnread(5, std::string(65 << 10, 'x'), 2)) << "its text alone exceeds the bound";
  store_->FinishReplay();
  EXPECT_EQ(store_->GetCounts().entries, 0u);
  EXPECT_EQ(Find("moved"), -1);
  EXPECT_EQ(Find("before"), -1);
}

// Its place in the log is somebody's still: whoever writes the log must hear that it is free.
TEST_F(UnreadEntries, APutThatFindsAnotherTextThereTellsOfTheSlotThatItEmptied) {
  const std::string text(4000, 'x');
  Make(1000, 64 << 10);
  const auto fill = [&](uint32_t from, uint32_t to) {
    for (uint32_t slot = from; slot < to; ++slot) PutUnread(slot, std::to_string(slot) + std::string(40, 'y'), 1);
  };
  fill(0, 100);
  constexpr uint32_t kLiar = 100;
  {
    SlotTable::Unread liar;
    liar.digest = store_->KeyOf(text, 0).digest;
    liar.text_bytes = 1;
    liar.lifetime = UINT64_MAX;
    liar.place = {3, 400};
    const MutexLock lock(store_->mutex());
    ASSERT_TRUE(store_->PutUnreadLocked(kLiar, liar));
  }
  fill(101, 380);
  store_->FinishReplay();
  const std::vector<float> vector = VectorOf(text, 2);
  const MutexLock lock(store_->mutex());
  ASSERT_TRUE(store_->UnreadPlaceLocked(kLiar).has_value()) << "evicted, so that this test shows nothing";
  const SlotTable::Placed placed =
      store_->PutLocked(store_->KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 2, false}, UINT64_MAX, kNow);
  bool told = placed.slot == kLiar;
  EXPECT_FALSE(told) << "it went back, so that this test shows nothing";
  store_->VisitVacatedLocked(placed.vacated, [&](uint32_t slot) { told = told || slot == kLiar; });
  EXPECT_TRUE(told);
}

TEST_F(UnreadEntries, AReplayOfAStoreAtItsBoundEvictsNothing) {
  constexpr uint64_t kBytesMax = 64 << 10;
  std::mt19937_64 random(test::TestSeed(6));
  for (int round = 0; round < 50; ++round) {
    SlotTable before(SlotTable::Limits{kWidth, 1000, kBytesMax});
    std::unordered_map<uint32_t, std::string> log;
    for (int step = 0; step < 600; ++step) {
      const std::string text = std::to_string(step) + std::string(random() % 200, 'x');
      const std::vector<float> vector = VectorOf(text, 1);
      const MutexLock lock(before.mutex());
      const SlotTable::Placed placed =
          before.PutLocked(before.KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 1, false}, UINT64_MAX, 0);
      before.VisitVacatedLocked(placed.vacated, [&](uint32_t slot) { log.erase(slot); });
      log[placed.slot] = text;
    }
    Make(1000, kBytesMax);
    for (const auto& [slot, text] : log) ASSERT_TRUE(PutUnread(slot, text, 1));
    store_->FinishReplay();
    for (const auto& [slot, text] : log) ASSERT_TRUE(Fill(slot, text, 1));
    EXPECT_EQ(store_->GetCounts().evictions, 0u);
    EXPECT_EQ(store_->GetCounts().bytes, before.GetCounts().bytes);
  }
}

TEST_F(UnreadEntries, ALowerBoundThanBeforeHoldsWhenTheReplayHasEnded) {
  Make(1000, 64 << 10);
  for (uint32_t slot = 0; slot < 100; ++slot) PutUnread(slot, std::to_string(slot) + std::string(1000, 'x'), 1);
  store_->FinishReplay();
  EXPECT_LE(store_->GetCounts().bytes, 64u << 10);
  EXPECT_GT(store_->GetCounts().entries, 20u);
}

}  // namespace
}  // namespace sutra
