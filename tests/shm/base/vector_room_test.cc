#include "shm/base/vector_room.h"

#include <gtest/gtest.h>

namespace sutra {
namespace {

TEST(MakeRoomForOne, TheNextItemMovesNothing) {
  std::vector<int> items;
  size_t moves = 0;
  for (int i = 0; i < 1000; ++i) {
    const size_t before = items.capacity();
    MakeRoomForOne(&items);
    moves += items.capacity() != before ? 1 : 0;
    const int* const data = items.data();
    items.push_back(i);
    EXPECT_EQ(items.data(), data);
  }
  EXPECT_LE(moves, 7u);  // 16, 32, ... 1024
}

TEST(MakeRoomForOne, AnEmptyVectorGetsTheLeast) {
  std::vector<int> items;
  MakeRoomForOne(&items, 1);
  EXPECT_EQ(items.capacity(), 1u);
}

}  // namespace
}  // namespace sutra
