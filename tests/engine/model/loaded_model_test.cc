// A model directory is loaded as a whole, and files that do not belong together are refused.
#include "engine/model/loaded_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class LoadModelTest : public testing::Test {
 protected:
  void SetUp() override { model_.Save(); }
  TinyModel model_;
};

TEST_F(LoadModelTest, WeightsHaveTheDigestOfWhatIsServedNotOfTheFile) {
  const auto digest = [this] {
    const auto model = LoadModel(model_.path());
    EXPECT_TRUE(model.ok()) << model.status().message();
    return model->weights.digest;
  };
  const std::string before = digest();
  EXPECT_EQ(before.size(), 64U);
  model_.Save("F32", "bert.");
  EXPECT_EQ(digest(), before) << "tensors under other names";
  model_.Save("F16");
  EXPECT_NE(digest(), before);
  model_.tensors()["encoder.layer.1.output.LayerNorm.bias"].back() += 1;
  model_.Save();
  EXPECT_NE(digest(), before);
}

TEST_F(LoadModelTest, FamilyThatIsUnknownIsNamedBesideTheKnownOnes) {
  model_.config()["model_type"] = "gpt2";
  model_.Save();
  const auto loaded = LoadModel(model_.path());
  EXPECT_EQ(loaded.code(), StatusCode::kModelError);
  EXPECT_NE(loaded.status().message().find("'gpt2'; supported: bert"), std::string::npos) << loaded.status().message();
}

TEST_F(LoadModelTest, DefaultPromptGoesBeforeEveryText) {
  const auto ids_of = [this](const char* text) {
    const auto loaded = LoadModel(model_.path());
    EXPECT_TRUE(loaded.ok()) << loaded.status().message();
    std::vector<int32_t> ids;
    loaded->tokenizer->Encode(text, loaded->config.spec.tokens_max, &ids);
    return ids;
  };
  const std::vector<int32_t> expected = ids_of("a b. c d");
  EXPECT_EQ(expected, (std::vector<int32_t>{2, 6, 7, 11, 8, 9, 3}));
  model_.directory().Write("config_sentence_transformers.json",
                           R"({"prompts": {"query": "a b. ", "document": ""}, "default_prompt_name": "query"})");
  EXPECT_EQ(ids_of("c d"), expected);
}

TEST_F(LoadModelTest, WeightsInAnotherFormAreNamedWithTheWayToConvertThem) {
  std::filesystem::remove(model_.path() + "/model.safetensors");
  EXPECT_NE(LoadModel(model_.path()).status().message().find("the model directory is not complete"), std::string::npos);
  for (const auto& [file, what] : {std::pair("pytorch_model.bin", "format that is not read here"),
                                   std::pair("model.safetensors.index.json", "split into several files")}) {
    model_.directory().Write(file, "x");
    const std::string message = LoadModel(model_.path()).status().message();
    EXPECT_NE(message.find(file), std::string::npos) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_NE(message.find("save_pretrained"), std::string::npos) << message;
    EXPECT_EQ(message.find("fetch the model again"), std::string::npos) << message;
  }
}

TEST_F(LoadModelTest, WeightsOfAnotherTypeAreNotCalledIncomplete) {
  std::string bytes;
  {
    std::ifstream in(model_.path() + "/model.safetensors", std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  for (size_t at = bytes.find("\"F32\""); at != std::string::npos; at = bytes.find("\"F32\""))
    bytes.replace(at, 5, "\"U32\"");
  model_.directory().Write("model.safetensors", bytes);
  const std::string message = LoadModel(model_.path()).status().message();
  EXPECT_NE(message.find("as U32; supported: F32, F16, BF16"), std::string::npos) << message;
  EXPECT_EQ(message.find("incomplete"), std::string::npos) << message;
}

}  // namespace
}  // namespace sutra
