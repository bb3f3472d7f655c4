// The double-array trie against a plain map.
#include "engine/tokenizer/vocab_trie.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/engine/tokenizer/test_support.h"

namespace sutra {
namespace {

using Words = std::map<std::string, int32_t>;

std::vector<VocabTrie::Entry> Entries(const Words& words) { return {words.begin(), words.end()}; }

VocabTrie::Match NaiveLongest(const Words& words, const std::string& text) {
  for (size_t size = text.size(); size > 0; --size) {
    if (const auto found = words.find(text.substr(0, size)); found != words.end()) {
      return {found->second, static_cast<uint32_t>(size)};
    }
  }
  return {0, 0};
}

TEST(VocabTrie, AnEmptyTrieMatchesNothing) {
  VocabTrie trie;
  EXPECT_EQ(trie.LongestWord("abc", 3).bytes, 0u);
  ASSERT_TRUE(trie.Build({}, {}));
  for (int byte = 0; byte < 256; ++byte) {
    const char text[2] = {static_cast<char>(byte), static_cast<char>(byte)};
    EXPECT_EQ(trie.LongestWord(text, 2).bytes, 0u);
    EXPECT_EQ(trie.LongestContinuation(text, 2).bytes, 0u);
  }
}

TEST(VocabTrie, TheTwoRootsDoNotMix) {
  VocabTrie trie;
  ASSERT_TRUE(trie.Build({{"ab", 1}}, {{"ac", 2}}));
  EXPECT_EQ(trie.LongestWord("abx", 3).bytes, 2u);
  EXPECT_EQ(trie.LongestWord("acx", 3).bytes, 0u);
  EXPECT_EQ(trie.LongestContinuation("acx", 3).id, 2);
  EXPECT_EQ(trie.LongestContinuation("abx", 3).bytes, 0u);
}

TEST(VocabTrie, IdZeroAndTheLargestIdAreTokensLikeOthers) {
  VocabTrie trie;
  ASSERT_TRUE(trie.Build({{"a", 0}, {"b", VocabTrie::kIdMax}}, {}));
  EXPECT_EQ(trie.LongestWord("a", 1).bytes, 1u);
  EXPECT_EQ(trie.LongestWord("a", 1).id, 0);
  EXPECT_EQ(trie.LongestWord("b", 1).id, VocabTrie::kIdMax);
}

TEST(VocabTrie, RandomVocabulariesMatchLikeAPlainMap) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 30; ++round) {
    const unsigned letters = 1 + static_cast<unsigned>(random() % (round % 2 ? 4 : 256));
    const auto text = [&](size_t size_max) {
      std::string result(1 + random() % size_max, '\0');
      for (char& byte : result) byte = static_cast<char>(random() % letters);
      return result;
    };
    Words words, continuations;
    for (int count = 0; count < 2000; ++count) {
      (random() % 2 ? words : continuations)[text(8)] = static_cast<int32_t>(random() % VocabTrie::kIdMax);
    }
    VocabTrie trie;
    ASSERT_TRUE(trie.Build(Entries(words), Entries(continuations)));
    for (int probe = 0; probe < 3000; ++probe) {
      const std::string wanted = text(12);
      const auto word = trie.LongestWord(wanted.data(), wanted.size());
      const auto continuation = trie.LongestContinuation(wanted.data(), wanted.size());
      const auto naive_word = NaiveLongest(words, wanted), naive_continuation = NaiveLongest(continuations, wanted);
      ASSERT_EQ(word.bytes, naive_word.bytes);
      ASSERT_EQ(continuation.bytes, naive_continuation.bytes);
      ASSERT_EQ(word.id, naive_word.id);
      ASSERT_EQ(continuation.id, naive_continuation.id);
    }
  }
}

TEST(VocabTrie, AVocabularyTooLargeForItsUnitsIsRefusedAndLeavesAnEmptyTrie) {
  // Long keys that share nothing need one unit per byte.
  std::vector<std::string> keys;
  for (char first = 'a'; first <= 'z'; ++first) keys.push_back(first + std::string(4000, 'x'));
  std::vector<VocabTrie::Entry> entries;
  for (const std::string& key : keys) entries.emplace_back(key, 1);
  VocabTrie trie;
  ASSERT_TRUE(trie.Build(entries, {}, 200'000));
  ASSERT_FALSE(trie.Build(entries, {}, 100'000));
  EXPECT_EQ(trie.LongestWord(keys[0].data(), keys[0].size()).bytes, 0u);
}

}  // namespace
}  // namespace sutra
