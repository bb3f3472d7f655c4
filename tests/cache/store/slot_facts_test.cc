// What administration sees of the entries, and how all of them are doomed at once.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cache/store/slot_table.h"

namespace sutra {
namespace {

class SlotFacts : public testing::Test {
 protected:
  uint32_t Put(const std::string& text, uint64_t expires_ns = 1000) {
    const std::vector<float> vector(4, 0.5f);
    const MutexLock lock(store_.mutex());
    const uint32_t slot =
        store_.PutLocked(store_.KeyOf(text, 0), std::as_bytes(std::span(vector)), {1, 1, false}, {expires_ns, 7}, 0)
            .slot;
    store_.SetSegmentLocked(slot, 1);
    return slot;
  }
  std::vector<std::string> Texts() {
    std::vector<std::string> texts;
    uint64_t cursor = 0;
    while (!store_.VisitFacts(&cursor, 3, [&](const EntryFacts& facts) { texts.emplace_back(facts.text); })) continue;
    return texts;
  }

  SlotTable store_{SlotTable::Limits{4, 100, 1 << 20}};
};

TEST_F(SlotFacts, AWalkSeesEveryEntryOnceWhateverItsSteps) {
  std::vector<std::string> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back("text " + std::to_string(i));
    Put(all.back());
  }
  EXPECT_EQ(Texts(), all);
}

TEST_F(SlotFacts, BirthTellsAnEntryFromTheNextOneInItsSlotAndFromItself) {
  const uint32_t slot = Put("a");
  uint32_t birth = 0;
  {
    const MutexLock lock(store_.mutex());
    birth = store_.FactsLocked(slot).birth;
    EXPECT_TRUE(store_.IsSameLocked(slot, birth));
    EXPECT_FALSE(store_.IsSameLocked(slot + 1, birth));
  }
  EXPECT_EQ(Put("a", 2000), slot);
  const MutexLock lock(store_.mutex());
  EXPECT_FALSE(store_.IsSameLocked(slot, birth));
  store_.ClearLocked(slot);
  EXPECT_FALSE(store_.IsSameLocked(slot, birth));
}

// What is doomed is nobody's any more: no walk shows it, and the log does not append it again behind the record that
// removed it. What comes later stays.
TEST_F(SlotFacts, WhatIsDoomedIsNotAppendedAgainAndGoes) {
  for (int i = 0; i < 10; ++i) Put("old " + std::to_string(i));
  {
    const MutexLock lock(store_.mutex());
    store_.DoomAllLocked();
  }
  Put("old 3");  // computed anew
  Put("new");
  const std::vector<std::string> left = {"old 3", "new"};
  EXPECT_EQ(Texts(), left);
  std::vector<std::string> appended;
  uint64_t cursor = 0;
  uint32_t unread = 0;
  const auto append = [&](const EntryView& entry, uint64_t* segment) {
    appended.emplace_back(entry.text);
    EXPECT_EQ(entry.ttl_s, 7u);
    *segment = 2;
    return true;
  };
  EXPECT_TRUE(store_.VisitOlder(1, &cursor, append, &unread));
  EXPECT_EQ(appended, left);
  uint64_t removed = 0, bytes = 0;
  cursor = 0;
  while (!store_.ClearDoomed(&cursor, 4, &removed, &bytes)) continue;
  EXPECT_EQ(removed, 9u);
  EXPECT_GT(bytes, 0u);
  EXPECT_EQ(store_.GetCounts().entries, 2u);
  EXPECT_EQ(Texts(), left);
}

}  // namespace
}  // namespace sutra
