// A BERT directory becomes a specification and weights by role.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/model/families/family.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

TEST(BertFamily, ConfigBecomesASpecification) {
  TinyModel model;
  EncoderSpec spec;
  ASSERT_TRUE(kBertFamily.read_spec("config.json", model.config(), &spec).ok());
  EXPECT_EQ(spec.hidden, 64U);
  EXPECT_EQ(spec.layers, 2U);
  EXPECT_EQ(spec.heads, 2U);
  EXPECT_EQ(spec.head_width(), 32U);
  EXPECT_EQ(spec.intermediate, 128U);
  EXPECT_EQ(spec.vocabulary, TinyModel::kVocabulary);
  EXPECT_EQ(spec.positions, 40U);
  EXPECT_EQ(spec.activation, Activation::kGeluErf);
  EXPECT_FLOAT_EQ(spec.norm_epsilon, 1e-12F);
}

TEST(BertFamily, WhatItCannotComputeIsRefusedByKey) {
  const std::pair<const char*, nlohmann::json> cases[] = {{"position_embedding_type", "relative_key"},
                                                          {"is_decoder", true},
                                                          {"hidden_act", "relu"},
                                                          {"layer_norm_eps", 2.0},
                                                          {"hidden_size", 0},
                                                          {"num_attention_heads", 7},
                                                          {"max_position_embeddings", 1}};
  for (const auto& [key, value] : cases) {
    TinyModel model;
    model.config()[key] = value;
    EncoderSpec spec;
    const Status status = kBertFamily.read_spec("config.json", model.config(), &spec);
    EXPECT_EQ(status.code(), StatusCode::kModelError) << key;
    EXPECT_NE(status.message().find(key), std::string::npos) << status.message();
  }
}

TEST(BertFamily, WeightsAreFoundByRoleWithEitherPrefixAndOlderNormNames) {
  for (const char* prefix : {"", "bert."}) {
    TinyModel model;
    EncoderSpec spec;
    ASSERT_TRUE(kBertFamily.read_spec("config.json", model.config(), &spec).ok());
    model.Save("F32", prefix);
    const auto file = SafetensorsFile::Open(model.path() + "/model.safetensors");
    ASSERT_TRUE(file.ok());
    const Result<EncoderWeights> weights = kBertFamily.find_weights(*file, spec);
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    ASSERT_EQ(weights->layers.size(), 2U);
    EXPECT_EQ(weights->words->shape, (std::vector<uint64_t>{TinyModel::kVocabulary, 64}));
    EXPECT_EQ(weights->segments->shape, (std::vector<uint64_t>{2, 64}));
    EXPECT_EQ(weights->layers[1].ffn_in.weight->shape, (std::vector<uint64_t>{128, 64}));
    EXPECT_EQ(weights->layers[1].key.weight->name, std::string(prefix) + "encoder.layer.1.attention.self.key.weight");
  }
}

TEST(Families, AreFoundByModelTypeAndListedForMessages) {
  EXPECT_EQ(FindFamily("bert"), &kBertFamily);
  EXPECT_EQ(FindFamily("gpt2"), nullptr);
  EXPECT_EQ(FindFamily(""), nullptr);
  EXPECT_NE(SupportedFamilies().find("bert (the English MiniLM"), std::string::npos);
}

}  // namespace
}  // namespace sutra
