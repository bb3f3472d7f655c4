// Texts come and go in any order: their bytes stay whole, holes join, and the range is used again.
#include "cache/store/text_heap.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/kit/seed.h"

namespace sutra {
namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string TextAt(const TextHeap& heap, uint64_t block, size_t bytes) {
  std::string text(bytes, ' ');
  LoadWords(text.data(), heap.At(block), bytes);
  return text;
}

TEST(TextHeap, KeepsTextsOfEveryLength) {
  TextHeap heap(kMiB);
  std::vector<uint64_t> blocks;
  for (size_t bytes = 0; bytes < 300; ++bytes) {
    blocks.push_back(heap.Add(std::string(bytes, static_cast<char>('a' + bytes % 26))));
    ASSERT_NE(blocks.back(), TextHeap::kNone);
  }
  for (size_t bytes = 0; bytes < 300; ++bytes) {
    const std::string text(bytes, static_cast<char>('a' + bytes % 26));
    EXPECT_EQ(TextAt(heap, blocks[bytes], bytes), text);
    EXPECT_TRUE(EqualWords(heap.At(blocks[bytes]), text.data(), bytes));
    if (bytes == 0) continue;
    EXPECT_FALSE(EqualWords(heap.At(blocks[bytes]), (text.substr(1) + "!").data(), bytes));
  }
}

TEST(TextHeap, WhatIsFreedInAnyOrderIsOnePieceAgain) {
  TextHeap heap(kMiB);
  std::mt19937_64 random(test::TestSeed(1));
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> blocks;
    for (int i = 0; i < 500; ++i) blocks.push_back(heap.Add(std::string(random() % 400, 'x')));
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (const uint64_t block : blocks) heap.Free(block);
    EXPECT_EQ(heap.used_bytes(), 0u);
  }
  // Nothing but the whole range has room for this.
  const uint64_t all = heap.Add(std::string(kMiB - 64, 'x'));
  EXPECT_NE(all, TextHeap::kNone);
  EXPECT_EQ(heap.Add(std::string(100, 'x')), TextHeap::kNone);
  heap.Free(all);
  EXPECT_NE(heap.Add("fits again"), TextHeap::kNone);
}

// Against a map of what should be there: no text is touched by another, used_bytes adds up, and as much as was ever in
// use at once, and a third, is enough for a long history.
TEST(TextHeap, TextsStayWholeThroughARandomHistory) {
  TextHeap heap(4 * kMiB);
  std::mt19937_64 random(test::TestSeed(2));
  struct Text {
    std::string bytes;
    uint64_t block;
  };
  std::vector<Text> texts;
  uint64_t most = 0;
  for (int step = 0; step < 60'000; ++step) {
    if (texts.size() < 2000 || random() % 2 == 0) {
      std::string text(random() % 20 == 0 ? random() % 3000 : random() % 200, static_cast<char>(random()));
      const uint64_t block = heap.Add(text);
      ASSERT_NE(block, TextHeap::kNone);
      texts.push_back({std::move(text), block});
    }
    if (texts.size() >= 2000) {
      std::swap(texts[random() % texts.size()], texts.back());
      ASSERT_EQ(TextAt(heap, texts.back().block, texts.back().bytes.size()), texts.back().bytes);
      heap.Free(texts.back().block);
      texts.pop_back();
    }
    most = std::max(most, heap.used_bytes());
  }
  uint64_t least = 0;
  std::map<uint64_t, uint64_t> ranges;  // [begin, end) in words
  for (const Text& text : texts) {
    ASSERT_EQ(TextAt(heap, text.block, text.bytes.size()), text.bytes);
    least += TextHeap::BytesOf(text.bytes.size());
    ranges[text.block] = text.block + TextHeap::BytesOf(text.bytes.size()) / 8;
  }
  uint64_t end = 0;
  for (const auto& [from, to] : ranges) {
    EXPECT_GE(from, end);
    end = to;
  }
  EXPECT_GE(heap.used_bytes(), least);
  EXPECT_LE(heap.used_bytes(), least + texts.size() * TextHeap::kSlackBytes);
  EXPECT_LE(heap.touched_bytes(), most + most / 3);
}

}  // namespace
}  // namespace sutra
