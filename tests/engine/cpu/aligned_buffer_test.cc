// Buffers alone and in an arena: zeroed, aligned, apart from each other, and alive as long as anything refers to them.
#include "engine/cpu/aligned_buffer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace sutra {
namespace {

bool IsZero(const AlignedBuffer& buffer, size_t bytes) {
  const char* data = buffer.As<char>();
  return std::all_of(data, data + bytes, [](char byte) { return byte == 0; });
}

uintptr_t AddressOf(const AlignedBuffer& buffer) { return std::bit_cast<uintptr_t>(buffer.data()); }

const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));

// Whether every page from `address` on is mapped.
bool Mapped(uintptr_t address, size_t bytes) {
  std::vector<unsigned char> pages(bytes / page_bytes + 1);
  return mincore(std::bit_cast<void*>(address), bytes, pages.data()) == 0;
}

TEST(AlignedBuffer, EverySizeIsZeroedAndAligned) {
  for (const size_t bytes : {0UL, 1UL, 64UL, 65UL, 65'535UL, 65'536UL, 70'001UL, 3UL << 20}) {
    const AlignedBuffer buffer(bytes);
    EXPECT_EQ(AddressOf(buffer) % 64, 0U) << bytes;
    EXPECT_TRUE(IsZero(buffer, bytes)) << bytes;
    if (bytes > 0) std::memset(buffer.data(), 1, bytes);
  }
  EXPECT_EQ(AlignedBuffer().data(), nullptr);
}

TEST(BufferArena, BuffersLieSideBySideFromAHugePageOn) {
  std::vector<AlignedBuffer> buffers;
  {
    const BufferArena arena;
    for (const size_t bytes : {100UL, 1'200'000UL, 4096UL}) buffers.emplace_back(bytes);
  }
  EXPECT_EQ(AddressOf(buffers[0]) % (2U << 20), 0U);
  EXPECT_EQ(AddressOf(buffers[1]), AddressOf(buffers[0]) + 128);
  EXPECT_EQ(AddressOf(buffers[2]), AddressOf(buffers[1]) + 1'200'000);
  EXPECT_TRUE(IsZero(buffers[1], 1'200'000));
}

TEST(BufferArena, WhatNoBufferTookIsGivenBackAndTheRestWithTheLastBuffer) {
  AlignedBuffer first;
  AlignedBuffer second;
  {
    const BufferArena arena;
    first = AlignedBuffer(2 * page_bytes + 1000);
    second = AlignedBuffer(2 * page_bytes + 1000);
  }
  const uintptr_t begin = AddressOf(first);
  EXPECT_FALSE(Mapped(begin, 6 * page_bytes));  // they lie in five
  first = AlignedBuffer();
  second.As<char>()[2 * page_bytes + 999] = 1;
  EXPECT_TRUE(Mapped(begin, 5 * page_bytes));
  second = AlignedBuffer();
  EXPECT_FALSE(Mapped(begin, page_bytes));
}

TEST(BufferArena, OneLargerThanTheReserveAndOneAfterItFit) {
  const BufferArena arena;
  const AlignedBuffer small(100);
  const AlignedBuffer large(100U << 20);
  const AlignedBuffer after(1U << 20);
  large.As<char>()[(100U << 20) - 1] = 1;
  std::memset(after.data(), 1, 1U << 20);
  EXPECT_EQ(large.As<char>()[(100U << 20) - 1], 1);
  EXPECT_TRUE(IsZero(small, 100));
}

TEST(BufferArena, TheInnermostCountsAndTheOuterOneGoesOn) {
  const BufferArena outer;
  const AlignedBuffer first(64);
  AlignedBuffer other;
  {
    const BufferArena inner;
    other = AlignedBuffer(64);
  }
  const AlignedBuffer second(64);
  EXPECT_EQ(AddressOf(second), AddressOf(first) + 64);
  EXPECT_EQ(AddressOf(other) % (2U << 20), 0U);
}

}  // namespace
}  // namespace sutra
