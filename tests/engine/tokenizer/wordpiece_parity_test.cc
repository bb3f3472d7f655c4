// Identity with the Hugging Face fast tokenizer, against the hashes of make_fixtures.py. A change of a single id
// anywhere is detected; the canary proves it with a wrong option.
#include <gtest/gtest.h>

#include <filesystem>
#include <iomanip>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/wordpiece.h"
#include "tests/engine/tokenizer/test_support.h"
#include "tests/kit/by_build.h"
#include "tests/kit/real_model.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

// Sanitized builds run ten times slower; they check some of the blocks, plain builds all of them.
constexpr uint32_t kBlockStep = test::ByBuild(1, 4, 16);

struct Section {
  std::string title;
  std::vector<uint64_t> hashes;
};

// Lines "WORD title" begin a section; "HASH" or "HASH xCOUNT" lines fill it.
std::vector<Section> ReadSections(const std::string& name, const std::string& word) {
  std::vector<Section> sections;
  std::ifstream file(FixturePath(name));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(word + " ", 0) == 0) {
      sections.push_back({line.substr(word.size() + 1), {}});
      continue;
    }
    const size_t repeat = line.find(" x");
    const size_t count = repeat == std::string::npos ? 1 : std::stoul(line.substr(repeat + 2));
    sections.back().hashes.insert(sections.back().hashes.end(), count, std::stoull(line, nullptr, 16));
  }
  return sections;
}

struct FixtureText {
  uint64_t hash;
  std::string text;
};

std::vector<FixtureText> ReadTexts() {
  std::vector<FixtureText> texts;
  std::ifstream file(FixturePath("texts.jsonl"), std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    const auto pair = nlohmann::json::parse(line);
    texts.push_back({std::stoull(pair[0].get<std::string>(), nullptr, 16), pair[1].get<std::string>()});
  }
  return texts;
}

std::string Filled(std::string placement, char32_t code_point) {
  for (size_t at; (at = placement.find("{}")) != std::string::npos;) placement.replace(at, 2, Utf8(code_point));
  return placement;
}

uint64_t HashOfBlock(const Tokenizer& tokenizer, const std::string& placement, uint32_t first, uint32_t size) {
  uint64_t hash = kHashStart;
  std::vector<int32_t> ids;
  for (uint32_t code_point = first; code_point < first + size; ++code_point) {
    if (!IsScalar(code_point)) continue;
    ids.clear();
    tokenizer.Encode(Filled(placement, code_point), kNoLimit, &ids);
    hash = HashIds(ids, hash);
  }
  return hash;
}

uint64_t HashOfText(const Tokenizer& tokenizer, const std::string& text) {
  const uint64_t hash = HashIds(Ids(tokenizer, text));
  return HashIds(Ids(tokenizer, text, 16), hash);
}

size_t CountTextMismatches(const Tokenizer& tokenizer, const std::vector<FixtureText>& texts, std::string* example) {
  size_t mismatches = 0;
  for (const auto& [hash, text] : texts) {
    if (HashOfText(tokenizer, text) == hash) continue;
    if (mismatches++ == 0) *example = text;
  }
  return mismatches;
}

size_t CountBlockMismatches(const Tokenizer& tokenizer, const Section& section, std::string* example) {
  size_t mismatches = 0;
  for (uint32_t block = 0; block < section.hashes.size(); block += kBlockStep) {
    if (HashOfBlock(tokenizer, section.title, block * 256, 256) == section.hashes[block]) continue;
    if (mismatches++ == 0) *example = "block " + std::to_string(block) + " of placement " + section.title;
  }
  return mismatches;
}

class WordPieceParity : public ::testing::Test {
 protected:
  // The fixtures belong to one vocabulary; without exactly that one there is nothing to compare.
  void SetUp() override {
    json_ = FileBytes(test::RealModelDirectory() + "/tokenizer.json");
    if (json_.empty())
      GTEST_SKIP() << "no model in " << test::RealModelDirectory() << "; run tools/quickstart or set SUTRA_MODEL_DIR";
    uint64_t hash = HashStep(kHashStart, json_.size());
    for (const char byte : json_) hash = HashStep(hash, static_cast<uint8_t>(byte));
    std::ostringstream identity;
    identity << json_.size() << " " << std::hex << std::setw(16) << std::setfill('0') << hash << "\n";
    if (identity.str() != FileBytes(FixturePath("model.txt"))) {
      GTEST_SKIP() << test::RealModelDirectory() << " holds another tokenizer.json than the fixtures were made from";
    }
    auto tokenizer = WordPieceTokenizer::Load(test::RealModelDirectory());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    tokenizer_ = std::move(*tokenizer);
  }

  std::string json_;
  std::unique_ptr<WordPieceTokenizer> tokenizer_;
};

TEST_F(WordPieceParity, EveryCodePointAloneAndAtEveryPlaceOfAWordGivesTheOraclesIds) {
  const std::vector<Section> sections = ReadSections("code_points.txt", "placement");
  ASSERT_EQ(sections.size(), 4u);
  for (const Section& section : sections) {
    ASSERT_EQ(section.hashes.size(), 0x1100u) << section.title;
    std::string example;
    EXPECT_EQ(CountBlockMismatches(*tokenizer_, section, &example), 0u) << example;
  }
}

TEST_F(WordPieceParity, TenThousandTextsGiveTheOraclesIdsWithAndWithoutALimit) {
  const std::vector<FixtureText> texts = ReadTexts();
  ASSERT_GE(texts.size(), 10'000u);
  std::string example;
  EXPECT_EQ(CountTextMismatches(*tokenizer_, texts, &example), 0u) << example;
}

TEST_F(WordPieceParity, VocabTxtGivesTheSameIdsAsTokenizerJson) {
  std::string vocab = FileBytes(test::RealModelDirectory() + "/vocab.txt"),
              settings = FileBytes(test::RealModelDirectory() + "/tokenizer_config.json");
  if (vocab.empty() || settings.empty())
    GTEST_SKIP() << test::RealModelDirectory() << " has no vocab.txt with tokenizer_config.json";
  const test::TempDir folder;
  std::ofstream(folder / "vocab.txt", std::ios::binary) << vocab;
  std::ofstream(folder / "tokenizer_config.json", std::ios::binary) << settings;
  const auto tokenizer = WordPieceTokenizer::Load(folder.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  std::string example;
  EXPECT_EQ(CountTextMismatches(**tokenizer, ReadTexts(), &example), 0u) << example;
}

TEST_F(WordPieceParity, CanaryAWrongOptionIsNoticed) {
  const std::vector<FixtureText> texts = ReadTexts();
  const Section alone = ReadSections("code_points.txt", "placement").front();
  for (const auto& [right, wrong] : {std::pair(R"("strip_accents":null)", R"("strip_accents":false)"),
                                     std::pair(R"("handle_chinese_chars":true)", R"("handle_chinese_chars":false)"),
                                     std::pair(R"("clean_text":true)", R"("clean_text":false)")}) {
    const auto tokenizer = WordPieceTokenizer::FromJson(Replaced(json_, right, wrong), "canary");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    std::string example;
    EXPECT_GT(CountTextMismatches(**tokenizer, texts, &example), 0u) << wrong;
    if (std::string_view(right) == R"("strip_accents":null)") {
      EXPECT_GT(CountBlockMismatches(**tokenizer, alone, &example), 0u) << wrong;
    }
  }
}

// --- All options, on a vocabulary of single characters: needs no model. ---

WordPieceConfig CharacterConfig() {
  WordPieceConfig config;
  config.vocabulary = {{"[UNK]", 0}, {"[CLS]", 1}, {"[SEP]", 2}};
  config.added_tokens = {{"[UNK]", 0}, {"[CLS]", 1}, {"[SEP]", 2}};
  config.cls_id = 1;
  config.sep_id = 2;
  config.word_chars_max = 40;
  const std::pair<uint32_t, uint32_t> ranges[] = {{0, 0x3000}, {0xA000, 0xABC0}, {0x1D100, 0x1D200}, {0xFFFD, 0xFFFE}};
  for (const auto& [first, past] : ranges) {
    for (uint32_t code_point = first; code_point < past; ++code_point) {
      config.vocabulary.emplace_back(Utf8(code_point), static_cast<int32_t>(config.vocabulary.size()));
      config.vocabulary.emplace_back("##" + Utf8(code_point), static_cast<int32_t>(config.vocabulary.size()));
    }
  }
  return config;
}

// The hashes in the order of options.txt; those of skipped blocks are taken over from `wanted`.
std::vector<uint64_t> OptionHashes(const Tokenizer& tokenizer, const std::vector<FixtureText>& texts,
                                   const std::vector<uint64_t>& wanted) {
  std::vector<uint64_t> hashes;
  for (size_t first = 0; first < texts.size(); first += 500) {
    uint64_t hash = kHashStart;
    for (size_t index = first; index < std::min(first + 500, texts.size()); ++index) {
      hash = HashIds(Ids(tokenizer, texts[index].text), hash);
    }
    hashes.push_back(hash);
  }
  for (uint32_t first = 0; first < 0x110000; first += 4096) {
    const bool skipped = first / 4096 % kBlockStep != 0 && hashes.size() < wanted.size();
    hashes.push_back(skipped ? wanted[hashes.size()] : HashOfBlock(tokenizer, "a{}b{}", first, 4096));
  }
  return hashes;
}

TEST(WordPieceOptionsParity, EveryCombinationOfOptionsGivesTheOraclesIds) {
  const std::vector<FixtureText> texts = ReadTexts();
  const std::vector<Section> sections = ReadSections("options.txt", "options");
  ASSERT_EQ(sections.size(), 16u);
  const WordPieceConfig base = CharacterConfig();
  std::vector<std::vector<uint64_t>> answers;
  constexpr size_t kStep = kBlockStep == 1 ? 1 : 5;  // 0, 5, 10, 15 switch every option on and off
  for (size_t index = 0; index < sections.size(); index += kStep) {
    const Section& section = sections[index];
    WordPieceConfig config = base;
    std::istringstream options(section.title);
    options >> config.clean_text >> config.handle_chinese_chars >> config.strip_accents >> config.lowercase;
    const auto tokenizer = WordPieceTokenizer::FromConfig(std::move(config), "characters");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    answers.push_back(OptionHashes(**tokenizer, texts, section.hashes));
    EXPECT_EQ(answers.back(), section.hashes)
        << "clean_text handle_chinese_chars strip_accents lowercase: " << section.title;
  }
  // The canary: each option changes the answers, so that ignoring one would have failed above.
  for (size_t option = 1; option < answers.size(); option *= 2) EXPECT_NE(answers[0], answers[option]);
}

// A word that is too long is [UNK] whatever follows, until it ends: so characters that left one open are not looked at
// again. What each character does between two letters, which the oracle has confirmed, it does in a long word, too.
TEST(WordPieceLongWord, EveryCodePointEndsAWordThatIsTooLongExactlyIfItEndsAShortOne) {
  const int32_t unk = 0;
  std::string long_word;
  for (int i = 0; i < 41; ++i) long_word += "\xc3\xa9";
  constexpr uint32_t kNear = test::ByBuild(1, 3, 7), kFar = test::ByBuild(61, 181, 421);
  size_t ending = 0;
  for (int options = 0; options < 16; ++options) {
    WordPieceConfig config = CharacterConfig();
    config.clean_text = (options & 1) != 0;
    config.handle_chinese_chars = (options & 2) != 0;
    config.strip_accents = (options & 4) != 0;
    config.lowercase = (options & 8) != 0;
    const auto tokenizer = WordPieceTokenizer::FromConfig(std::move(config), "characters");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const int32_t first = Ids(**tokenizer, "x")[1], last = Ids(**tokenizer, "y")[1];
    for (uint32_t code_point = 1; code_point < 0x110000; code_point += code_point < 0x3100 ? kNear : kFar) {
      if (code_point >= 0xD800 && code_point < 0xE000) continue;
      const std::string character = Utf8(code_point);
      const std::vector<int32_t> between = Ids(**tokenizer, "x" + character + "y");
      const bool ends = between.size() >= 4 && between[1] == first && between[between.size() - 2] == last;
      std::vector<int32_t> expected = {between.front(), unk};
      for (int time = 0; ends && time < 2; ++time) {
        expected.insert(expected.end(), between.begin() + 2, between.end() - 2);
        expected.push_back(unk);
      }
      expected.push_back(between.back());
      ending += ends;
      ASSERT_EQ(Ids(**tokenizer, long_word + character + long_word + character + long_word), expected)
          << std::hex << code_point << " with options " << options;
    }
  }
  EXPECT_GT(ending, 1000u);
}

}  // namespace
}  // namespace sutra
