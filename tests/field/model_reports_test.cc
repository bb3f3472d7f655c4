// Public reports about model folders and vectors. Each test names the reports it mirrors.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/model/model_config.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

// huggingface/sentence-transformers#841, #929, neuml/txtai#74: no maximal length, or a number near 1e30, stands in the
// folder; the position table bounds a text then.
TEST(ModelReports, FolderWithoutAMaximalLengthIsBoundedByItsPositionTable) {
  TinyModel model;
  model.Save();
  std::filesystem::remove(model.path() + "/sentence_bert_config.json");
  for (const char* settings :
       {R"({})", R"({"model_max_length": null})", R"({"model_max_length": 1000000000000000019884624838656})"}) {
    model.directory().Write("tokenizer_config.json", settings);
    const auto config = LoadModelConfig(model.path());
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ(config->spec.tokens_max, 40U) << settings;
  }
}

}  // namespace
}  // namespace sutra
