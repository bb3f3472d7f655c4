// The files beside tokenizer.json: which of two settings wins, and what is refused. The right ids are those of
// BertTokenizer in transformers, whose own settings win over those in tokenizer.json.
#include "engine/tokenizer/tokenizer_settings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "tests/engine/tokenizer/test_support.h"

namespace sutra {
namespace {

using IdList = std::vector<int32_t>;

class TokenizerSettings : public ::testing::Test {
 protected:
  TokenizerSettings() {
    files_.directory = "folder";
    files_.tokenizer_json = SmallTokenizerJson();
  }
  Result<std::unique_ptr<WordPieceTokenizer>> Load() { return WordPieceTokenizer::FromFiles(files_); }
  IdList IdsOf(std::string_view text) {
    const auto tokenizer = Load();
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return tokenizer.ok() ? Ids(**tokenizer, text) : IdList();
  }
  void ExpectRefused(const std::string& what) {
    const auto tokenizer = Load();
    ASSERT_FALSE(tokenizer.ok()) << what;
    EXPECT_EQ(tokenizer.code(), StatusCode::kModelError);
    EXPECT_NE(tokenizer.status().message().find(what), std::string::npos) << tokenizer.status().message();
  }

  TokenizerFiles files_;
};

TEST_F(TokenizerSettings, CaseOfTheSettingsWinsOverTokenizerJson) {
  EXPECT_EQ(IdsOf("Hello"), (IdList{2, 8, 3}));
  files_.tokenizer_config = R"({"do_lower_case": false})";
  EXPECT_EQ(IdsOf("Hello h\u00e9llo"), (IdList{2, 1, 1, 3})) << "accents follow the case, as in BertNormalizer";
  files_.tokenizer_config = R"({"do_lower_case": false, "strip_accents": true})";
  EXPECT_EQ(IdsOf("Hello h\u00e9llo"), (IdList{2, 1, 8, 3}));
  files_.tokenizer_config = R"({"strip_accents": false})";
  EXPECT_EQ(IdsOf("Hello h\u00e9llo"), (IdList{2, 8, 1, 3}));
  files_.tokenizer_json = Replaced(SmallTokenizerJson(), R"("lowercase":true)", R"("lowercase":false)");
  files_.tokenizer_config = R"({"do_lower_case": true})";
  EXPECT_EQ(IdsOf("Hello h\u00e9llo"), (IdList{2, 8, 8, 3}));
}

TEST_F(TokenizerSettings, IdeographsAreSplitAsTheSettingsSay) {
  EXPECT_EQ(IdsOf("\u4e2d\u56fd"), (IdList{2, 26, 27, 3}));
  files_.tokenizer_config = R"({"tokenize_chinese_chars": false})";
  EXPECT_EQ(IdsOf("\u4e2d\u56fd"), (IdList{2, 1, 3}));
}

TEST_F(TokenizerSettings, DefaultOfTheClassThatContradictsTokenizerJsonIsRefused) {
  for (const auto& [right, wrong, key] :
       {std::tuple(R"("lowercase":true)", R"("lowercase":false)", "do_lower_case"),
        std::tuple(R"("strip_accents":null)", R"("strip_accents":false)", "strip_accents"),
        std::tuple(R"("handle_chinese_chars":true)", R"("handle_chinese_chars":false)", "tokenize_chinese_chars"),
        std::tuple(R"("clean_text":true)", R"("clean_text":false)", "clean_text")}) {
    files_.tokenizer_json = Replaced(SmallTokenizerJson(), right, wrong);
    files_.tokenizer_config.reset();
    ExpectRefused(key);
    files_.tokenizer_config = "{}";
    ExpectRefused(key);
    files_.tokenizer_config = R"({"tokenizer_class": "PreTrainedTokenizerFast"})";
    EXPECT_TRUE(Load().ok()) << "this class takes tokenizer.json as it stands: " << Load().status().message();
  }
}

TEST_F(TokenizerSettings, LowercaseTextOfSentenceTransformersLeavesLiteralsAndAccents) {
  files_.tokenizer_config = R"({"do_lower_case": false})";
  files_.lowercase_text = true;
  EXPECT_EQ(IdsOf("Hello h\u00e9llo [SEP] [sep]"), (IdList{2, 8, 1, 3, 20, 31, 21, 3}));
}

TEST_F(TokenizerSettings, TruncationSideWinsOverTokenizerJson) {
  files_.tokenizer_config = R"({"truncation_side": "left"})";
  EXPECT_EQ(Ids(**Load(), "hello world", 3), (IdList{2, 9, 3}));
  files_.tokenizer_json =
      Replaced(SmallTokenizerJson(), R"({"max_length":3})", R"({"direction":"Left","max_length":3})");
  files_.tokenizer_config = R"({"truncation_side": "right"})";
  EXPECT_EQ(Ids(**Load(), "hello world", 3), (IdList{2, 8, 3}));
  files_.tokenizer_config = R"({"truncation_side": "middle"})";
  ExpectRefused("truncation_side");
}

TEST_F(TokenizerSettings, SpecialTokensThatTokenizerJsonDoesNotUseAreRefused) {
  for (const auto& [text, what] :
       {std::pair(R"({"cls_token": "[MASK]"})", "cls_token"),
        std::pair(R"({"sep_token": {"content": "[CLS]"}})", "sep_token"),
        std::pair(R"({"unk_token": "hello"})", "unk_token"), std::pair(R"({"mask_token": "[NEW]"})", "[NEW]"),
        std::pair(R"({"mask_token": {"content": "[MASK]", "lstrip": true}})", "lstrip"),
        std::pair(R"({"additional_special_tokens": ["<new>"]})", "<new>"),
        std::pair(R"({"extra_special_tokens": {"image": "<new>"}})", "<new>"),
        std::pair(R"({"added_tokens_decoder": {"7": {"content": "[CLS]"}}})", "the id"),
        std::pair(R"({"tokenizer_class": "BertJapaneseTokenizer"})", "BertJapaneseTokenizer"),
        std::pair(R"({"split_special_tokens": true})", "split_special_tokens"),
        std::pair(R"({"auto_map": {"AutoTokenizer": ["x.py", null]}})", "auto_map")}) {
    files_.tokenizer_config = text;
    ExpectRefused(what);
  }
  files_.tokenizer_config = R"({"cls_token": "[CLS]"})";
  files_.special_tokens_map = R"({"cls_token": "[SEP]"})";
  ExpectRefused("special_tokens_map.json");
  files_.special_tokens_map.reset();
  files_.added_tokens = R"({"<new>": 40})";
  ExpectRefused("added_tokens.json: adds \"<new>\"");
  files_.added_tokens = R"({"[MASK]": 4})";
  EXPECT_TRUE(Load().ok()) << Load().status().message();
}

TEST_F(TokenizerSettings, SpecialTokenOfTheVocabularyBecomesALiteral) {
  EXPECT_EQ(IdsOf("a<b"), (IdList{2, 11, 23, 13, 3}));
  files_.tokenizer_config = R"({"additional_special_tokens": ["<"]})";
  const auto tokenizer = Load();
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(Ids(**tokenizer, "a<b"), (IdList{2, 11, 23, 13, 3}));
  const std::vector<std::string> settings = (*tokenizer)->Settings();
  EXPECT_EQ(std::count(settings.begin(), settings.end(), "literal 23 1:<"), 1);
}

TEST_F(TokenizerSettings, CanonicalLinesFollowWhatIsObeyedNotHowItIsWritten) {
  const auto settings = (*Load())->Settings();
  const std::string vocabulary = (*Load())->vocabulary_digest();
  files_.tokenizer_json = nlohmann::json::parse(SmallTokenizerJson()).dump(2);
  files_.tokenizer_config = R"({"do_lower_case": true, "name_or_path": "x", "tokenizer_class": "BertTokenizer",
                                "cls_token": "[CLS]", "model_max_length": 7})";
  EXPECT_EQ((*Load())->Settings(), settings);
  EXPECT_EQ((*Load())->vocabulary_digest(), vocabulary);
  files_.tokenizer_config = R"({"do_lower_case": false})";
  EXPECT_NE((*Load())->Settings(), settings);
  files_.tokenizer_config.reset();
  files_.tokenizer_json = Replaced(SmallTokenizerJson(), R"("hello":8)", R"("hullo":8)");
  EXPECT_EQ((*Load())->Settings(), settings);
  EXPECT_NE((*Load())->vocabulary_digest(), vocabulary);
}

}  // namespace
}  // namespace sutra
