// Slots of one size: their alignment, which one is taken next, and what becomes of them.
#include "cache/store/slot_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>

namespace sutra {
namespace {

uint64_t AddressOf(void* slot) { return reinterpret_cast<uint64_t>(slot); }

TEST(SlotPool, SlotsAreWholeCacheLinesAndDoNotOverlap) {
  for (const uint64_t bytes : {1u, 64u, 65u, 1792u, 70'000u}) {
    SlotPool pool(bytes);
    EXPECT_EQ(pool.slot_bytes() % SlotPool::kSlotAlign, 0u);
    EXPECT_GE(pool.slot_bytes(), bytes);
    EXPECT_LT(pool.slot_bytes(), bytes + SlotPool::kSlotAlign);
    std::set<uint64_t> addresses;
    for (int i = 0; i < 1000; ++i) {
      void* slot = pool.Take();
      ASSERT_NE(slot, nullptr);
      std::memset(slot, i, pool.slot_bytes());
      const uint64_t at = AddressOf(slot);
      ASSERT_EQ(at % SlotPool::kSlotAlign, 0u);
      const auto after = addresses.lower_bound(at);
      ASSERT_TRUE(after == addresses.end() || *after >= at + pool.slot_bytes());
      ASSERT_TRUE(after == addresses.begin() || *std::prev(after) + pool.slot_bytes() <= at);
      addresses.insert(at);
    }
  }
}

TEST(SlotPool, AFreedSlotIsUsedAgainBeforeANewOne) {
  SlotPool pool(100);
  void* first = pool.Take();
  void* second = pool.Take();
  void* third = pool.Take();
  pool.Give(first);
  pool.Give(third);
  EXPECT_EQ(pool.Take(), third) << "the one that is warm in the cache";
  EXPECT_EQ(pool.Take(), first);
  void* fourth = pool.Take();
  EXPECT_TRUE(fourth != first && fourth != second && fourth != third);
}

TEST(SlotPool, StartsAnewAfterClear) {
  SlotPool pool(1 << 20);
  for (int i = 0; i < 10; ++i) std::memset(pool.Take(), i, pool.slot_bytes());
  pool.Clear();
  for (int i = 0; i < 10; ++i) std::memset(pool.Take(), i, pool.slot_bytes());
}

}  // namespace
}  // namespace sutra
