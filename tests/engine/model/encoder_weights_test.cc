// Tensors are found by name and checked; the first problem is the one that is reported.
#include "engine/model/encoder_weights.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/model/families/family.h"
#include "shm/base/sha256.h"
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

// Inner weights of 3 MiB, so that they are read and hashed in several parts.
class ReadWeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    model_.Save();
    ASSERT_TRUE(kBertFamily.read_spec("config.json", model_.config(), &spec_).ok());
  }
  EncoderWeights Find() const {
    const auto file = SafetensorsFile::Open(path());
    return kBertFamily.find_weights(file.value(), spec_).value();
  }
  std::string path() const { return model_.path() + "/model.safetensors"; }

  TinyModel model_{{.hidden = 64, .heads = 2, .intermediate = 12 << 10, .layers = 2, .positions = 40}};
  EncoderSpec spec_;
};

TEST_F(ReadWeightsTest, DigestIsThatOfTypesShapesAndBytesInTheOrderOfRoles) {
  EncoderWeights weights = Find();
  EXPECT_TRUE(weights.words->bytes().empty()) << "found, not yet read";
  ASSERT_TRUE(ReadWeights(&weights).ok());
  Sha256 hash;
  const auto add = [&](const std::string& name, const std::string& shape) {
    const std::vector<float>& values = model_.tensors().at(name);
    const TensorView* tensor = weights.file->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(ToFloats(*tensor), values) << name;
    hash.Add("F32 " + shape + "\n");
    hash.Add(std::as_bytes(std::span(values)));
  };
  const auto add_both = [&](const std::string& name, const std::string& weight_shape, const std::string& bias_shape) {
    add(name + ".weight", weight_shape);
    add(name + ".bias", bias_shape);
  };
  add("embeddings.word_embeddings.weight", std::to_string(TinyModel::kVocabulary) + " 64");
  add("embeddings.position_embeddings.weight", "40 64");
  add("embeddings.token_type_embeddings.weight", "2 64");
  add_both("embeddings.LayerNorm", "64", "64");
  for (const std::string layer : {"encoder.layer.0.", "encoder.layer.1."}) {
    for (const char* name : {"self.query", "self.key", "self.value", "output.dense"}) {
      add_both(layer + "attention." + name, "64 64", "64");
    }
    add_both(layer + "intermediate.dense", "12288 64", "12288");
    add_both(layer + "output.dense", "64 12288", "64");
    add_both(layer + "attention.output.LayerNorm", "64", "64");
    add_both(layer + "output.LayerNorm", "64", "64");
  }
  EXPECT_EQ(weights.digest, hash.FinishHex().value());
}

TEST_F(ReadWeightsTest, FileThatBecameShorterIsAnErrorWhereverItEnds) {
  const uint64_t whole = std::filesystem::file_size(path());
  for (const uint64_t bytes : {whole - 1, whole / 2, whole / 4, uint64_t{1}}) {
    EncoderWeights weights = Find();
    std::filesystem::resize_file(path(), bytes);
    const Status status = ReadWeights(&weights);
    EXPECT_EQ(status.code(), StatusCode::kModelError);
    EXPECT_NE(status.message().find("became shorter"), std::string::npos) << status.message();
    EXPECT_TRUE(weights.digest.empty());
    model_.Save();
  }
}

}  // namespace
}  // namespace sutra
