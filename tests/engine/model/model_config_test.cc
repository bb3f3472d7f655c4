// What a model directory may contain, and how it is refused: the message names the file and the value.
#include "engine/model/model_config.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

using nlohmann::json;

class ModelConfigFiles : public testing::Test {
 protected:
  void SetUp() override { model_.Save(); }
  void ExpectRefused(const std::string& file, const std::string& contents, const std::string& what) {
    model_.directory().Write(file, contents);
    const auto loaded = LoadModelConfig(model_.path());
    ASSERT_FALSE(loaded.ok()) << contents;
    EXPECT_NE(loaded.status().message().find(file), std::string::npos) << loaded.status().message();
    EXPECT_NE(loaded.status().message().find(what), std::string::npos) << loaded.status().message();
    model_.Save();
  }
  void ExpectConfigRefused(const char* key, const json& value) {
    json config = model_.config();
    config[key] = value;
    ExpectRefused("config.json", config.dump(), key);
  }

  TinyModel model_;
};

TEST_F(ModelConfigFiles, AreReadTogether) {
  const auto config = LoadModelConfig(model_.path() + "/");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->name, std::filesystem::path(model_.path()).filename());
  EXPECT_EQ(config->spec.hidden, 64U);
  EXPECT_EQ(config->spec.layers, 2U);
  EXPECT_EQ(config->spec.activation, Activation::kGeluErf);
  EXPECT_EQ(config->spec.pooling, Pooling::kMean);
  EXPECT_TRUE(config->normalizes);
  EXPECT_EQ(config->spec.tokens_max, 32U);
  EXPECT_EQ(config->width, 64U);
  EXPECT_EQ(config->prompt, "");
}

TEST_F(ModelConfigFiles, LimitComesFromSentenceBertConfigBoundedByPositions) {
  const auto limit = [this](const std::string& text) {
    model_.directory().Write("sentence_bert_config.json", text);
    return LoadModelConfig(model_.path())->spec.tokens_max;
  };
  EXPECT_EQ(limit(R"({"max_seq_length": 16})"), 16U);
  EXPECT_EQ(limit(R"({"max_seq_length": 4000})"), 40U);
  EXPECT_EQ(limit(R"({"max_seq_length": null})"), 40U);
  EXPECT_EQ(limit("{}"), 40U);
  std::filesystem::remove(model_.path() + "/sentence_bert_config.json");
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.tokens_max, 40U);
  model_.directory().Write("tokenizer_config.json", R"({"model_max_length": 24})");
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.tokens_max, 24U);
  model_.directory().Write("tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656})");
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.tokens_max, 40U);
}

TEST_F(ModelConfigFiles, TokenizerJsonTruncationDoesNotSetTheLimit) {
  model_.directory().Write("tokenizer.json", R"({"truncation": {"max_length": 8}})");
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.tokens_max, 32U);
}

TEST_F(ModelConfigFiles, UnknownModulesAreRefusedByName) {
  const auto modules = [](const std::vector<std::string>& types) {
    json list = json::array();
    for (const std::string& type : types)
      list.push_back(
          {{"path", type == "Transformer" ? "" : "1_Pooling"}, {"type", "sentence_transformers.models." + type}});
    return list.dump();
  };
  ExpectRefused("modules.json", modules({"Transformer", "Pooling", "Dense"}), "'Dense'");
  ExpectRefused("modules.json", modules({"Pooling", "Transformer"}), "'Pooling'");
  ExpectRefused("modules.json", modules({"Transformer", "Pooling", "Normalize", "Normalize"}), "module 3");
  ExpectRefused("modules.json", modules({"Transformer"}), "Pooling");
  ExpectRefused("modules.json", "{}", "list");
  ExpectRefused("modules.json", R"([{"type": "Transformer", "path": "../other"}])", "leaves the model directory");
  ExpectRefused("modules.json", R"([{"type": "sentence_transformers.models.Transformer", "path": "/etc"}])",
                "leaves the model directory");
  model_.directory().Write("modules.json", modules({"Transformer", "Pooling"}));
  EXPECT_FALSE(LoadModelConfig(model_.path())->normalizes);
}

TEST_F(ModelConfigFiles, PoolingIsMeanOrCls) {
  model_.directory().Write("1_Pooling/config.json",
                           R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})");
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.pooling, Pooling::kCls);
  ExpectRefused("1_Pooling/config.json", R"({"pooling_mode_max_tokens": true})", "pooling mode 'max'");
  ExpectRefused("1_Pooling/config.json", R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})",
                "2 pooling");
  ExpectRefused("1_Pooling/config.json", "{}", "0 pooling");
  ExpectRefused("1_Pooling/config.json", R"({"pooling_mode_mean_tokens": true, "word_embedding_dimension": 65})",
                "hidden_size");
}

TEST_F(ModelConfigFiles, ModelWithoutModulesIsMeanPooledAndRaw) {
  std::filesystem::remove(model_.path() + "/modules.json");
  const auto incomplete = LoadModelConfig(model_.path());
  ASSERT_FALSE(incomplete.ok()) << "sentence-transformers would not read sentence_bert_config.json then";
  EXPECT_NE(incomplete.status().message().find("modules.json is missing"), std::string::npos);
  std::filesystem::remove(model_.path() + "/sentence_bert_config.json");
  const auto config = LoadModelConfig(model_.path());
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->spec.pooling, Pooling::kMean);
  EXPECT_FALSE(config->normalizes);
}

TEST_F(ModelConfigFiles, UnsupportedArchitecturesAreRefusedByKey) {
  ExpectConfigRefused("model_type", "roberta");
  ExpectConfigRefused("position_embedding_type", "relative_key");
  ExpectConfigRefused("hidden_act", "relu");
  ExpectConfigRefused("is_decoder", true);
  ExpectConfigRefused("hidden_size", 0);
  ExpectConfigRefused("hidden_size", 65);
  ExpectConfigRefused("hidden_size", 1e9);
  ExpectConfigRefused("num_hidden_layers", -1);
  ExpectConfigRefused("vocab_size", "many");
  ExpectConfigRefused("max_position_embeddings", 1);
  ExpectConfigRefused("layer_norm_eps", "small");
  ExpectConfigRefused("intermediate_size", nullptr);
}

TEST_F(ModelConfigFiles, GeluNewIsTheTanhForm) {
  model_.config()["hidden_act"] = "gelu_new";
  model_.Save();
  EXPECT_EQ(LoadModelConfig(model_.path())->spec.activation, Activation::kGeluTanh);
}

TEST_F(ModelConfigFiles, SnapshotInAHubCacheHasTheNameOfItsRepository) {
  const test::TempDir hub;
  const std::string repository = hub / "models--acme--tiny-embedder";
  std::filesystem::create_directories(repository + "/snapshots");
  std::filesystem::create_symlink(model_.path(), repository + "/snapshots/0123abcd");
  for (const char* end : {"", "/"}) {
    const auto config = LoadModelConfig(repository + "/snapshots/0123abcd" + end);
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ(config->name, "tiny-embedder");
  }
  const auto root = LoadModelConfig(repository);
  ASSERT_FALSE(root.ok());
  EXPECT_NE(root.status().message().find("--model " + repository + "/snapshots/0123abcd"), std::string::npos)
      << root.status().message();
}

TEST_F(ModelConfigFiles, MissingDirectoryAndDamagedFilesNameThePath) {
  EXPECT_NE(LoadModelConfig("/nowhere/model").status().message().find("/nowhere/model"), std::string::npos);
  ExpectRefused("config.json", "{", "not valid JSON");
  ExpectRefused("config.json", std::string(2 << 20, ' '), "1 MiB");
  std::filesystem::remove(model_.path() + "/config.json");
  const auto loaded = LoadModelConfig(model_.path());
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("config.json"), std::string::npos);
  EXPECT_NE(loaded.status().message().find("fetch it again"), std::string::npos);
}

}  // namespace
}  // namespace sutra
