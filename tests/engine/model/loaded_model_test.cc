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

TEST_F(LoadModelTest, LoadsOfOneFileShareItsMappingWhileOneLives) {
  const auto first = LoadModel(model_.path());
  const auto second = LoadModel(model_.path());
  ASSERT_TRUE(first.ok() && second.ok()) << first.status().message() << second.status().message();
  EXPECT_EQ(first->weights.file, second->weights.file);
}

TEST_F(LoadModelTest, AReplacedFileIsNotTakenForTheOldOne) {
  const auto before = LoadModel(model_.path());
  ASSERT_TRUE(before.ok());
  model_.tensors()["embeddings.LayerNorm.bias"][0] += 1;
  model_.Save();
  const auto after = LoadModel(model_.path());
  ASSERT_TRUE(after.ok());
  EXPECT_NE(after->weights.file, before->weights.file);
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
