// The built-in texts, and cosines against vectors made by hand.
#include "engine/cpu/int8/int8_quality.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tests/engine/cpu/int8/quantised_tiny_model.h"

namespace sutra::cpu {
namespace {

// Answers with vectors of two floats, one per text.
class FixedEncoder : public Encoder {
 public:
  explicit FixedEncoder(std::vector<std::array<float, 2>> vectors) : vectors_(std::move(vectors)) {}
  const char* name() const override { return "fixed"; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override {
    EXPECT_EQ(batch.texts(), vectors_.size());
    for (size_t i = 0; i < vectors_.size(); ++i) std::copy_n(vectors_[i].begin(), 2, outputs[i]);
    return {};
  }

 private:
  std::vector<std::array<float, 2>> vectors_;
};

QualityTexts Named(const std::vector<std::string>& names) {
  QualityTexts texts;
  for (const std::string& name : names) {
    texts.tokens.ids.push_back(1);
    texts.tokens.EndText();
    texts.names.push_back(name);
  }
  return texts;
}

TEST(Int8Quality, TheSmallestCosineAndItsTextAreFound) {
  FixedEncoder exact({{1, 0}, {1, 0}, {0, 2}});
  FixedEncoder quantised({{5, 0}, {1, 1}, {0.1F, 2}});
  const auto quality = CompareEncoders(exact, quantised, 2, Named({"same", "turned", "near"}));
  ASSERT_TRUE(quality.ok());
  EXPECT_EQ(quality->text, "turned");
  EXPECT_EQ(quality->texts, 3U);
  EXPECT_NEAR(quality->cosine_min, std::sqrt(0.5), 1e-6);
  EXPECT_NEAR(quality->cosine_mean, (1 + std::sqrt(0.5) + 2 / std::sqrt(4.01)) / 3, 1e-6);
}

TEST(Int8Quality, WhatIsNoDirectionIsTheWorst) {
  for (const float value : {0.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    FixedEncoder exact({{1, 0}, {1, 0}});
    FixedEncoder quantised({{1, 0}, {value, value}});
    const auto quality = CompareEncoders(exact, quantised, 2, Named({"good", "bad"}));
    ASSERT_TRUE(quality.ok());
    EXPECT_EQ(quality->cosine_min, -1);
    EXPECT_EQ(quality->text, "bad");
  }
}

TEST(Int8Quality, BuiltInTextsAreManyShortOnesAndSomeOfEveryLength) {
  const LoadedModel model = LoadTinyModel();
  const uint32_t tokens_max = model.config.spec.tokens_max;
  const QualityTexts texts = BuiltInTexts(*model.tokenizer, model.config.spec.vocabulary, tokens_max);
  ASSERT_GE(texts.names.size(), 50U);
  ASSERT_EQ(texts.names.size(), texts.tokens.size());
  size_t shorts = 0, longest = 0;
  for (size_t i = 0; i < texts.tokens.size(); ++i) {
    const int32_t tokens = texts.tokens.offsets[i + 1] - texts.tokens.offsets[i];
    EXPECT_GE(tokens, 2);
    EXPECT_LE(tokens, static_cast<int32_t>(tokens_max));
    if (tokens <= 5) ++shorts;
    if (tokens == static_cast<int32_t>(tokens_max)) ++longest;
    EXPECT_FALSE(texts.names[i].empty());
  }
  EXPECT_GE(shorts, 20U);
  EXPECT_GE(longest, 2U);
  for (const int32_t id : texts.tokens.ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, static_cast<int32_t>(model.config.spec.vocabulary));
  }
}

}  // namespace
}  // namespace sutra::cpu
