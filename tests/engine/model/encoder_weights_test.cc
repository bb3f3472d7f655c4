// Tensors are found by name and checked; the first problem is the one that is reported.
#include "engine/model/encoder_weights.h"

#include <gtest/gtest.h>

#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class TensorFinderTest : public testing::Test {
 protected:
  void SetUp() override {
    model_.Save();
    file_ = std::move(SafetensorsFile::Open(model_.path() + "/model.safetensors")).value();
  }
  TinyModel model_;
  std::shared_ptr<SafetensorsFile> file_;
};

TEST_F(TensorFinderTest, FindsWhatHasTheAskedShape) {
  TensorFinder find(*file_, "");
  EXPECT_NE(find.Linear("encoder.layer.0.intermediate.dense", 128, 64).weight, nullptr);
  EXPECT_NE(find.Norm("embeddings.LayerNorm", 64).shift, nullptr);
  EXPECT_EQ(find.Rows("embeddings.token_type_embeddings.weight", 9), 2U);
  EXPECT_EQ(find.Rows("nothing", 9), 9U);
  EXPECT_TRUE(find.status().ok());
}

TEST_F(TensorFinderTest, FirstProblemIsKeptWithFileTensorAndFix) {
  TensorFinder find(*file_, "");
  EXPECT_EQ(find.Get("missing.weight", {1}), nullptr);
  EXPECT_EQ(find.Get("embeddings.LayerNorm.weight", {64}), nullptr) << "nothing is looked up after a problem";
  EXPECT_EQ(find.status().code(), StatusCode::kModelError);
  EXPECT_NE(find.status().message().find("lack the tensor missing.weight"), std::string::npos);
  EXPECT_NE(find.status().message().find("fetch the model again"), std::string::npos);
  TensorFinder shapes(*file_, "");
  shapes.Get("embeddings.LayerNorm.weight", {65});
  EXPECT_NE(shapes.status().message().find("another shape"), std::string::npos);
  TensorFinder prefixed(*file_, "bert.");
  prefixed.Get("embeddings.LayerNorm.weight", {64});
  EXPECT_NE(prefixed.status().message().find("bert.embeddings.LayerNorm.weight"), std::string::npos);
}

}  // namespace
}  // namespace sutra
