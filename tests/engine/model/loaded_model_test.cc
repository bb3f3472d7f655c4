// A model directory is loaded as a whole, and files that do not belong together are refused.
#include "engine/model/loaded_model.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace sutra
