// Random texts look like texts of the tokenizer.
#include "engine/cpu/int8/random_texts.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace sutra::cpu {
namespace {

// [1] text's bytes [2], with a prompt of two tokens.
class ByteTokenizer : public Tokenizer {
 public:
  Encoded Encode(std::string_view text, uint32_t tokens_max, std::vector<int32_t>* ids) const override {
    std::vector<int32_t> all = {1, 70, 71};
    for (const char byte : text) all.push_back(100 + static_cast<unsigned char>(byte));
    if (all.size() >= tokens_max) all.resize(tokens_max - 1);
    all.push_back(2);
    ids->insert(ids->end(), all.begin(), all.end());
    return {static_cast<uint32_t>(all.size()), false};
  }
};

TokenTexts Texts(uint32_t seed, uint32_t tokens_max) {
  TokenTexts texts;
  AppendRandomTexts({.count = 300, .words_min = 3, .words_max = 32, .seed = seed}, ByteTokenizer(), 500, tokens_max,
                    &texts);
  return texts;
}

TEST(RandomTexts, StandBetweenWhatTheTokenizerPutsAroundEveryText) {
  const TokenTexts texts = Texts(1, 512);
  ASSERT_EQ(texts.size(), 300U);
  std::set<int32_t> lengths, words;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = std::span(texts.ids).subspan(texts.offsets[i], texts.offsets[i + 1] - texts.offsets[i]);
    ASSERT_GE(ids.size(), 3U + 4U);
    ASSERT_LE(ids.size(), 32U + 4U);
    EXPECT_EQ(ids[0], 1);
    EXPECT_EQ(ids[1], 70);
    EXPECT_EQ(ids[2], 71);
    EXPECT_EQ(ids.back(), 2);
    lengths.insert(static_cast<int32_t>(ids.size()));
    words.insert(ids.begin() + 3, ids.end() - 1);
  }
  EXPECT_EQ(lengths.size(), 30U) << "every length from 3 to 32 words";
  EXPECT_GT(words.size(), 450U) << "nearly every id of 500";
  EXPECT_GE(*words.begin(), 0);
  EXPECT_LT(*words.rbegin(), 500);
}

TEST(RandomTexts, FollowFromTheSeedAlone) {
  EXPECT_EQ(Texts(1, 512).ids, Texts(1, 512).ids);
  EXPECT_NE(Texts(1, 512).ids, Texts(2, 512).ids);
}

TEST(RandomTexts, MoreDrawsMakeShorterTexts) {
  const auto tokens = [](uint32_t draws) {
    TokenTexts texts;
    AppendRandomTexts({.count = 1000, .words_min = 1, .words_max = 30, .draws = draws, .seed = 4}, ByteTokenizer(), 500,
                      512, &texts);
    return static_cast<double>(texts.ids.size()) / 1000 - 4;
  };
  EXPECT_NEAR(tokens(1), 15.5, 1);
  EXPECT_NEAR(tokens(3), 8, 1);  // the smallest of three is at a quarter of the range
}

TEST(RandomTexts, RepeatFewWordsWhereAsked) {
  TokenTexts texts;
  AppendRandomTexts({.count = 200, .words_min = 20, .words_max = 32, .distinct_max = 3, .seed = 1}, ByteTokenizer(),
                    5000, 512, &texts);
  std::set<size_t> counts;
  std::set<int32_t> words;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = std::span(texts.ids).subspan(texts.offsets[i], texts.offsets[i + 1] - texts.offsets[i]);
    const std::set<int32_t> distinct(ids.begin() + 3, ids.end() - 1);
    counts.insert(distinct.size());
    words.insert(distinct.begin(), distinct.end());
  }
  EXPECT_EQ(counts, (std::set<size_t>{1, 2, 3}));
  EXPECT_GT(words.size(), 300U) << "each text has words of its own";
}

TEST(RandomTexts, ConsistOfSignsWhereAsked) {
  TokenTexts texts;
  AppendRandomTexts({.count = 200, .words_min = 20, .words_max = 32, .signs = true, .seed = 1}, ByteTokenizer(), 5000,
                    512, &texts);
  std::set<int32_t> words;
  for (size_t i = 0; i < texts.size(); ++i) {
    words.insert(texts.ids.begin() + texts.offsets[i] + 3, texts.ids.begin() + texts.offsets[i + 1] - 1);
  }
  EXPECT_EQ(words.size(), 94U) << "all of '!' to '~'";
  EXPECT_EQ(*words.begin(), 100 + '!');
  EXPECT_EQ(*words.rbegin(), 100 + '~');
}

TEST(RandomTexts, OfSignsMayBeCutToNothingButTheFrame) {
  TokenTexts texts;
  AppendRandomTexts({.count = 5, .words_min = 1, .words_max = 4, .distinct_max = 2, .signs = true, .seed = 1},
                    ByteTokenizer(), 500, 4, &texts);
  EXPECT_EQ(texts.size(), 5U);
}

// Down to limits that leave no room beside the prompt, or not even for all of it.
TEST(RandomTexts, AreNoLongerThanTheModelAllows) {
  for (const int32_t tokens_max : {9, 5, 4, 3, 2}) {
    const TokenTexts texts = Texts(1, static_cast<uint32_t>(tokens_max));
    ASSERT_EQ(texts.size(), 300U);
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_LE(texts.offsets[i + 1] - texts.offsets[i], tokens_max);
      ASSERT_GE(texts.offsets[i + 1] - texts.offsets[i], 2);
    }
  }
}

}  // namespace
}  // namespace sutra::cpu
