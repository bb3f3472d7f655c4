// The rules of WordPiece one by one, on a small vocabulary; no model needed.
#include "engine/tokenizer/wordpiece.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/engine/tokenizer/test_support.h"

namespace sutra {
namespace {

using namespace std::string_literals;

std::unique_ptr<WordPieceTokenizer> FromText(const std::string& json) {
  auto tokenizer = WordPieceTokenizer::FromJson(json, "small");
  if (tokenizer.ok()) return std::move(*tokenizer);
  ADD_FAILURE() << tokenizer.status().message();
  return nullptr;
}

std::unique_ptr<WordPieceTokenizer> Small() { return FromText(SmallTokenizerJson()); }

// The ids of `text` without [CLS] and [SEP], as tokens of the small vocabulary separated by spaces.
std::string Pieces(const Tokenizer& tokenizer, std::string_view text, uint32_t tokens_max = kNoLimit) {
  static const char* const kTokens[] = {
      "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un",  "##aff", "##able", "hello", "world", "##s", "a", "##a",
      "b",     "##b",   "e",     "##e",   "the",    "!",   ",",     "[",      "]",     "#",     "<",   "i", "##i",
      "中",    "国",    "ᄀ",    "##ᅡ",  "##ᆨ",   "sep", "x",     "##x",    "я",     "##я",   "ß",   "σ", "##σ"};
  std::string pieces;
  const std::vector<int32_t> ids = Ids(tokenizer, text, tokens_max);
  EXPECT_GE(ids.size(), 2u);
  EXPECT_EQ(ids.front(), 2);
  EXPECT_EQ(ids.back(), 3);
  for (size_t index = 1; index + 1 < ids.size(); ++index) {
    pieces += (pieces.empty() ? "" : " ") + std::string(kTokens[static_cast<size_t>(ids[index])]);
  }
  return pieces;
}

std::string Repeat(std::string_view piece, size_t count) {
  std::string text;
  for (size_t index = 0; index < count; ++index) text += piece;
  return text;
}

TEST(WordPiece, AnEmptyTextIsClsSep) { EXPECT_EQ(Ids(*Small(), ""), (std::vector<int32_t>{2, 3})); }

TEST(WordPiece, KnowsItsSpecialIdsAndItsSize) {
  const auto tokenizer = Small();
  EXPECT_EQ(tokenizer->cls_id(), 2);
  EXPECT_EQ(tokenizer->sep_id(), 3);
  EXPECT_EQ(tokenizer->unk_id(), 1);
  EXPECT_EQ(tokenizer->vocab_size(), 39u);
}

TEST(WordPiece, TakesTheLongestPieceAtEachPlace) {
  EXPECT_EQ(Pieces(*Small(), "unaffable hello worlds"), "un ##aff ##able hello world ##s");
}

TEST(WordPiece, OnePlaceWithoutAPieceMakesTheWholeWordUnknown) {
  EXPECT_EQ(Pieces(*Small(), "unaffableq hello"), "[UNK] hello");
  EXPECT_EQ(Pieces(*Small(), "qhello"), "[UNK]");
}

TEST(WordPiece, EncodeAppendsBehindWhatTheVectorHolds) {
  std::vector<int32_t> ids = {7, 8, 9};
  const Encoded encoded = Small()->Encode("hello", 10, &ids);
  EXPECT_EQ(encoded.token_count, 3u);
  EXPECT_FALSE(encoded.truncated);
  EXPECT_EQ(ids, (std::vector<int32_t>{7, 8, 9, 2, 8, 3}));
}

TEST(WordPiece, AsciiPunctuationStandsAlone) {
  EXPECT_EQ(Pieces(*Small(), "hello,world!!"), "hello , world ! !");
  EXPECT_EQ(Pieces(*Small(), "hello#hello"), "hello # hello");
  EXPECT_EQ(Pieces(*Small(), "a<b~b"), "a < b [UNK] b");
}

TEST(WordPiece, UnicodePunctuationStandsAloneButSymbolsDoNot) {
  EXPECT_EQ(Pieces(*Small(), "a—b"), "a [UNK] b");
  EXPECT_EQ(Pieces(*Small(), "a€b"), "[UNK]");
}

TEST(WordPiece, EveryKindOfWhiteSpaceSeparates) {
  for (const char* space : {" ", "\t", "\n", "\r\n", "\xC2\xA0", "\xE2\x80\x83", "\xE2\x80\xA8", "\xE3\x80\x80"}) {
    EXPECT_EQ(Pieces(*Small(), "a"s + space + "b"), "a b");
  }
}

TEST(WordPiece, ControlCharactersVanishAndJoin) {
  for (const std::string& control : {"\0"s, "\x01"s, "\x0B"s, "\x0C"s, "\x1C"s, "\x7F"s, "\xC2\x85"s, "\xC2\xAD"s,
                                     "\xE2\x80\x8D"s, "\xEF\xBB\xBF"s, "\xEF\xBF\xBD"s, "\xEE\x80\x80"s}) {
    EXPECT_EQ(Pieces(*Small(), "a" + control + "b"), "a ##b");
  }
}

TEST(WordPiece, AsciiAndOtherLettersAreLowercased) {
  EXPECT_EQ(Pieces(*Small(), "HeLLo WORLDS"), "hello world ##s");
  EXPECT_EQ(Pieces(*Small(), "ЯЯ"), "я ##я");
}

TEST(WordPiece, LowercasingIsContextFree) { EXPECT_EQ(Pieces(*Small(), "ΣΣ"), "σ ##σ"); }

TEST(WordPiece, AccentsAreStripped) {
  EXPECT_EQ(Pieces(*Small(), "é É e\xCC\x81 \xCC\x81"), "e e e");
  EXPECT_EQ(Pieces(*Small(), "İ"), "i");
}

TEST(WordPiece, DecomposingMayRevealPunctuation) { EXPECT_EQ(Pieces(*Small(), "a≮b"), "a < b"); }

TEST(WordPiece, HangulStaysDecomposed) { EXPECT_EQ(Pieces(*Small(), "각"), "ᄀ ##ᅡ ##ᆨ"); }

TEST(WordPiece, IdeographsStandAlone) { EXPECT_EQ(Pieces(*Small(), "a中国b"), "a 中 国 b"); }

TEST(WordPiece, TheBlockFrom2B820To2B91FIsNotSplitAsInTheOracle) {
  EXPECT_EQ(Pieces(*Small(), "a" + Utf8(0x2B81F) + "b"), "a [UNK] b");
  EXPECT_EQ(Pieces(*Small(), "a" + Utf8(0x2B820) + "b"), "[UNK]");
  EXPECT_EQ(Pieces(*Small(), "a" + Utf8(0x2B920) + "b"), "a [UNK] b");
}

TEST(WordPiece, SpecialTokensInTheRawTextAreThatToken) {
  EXPECT_EQ(Pieces(*Small(), "a[SEP]b"), "a [SEP] b");
  EXPECT_EQ(Pieces(*Small(), "[MASK][MASK]"), "[MASK] [MASK]");
  EXPECT_EQ(Pieces(*Small(), "[[SEP]]"), "[ [SEP] ]");
  EXPECT_EQ(Pieces(*Small(), "é[SEP]é"), "e [SEP] e");
}

TEST(WordPiece, AnythingButTheExactLiteralIsOrdinaryText) {
  EXPECT_EQ(Pieces(*Small(), "[sep]"), "[ sep ]");
  EXPECT_EQ(Pieces(*Small(), "[SEP"), "[ sep");
  EXPECT_EQ(Pieces(*Small(), "[\xCC\x81SEP]"), "[ sep ]");
}

TEST(WordPiece, OfAddedTokensThatBeginAlikeTheLongestCounts) {
  const auto tokenizer =
      FromText(Replaced(SmallTokenizerJson(), "\"added_tokens\":[",
                        R"("added_tokens":[{"id":39,"content":"[MA"},{"id":40,"content":"[MASK]!"},)"));
  EXPECT_EQ(tokenizer->vocab_size(), 41u);
  EXPECT_EQ(Ids(*tokenizer, "[MASK]![MASK][MAa"), (std::vector<int32_t>{2, 40, 4, 39, 11, 3}));
}

TEST(WordPiece, AWordOfMoreThanAHundredCharactersIsUnknown) {
  const auto tokenizer = Small();
  EXPECT_EQ(Ids(*tokenizer, std::string(100, 'x')).size(), 102u);
  EXPECT_EQ(Pieces(*tokenizer, std::string(101, 'x') + " a"), "[UNK] a");
  EXPECT_EQ(Pieces(*tokenizer, std::string(5000, 'x') + " a"), "[UNK] a");
}

TEST(WordPiece, TheLimitCountsCharactersAfterNormalizing) {
  const auto tokenizer = Small();
  EXPECT_EQ(Ids(*tokenizer, Repeat("я", 100)).size(), 102u);
  EXPECT_EQ(Pieces(*tokenizer, Repeat("я", 101)), "[UNK]");
  EXPECT_EQ(Ids(*tokenizer, Repeat("x\xCC\x81", 100)).size(), 102u);
  EXPECT_EQ(Pieces(*tokenizer, Repeat("x\xCC\x81", 101)), "[UNK]");
  EXPECT_EQ(Ids(*tokenizer, Repeat("x\x01", 100)).size(), 102u);
}

TEST(WordPiece, TruncationKeepsTheFirstTokensAndEndsInSep) {
  const auto tokenizer = Small();
  EXPECT_EQ(Pieces(*tokenizer, "hello world the", 4), "hello world");
  EXPECT_EQ(Pieces(*tokenizer, "unaffable", 4), "un ##aff");
  EXPECT_EQ(Pieces(*tokenizer, "hello", 2), "");
}

TEST(WordPiece, TruncationFinishesTheWordBeforeItJudgesIt) { EXPECT_EQ(Pieces(*Small(), "unaffableq", 3), "[UNK]"); }

TEST(WordPiece, TruncatedIsSaidExactlyWhenATokenWasLost) {
  const auto tokenizer = Small();
  const auto truncated = [&](std::string_view text, uint32_t tokens_max) {
    std::vector<int32_t> ids;
    return tokenizer->Encode(text, tokens_max, &ids).truncated;
  };
  EXPECT_FALSE(truncated("", 2));
  EXPECT_TRUE(truncated("a", 2));
  EXPECT_FALSE(truncated("hello world", 4));
  EXPECT_FALSE(truncated("hello world   \xCC\x81 \x01", 4));
  EXPECT_TRUE(truncated("hello world a", 4));
  EXPECT_TRUE(truncated("hello worlds", 4));
  EXPECT_FALSE(truncated("unaffable", 5));
  EXPECT_TRUE(truncated("unaffable", 4));
}

TEST(WordPiece, LongRunsAreHandledInOnePassWhateverTheyAre) {
  const auto tokenizer = Small();
  const size_t count = 1 << 20;
  EXPECT_EQ(Pieces(*tokenizer, "a " + std::string(count, 'x') + " b"), "a [UNK] b");
  EXPECT_EQ(Pieces(*tokenizer, Repeat("\xCC\x81", count)), "");
  EXPECT_EQ(Pieces(*tokenizer, Repeat(Utf8(0x1D165) + Utf8(0x1D16E), count / 8) + " b"), "[UNK] b");
  EXPECT_EQ(Ids(*tokenizer, std::string(count, '!')).size(), count + 2);
  EXPECT_EQ(Ids(*tokenizer, Repeat("中", count / 4)).size(), count / 4 + 2);
  EXPECT_EQ(Pieces(*tokenizer, std::string(count, ' ') + "b"), "b");
}

TEST(WordPiece, DamagedUtf8NeverHarmsTheTokenizer) {
  const auto tokenizer = Small();
  for (const std::string& text : {"a\xFF"s, "\xC3"s, "a\xE4\xB8"s, "\xF0\x9F\x98"s, "\x80\x80"s, "a\xED\xA0\x80z"s}) {
    EXPECT_GE(Ids(*tokenizer, text).size(), 2u);
  }
}

TEST(WordPiece, WithoutLowercaseCaseAndAccentsStay) {
  const auto tokenizer = FromText(Replaced(SmallTokenizerJson(), "\"lowercase\":true", "\"lowercase\":false"));
  EXPECT_EQ(Pieces(*tokenizer, "Hello hello e é"), "[UNK] hello e [UNK]");
}

TEST(WordPiece, AccentsCanBeStrippedWithoutLowercasing) {
  const auto tokenizer = FromText(Replaced(Replaced(SmallTokenizerJson(), "\"lowercase\":true", "\"lowercase\":false"),
                                           "\"strip_accents\":null", "\"strip_accents\":true"));
  EXPECT_EQ(Pieces(*tokenizer, "Hello é É"), "[UNK] e [UNK]");
}

TEST(WordPiece, TwoTokenizersInOneThreadDoNotShareCachedWords) {
  const auto lower = Small();
  const auto other = FromText(Replaced(SmallTokenizerJson(), "\"hello\":8,\"world\":9", "\"hello\":9,\"world\":8"));
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(Ids(*lower, "hello world"), (std::vector<int32_t>{2, 8, 9, 3}));
    EXPECT_EQ(Ids(*other, "hello world"), (std::vector<int32_t>{2, 9, 8, 3}));
  }
}

TEST(WordPiece, ThreadsShareOneTokenizer) {
  const auto tokenizer = Small();
  const std::string text = Repeat("Hello wörlds, unaffable 中国 [SEP] яяя ", 50);
  const std::vector<int32_t> wanted = Ids(*tokenizer, text);
  std::vector<int> equal(4, 0);
  std::vector<std::thread> threads;
  for (int& mine : equal) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) mine += Ids(*tokenizer, text) == wanted;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 100));
}

// Text of random code points, rich in what the small vocabulary knows.
std::string RandomText(std::mt19937_64* random, size_t pieces_max) {
  static const char* const kKnown[] = {"hello", "UN", "aff", "able",  " ", " ",        "!",
                                       "é",     "中", "각",  "[SEP]", "[", "\xCC\x81", "xx"};
  std::string text;
  for (size_t count = (*random)() % pieces_max; count > 0; --count) {
    uint32_t code_point = static_cast<uint32_t>((*random)() % ((*random)() % 2 ? 0x110000 : 0x3000));
    if ((*random)() % 3 != 0 || !IsScalar(code_point)) {
      text += kKnown[(*random)() % std::size(kKnown)];
    } else {
      text += Utf8(code_point);
    }
  }
  return text;
}

TEST(WordPiece, AnyLimitGivesThePrefixOfTheUnlimitedAnswer) {
  const auto tokenizer = Small();
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 20'000; ++round) {
    const std::string text = RandomText(&random, 40);
    const std::vector<int32_t> all = Ids(*tokenizer, text);
    const auto tokens_max = static_cast<uint32_t>(2 + random() % (all.size() + 2));
    std::vector<int32_t> wanted = all, ids;
    if (all.size() > tokens_max) {
      wanted.resize(tokens_max - 1);
      wanted.push_back(3);
    }
    const Encoded encoded = tokenizer->Encode(text, tokens_max, &ids);
    ASSERT_EQ(ids, wanted) << "round " << round;
    ASSERT_EQ(encoded.token_count, ids.size());
    ASSERT_EQ(encoded.truncated, all.size() > tokens_max);
  }
}

TEST(WordPiece, AsciiBreaksSplitATextIntoIndependentParts) {
  // What justifies the fast path: the text between ASCII white space can be encoded separately.
  const auto tokenizer = Small();
  std::mt19937_64 random(TestSeed() + 1);
  for (int round = 0; round < 5'000; ++round) {
    std::vector<int32_t> joined = {2};
    std::string text;
    for (int part = 0; part < 4; ++part) {
      const std::string piece = RandomText(&random, 30);
      const std::vector<int32_t> ids = Ids(*tokenizer, piece);
      joined.insert(joined.end(), ids.begin() + 1, ids.end() - 1);
      text += piece + std::string(1 + random() % 70, ' ');
    }
    joined.push_back(3);
    ASSERT_EQ(Ids(*tokenizer, text), joined) << "round " << round;
  }
}

}  // namespace
}  // namespace sutra
