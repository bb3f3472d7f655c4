// Loading: what is accepted, what is refused and with which message, and that no damage to a file harms the process.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/tokenizer/wordpiece.h"
#include "tests/engine/tokenizer/test_support.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

class ModelFolder : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(directory_ / name, std::ios::binary) << bytes;
  }
  std::string LoadError() {
    const auto tokenizer = WordPieceTokenizer::Load(folder_);
    if (tokenizer.ok()) return "it was loaded";
    EXPECT_EQ(tokenizer.code(), StatusCode::kModelError);
    return tokenizer.status().message();
  }

  const test::TempDir directory_;
  std::string folder_ = directory_.path();
};

std::string JsonError(const std::string& json) {
  const auto tokenizer = WordPieceTokenizer::FromJson(json, "the-file");
  if (tokenizer.ok()) return "it was loaded";
  EXPECT_EQ(tokenizer.code(), StatusCode::kModelError);
  return tokenizer.status().message();
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

constexpr char kVocabTxt[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld \n##s\r\nhello\nlast";
constexpr char kSettings[] =
    R"({"do_lower_case": true, "tokenizer_class": "BertTokenizer", "cls_token": {"content": "[CLS]"}})";

TEST_F(ModelFolder, LoadsTokenizerJson) {
  Write("tokenizer.json", SmallTokenizerJson());
  const auto tokenizer = WordPieceTokenizer::Load(folder_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(Ids(**tokenizer, "Hello"), (std::vector<int32_t>{2, 8, 3}));
}

TEST_F(ModelFolder, TruncationAndPaddingInTheFileAreIgnored) {
  Write("tokenizer.json", SmallTokenizerJson());
  const auto tokenizer = WordPieceTokenizer::Load(folder_);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(Ids(**tokenizer, "hello hello hello hello").size(), 6u);
}

TEST_F(ModelFolder, FallsBackToVocabTxtTrimmedOnTheRightWithTheLastOfEqualLines) {
  Write("vocab.txt", kVocabTxt);
  Write("tokenizer_config.json", kSettings);
  const auto tokenizer = WordPieceTokenizer::Load(folder_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(Ids(**tokenizer, "Héllo worlds last [MASK]"), (std::vector<int32_t>{2, 8, 6, 7, 9, 4, 3}));
  EXPECT_EQ((*tokenizer)->vocab_size(), 10u);
}

TEST_F(ModelFolder, SettingsOfTheFallbackAreFollowed) {
  Write("vocab.txt", kVocabTxt);
  Write("tokenizer_config.json", R"({"do_lower_case": false})");
  const auto tokenizer = WordPieceTokenizer::Load(folder_);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(Ids(**tokenizer, "Hello hello"), (std::vector<int32_t>{2, 1, 8, 3}));
}

TEST_F(ModelFolder, VocabTxtAloneIsTheUncasedTokenizerOfBert) {
  Write("vocab.txt", kVocabTxt);
  const auto tokenizer = WordPieceTokenizer::Load(folder_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(Ids(**tokenizer, "H\u00e9llo"), (std::vector<int32_t>{2, 8, 3}));
}

TEST_F(ModelFolder, DamagedTokenizerJsonIsNotReplacedByTheFallback) {
  Write("tokenizer.json", SmallTokenizerJson().substr(0, 500));
  Write("vocab.txt", kVocabTxt);
  Write("tokenizer_config.json", kSettings);
  EXPECT_CONTAINS(LoadError(), "tokenizer.json: is not valid JSON");
}

TEST_F(ModelFolder, MissingFilesAreNamed) {
  EXPECT_CONTAINS(LoadError(), "has neither tokenizer.json nor vocab.txt");
  folder_ += "/absent";
  EXPECT_CONTAINS(LoadError(), "absent");
}

TEST_F(ModelFolder, AFallbackWithoutItsSpecialTokensIsRefused) {
  Write("vocab.txt", "[UNK]\nhello\n");
  Write("tokenizer_config.json", kSettings);
  EXPECT_CONTAINS(LoadError(), "lacks \"[CLS]\"");
}

TEST_F(ModelFolder, AFallbackOfAnotherFamilyIsRefused) {
  Write("vocab.txt", kVocabTxt);
  Write("tokenizer_config.json", R"({"tokenizer_class": "XLMRobertaTokenizer"})");
  EXPECT_CONTAINS(LoadError(), "XLMRobertaTokenizer");
}

TEST_F(ModelFolder, VocabTxtThatIsNotUtf8IsRefused) {
  Write("vocab.txt", std::string(kVocabTxt) + "\n\xFF\xFE");
  Write("tokenizer_config.json", kSettings);
  EXPECT_CONTAINS(LoadError(), "UTF-8");
}

TEST_F(ModelFolder, AFolderOrAHugeFileInPlaceOfTheFileIsRefused) {
  std::filesystem::create_directory(folder_ + "/tokenizer.json");
  EXPECT_CONTAINS(LoadError(), "not a regular file");
  std::filesystem::remove(folder_ + "/tokenizer.json");
  Write("tokenizer.json", "{}");
  std::filesystem::resize_file(folder_ + "/tokenizer.json", uint64_t{1} << 40);
  EXPECT_CONTAINS(LoadError(), "more than the");
}

TEST(WordPieceJson, WhatIsNotSupportedIsNamed) {
  const std::string json = SmallTokenizerJson();
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("type":"WordPiece")", R"("type":"BPE")")), "\"BPE\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("type":"BertNormalizer")", R"("type":"NFC")")), "\"NFC\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"({"type":"BertPreTokenizer"})", "null")), "\"none\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, "TemplateProcessing", "RobertaProcessing")), "\"RobertaProcessing\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("lstrip":false)", R"("lstrip":true)")), "\"lstrip\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("normalized":false)", R"("normalized":true)")), "\"normalized\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("content":"[MASK]")", R"("content":"mask")")), "ASCII punctuation");
}

TEST(WordPieceJson, SettingsThatAreNotKnownAreRefused) {
  const std::string json = SmallTokenizerJson();
  for (const char* before :
       {R"("clean_text":true)", R"("type":"WordPiece")", R"("id":4)", R"("decoder":null)", R"("single":[)"}) {
    EXPECT_CONTAINS(JsonError(Replaced(json, before, R"("new_rule":1,)" + std::string(before))), "\"new_rule\"");
  }
  EXPECT_CONTAINS(
      JsonError(Replaced(json, R"({"type":"BertPreTokenizer")", R"({"new_rule":1,"type":"BertPreTokenizer")")),
      "\"new_rule\"");
}

TEST(WordPieceJson, UnigramIsRefusedWithTheModelsThatUseIt) {
  const std::string error = JsonError(Replaced(SmallTokenizerJson(), R"("type":"WordPiece")", R"("type":"Unigram")"));
  EXPECT_CONTAINS(error, "\"Unigram\"");
  EXPECT_CONTAINS(error, "multilingual-e5");
}

TEST(WordPieceJson, TruncationDirectionIsObeyedAndTruncationLengthIsNot) {
  const std::string json = SmallTokenizerJson();
  const auto left = WordPieceTokenizer::FromJson(
      Replaced(json, R"({"max_length":3})", R"({"direction":"Left","max_length":3})"), "the-file");
  ASSERT_TRUE(left.ok()) << left.status().message();
  EXPECT_EQ(Ids(**left, "hello world the a b", 4), (std::vector<int32_t>{2, 11, 13, 3}));
  EXPECT_EQ(Ids(**left, "hello world the a b", 7), (std::vector<int32_t>{2, 8, 9, 17, 11, 13, 3}));
  EXPECT_EQ(Ids(**left, "hello world the a b", 2), (std::vector<int32_t>{2, 3}));
  std::vector<int32_t> ids = {77};
  const Encoded encoded = (*left)->Encode("hello world", 3, &ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{77, 2, 9, 3}));
  EXPECT_TRUE(encoded.truncated);
  EXPECT_EQ(encoded.token_count, 3u);
  EXPECT_FALSE((*left)->Encode("hello world", 4, &ids).truncated);
}

TEST(WordPieceJson, WhatIsMissingOrOutOfRangeIsNamed) {
  const std::string json = SmallTokenizerJson();
  EXPECT_CONTAINS(JsonError(""), "the-file: is not valid JSON");
  EXPECT_CONTAINS(JsonError("[]"), "not an object");
  EXPECT_CONTAINS(JsonError("{}"), "\"none\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("clean_text":true,)", "")), "clean_text");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("strip_accents":null)", R"("strip_accents":1)")), "strip_accents");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("unk_token":"[UNK]")", R"("unk_token":"[NIL]")")), "[NIL]");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("hello":8)", R"("hello":-8)")), "\"hello\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("hello":8)", R"("hello":99999999999)")), "\"hello\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("hello":8)", R"("hello":"8")")), "\"hello\"");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("ids":[2])", R"("ids":[2,3])")), "[CLS]");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"("ids":[2])", R"("ids":[1000])")), "outside the vocabulary");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"({"id":4,)", R"({"id":5,)")), "another id");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"(per_word":100)", R"(per_word":0)")), "max_input_chars_per_word");
  EXPECT_CONTAINS(JsonError(Replaced(json, R"(per_word":100)", R"(per_word":4000000000)")), "max_input_chars_per_word");
}

// The vocabulary is taken out of the document while it is parsed.
TEST(WordPieceJson, VocabularyIsThatOfTheModelInAnyOrderAndOfEqualTokensTheLastCounts) {
  const std::string json = SmallTokenizerJson();
  const auto ids = [](const std::string& changed) {
    const auto tokenizer = WordPieceTokenizer::FromJson(changed, "the-file");
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return tokenizer.ok() ? Ids(**tokenizer, "hello world") : std::vector<int32_t>();
  };
  EXPECT_EQ(ids(json), (std::vector<int32_t>{2, 8, 9, 3}));
  EXPECT_EQ(ids(Replaced(json, R"("hello":8)", R"("hello":7,"hello":9,"hello":8)")), ids(json));
  EXPECT_EQ(ids(Replaced(json, R"("hello":8)", R"("world":9,"hello":8)")), ids(json));
  EXPECT_EQ(ids(Replaced(json, R"("vocab":{)", R"("vocab":{"hello":1,"other":2},"vocab":{)")), ids(json));
  EXPECT_EQ(ids(Replaced(json, R"("single":[)", R"("pair":[{"vocab":{"hello":1}}],"single":[)")), ids(json));
}

TEST(WordPieceJson, VocabularyThatIsNotTokensAndIdsIsRefused) {
  const std::string json = SmallTokenizerJson();
  for (const char* value : {R"({"a":{"b":1}})", "[8,[9]]", "8.5", "null"}) {
    EXPECT_CONTAINS(JsonError(Replaced(json, R"("hello":8)", std::string(R"("hello":)") + value)), "\"hello\"");
  }
  for (const char* list : {R"(["hello"])", R"([["hello",8]])", R"([{"hello":8}])", "8"}) {
    EXPECT_CONTAINS(JsonError(Replaced(json, R"("vocab":{)", std::string(R"("vocab":)") + list + R"(,"vocabulary":{)")),
                    "vocabulary");
    EXPECT_CONTAINS(JsonError(Replaced(json, R"("model":{)", std::string(R"("model":{"vocab":)") + list + "},\"x\":{")),
                    "setting \"x\"");
  }
  const size_t begin = json.find(R"("vocab":{)") + 8;
  const std::string listed =
      json.substr(0, begin) + R"([{"hello":8},["world",9],7])" + json.substr(json.find('}', begin) + 1);
  EXPECT_CONTAINS(JsonError(listed), "not an object of token: id");
}

TEST(WordPieceJson, AnUntypedModelIsWordPieceIfItLooksLikeIt) {
  EXPECT_EQ(JsonError(Replaced(SmallTokenizerJson(), R"("type":"WordPiece",)", "")), "it was loaded");
  EXPECT_CONTAINS(JsonError(Replaced(SmallTokenizerJson(), R"("type":"WordPiece",)", R"("merges":[],)")),
                  "\"untyped\"");
}

TEST(WordPieceJson, BertProcessingIsAnotherWayToNameClsAndSep) {
  const std::string json = SmallTokenizerJson();
  const size_t begin = json.find(R"({"type":"TemplateProcessing")"), end = json.find(R"(,"decoder")");
  const auto tokenizer = WordPieceTokenizer::FromJson(
      json.substr(0, begin) + R"({"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]})" + json.substr(end),
      "the-file");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(Ids(**tokenizer, ""), (std::vector<int32_t>{2, 3}));
}

TEST(WordPieceJson, DeepNestingIsNoDanger) {
  EXPECT_CONTAINS(JsonError(std::string(1'000'000, '[')), "not valid JSON");
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  EXPECT_CONTAINS(JsonError(R"({"model":)" + deep + "}"), "only WordPiece");
}

TEST(WordPieceJson, RandomDamageGivesATokenizerOrAReasonNeverACrash) {
  std::mt19937_64 random(TestSeed());
  const std::string json = SmallTokenizerJson();
  const std::string text = "Hello wörlds [SEP] unaffable 中国 각 " + std::string(150, 'x');
  size_t loaded = 0, refused = 0;
  for (int round = 0; round < 4'000; ++round) {
    std::string damaged = json;
    for (uint64_t edits = 1 + random() % 4; edits > 0 && !damaged.empty(); --edits) {
      const size_t at = random() % damaged.size();
      switch (random() % 6) {
        case 0: damaged[at] = static_cast<char>(random() % 256); break;
        case 1: damaged[at] = "0123456789-{}[]\",:ntf#"[random() % 22]; break;
        case 2: damaged.erase(at, 1 + random() % 20); break;
        case 3: damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 30)); break;
        case 4: damaged.resize(at); break;
        default: damaged.insert(at, std::to_string(random())); break;
      }
    }
    const auto tokenizer = WordPieceTokenizer::FromJson(damaged, "damaged");
    if (!tokenizer.ok()) {
      ASSERT_FALSE(tokenizer.status().message().empty());
      ++refused;
      continue;
    }
    ++loaded;
    for (const int32_t id : Ids(**tokenizer, text)) {
      ASSERT_GE(id, 0);
      ASSERT_LT(static_cast<uint32_t>(id), (*tokenizer)->vocab_size());
    }
  }
  EXPECT_GT(loaded, 0u);
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace sutra
