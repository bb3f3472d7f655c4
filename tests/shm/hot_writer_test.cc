// The hot table's writer and reader in one process, call by call.
#include "shm/hot_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/kit/seed.h"
#include "tests/shm/hot_table_kit.h"

namespace sutra::test {
namespace {

constexpr uint32_t kWidth = 20;

class Table : public testing::Test {
 protected:
  uint32_t Write(uint32_t slot, uint32_t key, uint32_t round = 0, uint64_t expires_ns = kHotExpires) {
    HotKey hot = writer_.KeyOf(HotText(key), 0);
    return writer_.Write(slot, &hot, HotVector(key, round, kWidth), HotValueOf(key, round, expires_ns));
  }
  uint32_t SlotOf(uint32_t key) {
    HotKey hot = writer_.KeyOf(HotText(key), 0);
    return writer_.Find(&hot);
  }
  HotFound Find(uint32_t key, uint64_t now_ns = kHotNow) {
    return FindHot(table_.reader(), HotText(key), kWidth, now_ns);
  }
  PlainHotTable table_{kWidth, 64};
  HotWriter writer_ = table_.writer();
};

TEST_F(Table, FindsWhatWasWrittenAndNothingElse) {
  EXPECT_FALSE(Find(1).hit);
  EXPECT_EQ(Write(9, 1), HotWriter::kNoSlot);
  const HotFound found = Find(1);
  ASSERT_TRUE(found.hit);
  EXPECT_EQ(HotRoundOf(1, 1, found.unit, found.value), 0);
  EXPECT_EQ(found.slot, 9u);
  EXPECT_FALSE(Find(2).hit);
  EXPECT_FALSE(FindHot(table_.reader(), HotText(1), kWidth, kHotNow, 1).hit) << "another variant is another key";
  EXPECT_EQ(SlotOf(1), 9u);
  EXPECT_EQ(writer_.expires_ns(9), kHotExpires);
  EXPECT_EQ(writer_.expires_ns(8), 0u);
}

TEST_F(Table, OddWidthsAreWholeToo) {
  for (const uint32_t width : {1, 2, 3, 15, 16, 17, 385}) {
    const PlainHotTable table(width, 4);
    HotWriter writer = table.writer();
    HotKey key = writer.KeyOf(HotText(3), 0);
    writer.Write(3, &key, HotVector(3, 0, width), HotValueOf(3, 0));
    const HotFound found = FindHot(table.reader(), HotText(3), width);
    ASSERT_TRUE(found.hit) << width;
    EXPECT_EQ(HotRoundOf(3, 1, found.unit, found.value), 0) << width;
  }
}

TEST_F(Table, AKeyThatIsWrittenAgainHasItsNewVectorAndOneSlot) {
  Write(4, 1, 0);
  Write(4, 1, 1);
  HotFound found = Find(1);
  ASSERT_TRUE(found.hit);
  EXPECT_EQ(HotRoundOf(1, 2, found.unit, found.value), 1);
  Write(5, 1, 2);
  found = Find(1);
  ASSERT_TRUE(found.hit);
  EXPECT_EQ(HotRoundOf(1, 3, found.unit, found.value), 2);
  EXPECT_EQ(found.slot, 5u);
  EXPECT_EQ(writer_.expires_ns(4), 0u);
}

TEST_F(Table, ASlotThatIsGivenToAnotherKeyIsFoundUnderThatOneOnly) {
  Write(4, 1);
  Write(4, 2);
  EXPECT_FALSE(Find(1).hit);
  EXPECT_TRUE(Find(2).hit);
  EXPECT_EQ(SlotOf(1), HotWriter::kNoSlot);
}

TEST_F(Table, RemovedAndClearedKeysAreGoneAndTheirVectorsWithThem) {
  for (uint32_t key = 0; key < 32; ++key) Write(key, key);
  writer_.Remove(7);
  writer_.Remove(7);
  writer_.Remove(63);  // was never written
  EXPECT_FALSE(Find(7).hit);
  EXPECT_TRUE(Find(8).hit);
  writer_.Clear();
  for (uint32_t key = 0; key < 32; ++key) EXPECT_FALSE(Find(key).hit) << key;
  for (uint32_t slot = 0; slot < 32; ++slot) {
    for (uint64_t i = 0; i < table_.view().geometry.vector_words(); ++i) {
      ASSERT_EQ(table_.view().vector(slot)[i].load(std::memory_order_relaxed), 0u) << slot;
    }
  }
  Write(0, 1);
  EXPECT_TRUE(Find(1).hit);
}

TEST_F(Table, IsUsedOnlyWhileTheHeartbeatIsYoung) {
  Write(1, 1);
  EXPECT_TRUE(Find(1, kHotNow + kHotHeartbeatNsMax - 1).hit);
  EXPECT_FALSE(Find(1, kHotNow + kHotHeartbeatNsMax).hit);
  EXPECT_FALSE(Find(1, kHotNow - kHotHeartbeatNsMax).hit) << "a heartbeat of the future is no better";
  table_.page().heartbeat_ns.store(kHotNow + kHotHeartbeatNsMax, std::memory_order_relaxed);
  EXPECT_TRUE(Find(1, kHotNow + kHotHeartbeatNsMax).hit);
}

TEST_F(Table, ExpiresOnTheBootClock) {
  Write(1, 1, 0, kHotNow + kHotBootAhead + 1000);
  EXPECT_TRUE(Find(1, kHotNow + 999).hit);
  EXPECT_FALSE(Find(1, kHotNow + 1000).hit);
  EXPECT_FALSE(Find(1, kHotNow + 100'000'000).hit);
  writer_.SetBootAhead(kHotBootAhead + 1000);  // the host was suspended
  EXPECT_FALSE(Find(1, kHotNow).hit);
}

TEST_F(Table, ASlotThatIsBeingWrittenIsAMiss) {
  Write(1, 1);
  SharedWord<uint64_t>& sequence = table_.view().slot(1).sequence;
  const uint64_t even = sequence.load(std::memory_order_relaxed);
  ASSERT_EQ(even % 2, 0u);
  sequence.store(even + 1, std::memory_order_relaxed);
  EXPECT_FALSE(Find(1).hit);
  sequence.store(even + 2, std::memory_order_relaxed);
  EXPECT_TRUE(Find(1).hit);
}

TEST_F(Table, IsClosedForEver) {
  Write(1, 1);
  writer_.Close();
  EXPECT_FALSE(Find(1).hit);
  Write(2, 2);
  EXPECT_FALSE(Find(2).hit);
}

TEST_F(Table, AFullBucketGivesAnotherKeysCellAndSaysWhoseSlotIsEmptyNow) {
  const PlainHotTable table(1, 2);  // one bucket
  ASSERT_EQ(table.view().geometry.buckets(), 1u);
  // Two keys of one table can never fill its eight cells; those of slots beyond it can, written by hand.
  HotWriter writer = table.writer();
  HotKey first = writer.KeyOf(HotText(1), 0), second = writer.KeyOf(HotText(2), 0);
  writer.Write(0, &first, HotVector(1, 0, 1), HotValueOf(1, 0));
  const uint64_t cell = table.view().bucket(0)[0].load(std::memory_order_relaxed);
  ASSERT_EQ(HotCellSlot(cell), 0u);
  const uint32_t stolen = second.tag() % kHotCellsPerBucket;
  for (uint32_t i = 0; i < kHotCellsPerBucket; ++i) {
    table.view().bucket(0)[i].store(HotCell(first.tag() + 1, 1), std::memory_order_relaxed);
  }
  table.view().bucket(0)[stolen].store(cell, std::memory_order_relaxed);
  table.view().slot(0).flags_and_cell.store(uint64_t{stolen} << 32, std::memory_order_relaxed);
  EXPECT_EQ(writer.Write(1, &second, HotVector(2, 0, 1), HotValueOf(2, 0)), 0u);
  EXPECT_EQ(writer.expires_ns(0), 0u);
  EXPECT_FALSE(FindHot(table.reader(), HotText(1), 1).hit);
  EXPECT_TRUE(FindHot(table.reader(), HotText(2), 1).hit);
}

// Against a map, with more keys than slots and buckets that overflow.
TEST_F(Table, RandomHistoriesAgreeWithAMap) {
  std::mt19937_64 random(FreshTestSeed());
  for (int history = 0; history < 20; ++history) {
    const PlainHotTable table(kWidth, 24);
    HotWriter writer = table.writer();
    std::map<uint32_t, std::pair<uint32_t, uint32_t>> slots;  // slot -> key, round
    for (uint32_t step = 0; step < 2000; ++step) {
      const auto key = static_cast<uint32_t>(random() % 60);
      const auto slot = static_cast<uint32_t>(random() % 24);
      if (random() % 500 == 0) {
        writer.Clear();
        slots.clear();
      } else if (random() % 4 == 0) {
        writer.Remove(slot);
        slots.erase(slot);
      } else {
        HotKey hot = writer.KeyOf(HotText(key), 0);
        const uint32_t round = step % 16;
        const uint32_t displaced = writer.Write(slot, &hot, HotVector(key, round, kWidth), HotValueOf(key, round));
        std::erase_if(slots, [&](const auto& item) { return item.second.first == key; });
        if (displaced != HotWriter::kNoSlot) {
          ASSERT_EQ(slots.erase(displaced), 1u);
        }
        slots[slot] = {key, round};
      }
      const auto asked = static_cast<uint32_t>(random() % 60);
      const HotFound found = FindHot(table.reader(), HotText(asked), kWidth);
      const auto expected =
          std::find_if(slots.begin(), slots.end(), [&](const auto& item) { return item.second.first == asked; });
      ASSERT_EQ(found.hit, expected != slots.end()) << "key " << asked << ", step " << step;
      if (!found.hit) continue;
      ASSERT_EQ(found.slot, expected->first);
      ASSERT_EQ(HotRoundOf(asked, 16, found.unit, found.value), expected->second.second);
    }
  }
}

TEST(HotGeometry, HasAsManySlotsAsFit) {
  for (const uint32_t width : {1u, 7u, 384u, 1024u, kWidthMax}) {
    for (const uint64_t bytes : {kHotBytesMin, kHotBytesMin + 1, kHotBytesDefault, uint64_t{123'456'789}}) {
      const HotGeometry geometry = HotGeometry::Of(width, bytes);
      ASSERT_TRUE(geometry.valid()) << width << ", " << bytes;
      EXPECT_LE(geometry.bytes(), bytes);
      const HotGeometry more = {width, geometry.slots + 1};
      EXPECT_GT(more.bytes(), bytes) << width << ", " << bytes;
      EXPECT_EQ(geometry.slots_at() % 4096, 0u);
      EXPECT_GE(uint64_t{geometry.buckets()} * kHotCellsPerBucket, uint64_t{geometry.slots} * kHotCellsPerSlot);
    }
  }
}

TEST(HotGeometry, RefusesNumbersOutsideTheLimits) {
  EXPECT_EQ(HotGeometry::Of(384, 100).slots, 0u);
  EXPECT_EQ(HotGeometry::Of(384, kHotBytesMax + 1).slots, 0u);
  EXPECT_EQ(HotGeometry::Of(0, kHotBytesDefault).slots, 0u);
  EXPECT_EQ(HotGeometry::Of(kWidthMax + 1, kHotBytesDefault).slots, 0u);
  EXPECT_FALSE((HotGeometry{384, 0}.valid()));
  EXPECT_FALSE((HotGeometry{384, UINT32_MAX}.valid()));
  EXPECT_FALSE((HotGeometry{0, 1}.valid()));
  EXPECT_FALSE((HotGeometry{kWidthMax + 1, 1}.valid()));
  EXPECT_TRUE(HotGeometry::Of(1, kHotBytesMax).valid());
}

}  // namespace
}  // namespace sutra::test
