// The tokenizer's files are read once, whole, with bounded sizes.
#include "engine/tokenizer/tokenizer_files.h"

#include <gtest/gtest.h>

#include "tests/engine/tokenizer/test_support.h"
#include "tests/kit/temp_dir.h"

namespace sutra {
namespace {

TEST(TokenizerFilesRead, HoldWhatIsThereAndNothingForTheRest) {
  const test::TempDir folder;
  folder.Write("tokenizer_config.json", "{}");
  folder.Write("added_tokens.json", "");
  const auto files = ReadTokenizerFiles(folder.path());
  ASSERT_TRUE(files.ok()) << files.status().message();
  EXPECT_EQ(files->directory, folder.path());
  EXPECT_EQ(files->tokenizer_config, "{}");
  EXPECT_EQ(files->added_tokens, "");
  EXPECT_FALSE(files->tokenizer_json.has_value());
  EXPECT_FALSE(files->vocab_txt.has_value());
  EXPECT_FALSE(files->special_tokens_map.has_value());
}

TEST(TokenizerFilesRead, GiveTheSameTokenizerWhateverHappensToTheFolder) {
  const test::TempDir folder;
  folder.Write("tokenizer.json", SmallTokenizerJson());
  const auto files = ReadTokenizerFiles(folder.path());
  ASSERT_TRUE(files.ok());
  folder.Write("tokenizer.json", "{}");
  folder.Write("tokenizer_config.json", R"({"do_lower_case": false})");
  const auto tokenizer = WordPieceTokenizer::FromFiles(*files);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(Ids(**tokenizer, "Hello"), (std::vector<int32_t>{2, 8, 3}));
}

}  // namespace
}  // namespace sutra
