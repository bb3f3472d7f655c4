// A model in int8 from its folder: prepared once, kept in a file, refused where it loses too much.
#include "engine/cpu/int8/int8_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "engine/cpu/int8/packed_file.h"
#include "tests/engine/cpu/int8/quantised_tiny_model.h"
#include "tests/kit/temp_dir.h"

namespace sutra::cpu {
namespace {

class Int8Model : public testing::Test {
 protected:
  Int8Model() : model_(LoadTinyModel()) {
    options_ = {.identity = std::string(64, 'c'), .directory = directory_.path() + "/packed", .cosine_min = 0};
  }
  Result<std::shared_ptr<const QuantisedModel>> Load() {
    const KernelTable& kernels = *PortableKernels(Element::kF32);
    return SharedInt8Model(model_, kernels, kernels, options_);
  }
  std::string File() const { return PackedFilePath(options_.directory, options_.identity); }
  std::filesystem::file_time_type Written() const { return std::filesystem::last_write_time(File()); }

  const test::TempDir directory_;
  LoadedModel model_;
  Int8Options options_;
};

TEST_F(Int8Model, IsPreparedOnceAndReadFromThenOn) {
  std::string bytes;
  {
    const auto prepared = Load();
    ASSERT_TRUE(prepared.ok()) << prepared.status().message();
    bytes = BytesOf(prepared.value()->layers);
    EXPECT_GT(prepared.value()->quality.cosine_min, 0.99);
    EXPECT_GE(prepared.value()->quality.texts, 50U);
    EXPECT_EQ(Load().value(), prepared.value()) << "one process has one";
  }
  const auto time = Written();
  const auto read = Load();
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(BytesOf(read.value()->layers), bytes);
  EXPECT_EQ(Written(), time) << "nothing was written";
}

TEST_F(Int8Model, ADamagedFileIsMadeAnew) {
  const std::string bytes = BytesOf(Load().value()->layers);
  std::fstream(File(), std::ios::in | std::ios::out | std::ios::binary).seekp(5000).put('!').put('?');
  EXPECT_EQ(BytesOf(Load().value()->layers), bytes);
  QuantisedModel read;
  read.rest = SharedPackedModel(model_.config.spec, model_.weights, Element::kF32, PackedParts::kAllButProducts);
  EXPECT_TRUE(ReadPackedFile(File(), options_.identity, &read).ok()) << "and stored again";
}

TEST_F(Int8Model, WorksWhereNothingCanBeStored) {
  options_.directory = directory_.path() + "/no/such/folder";
  EXPECT_TRUE(Load().ok());
  options_.directory.clear();
  options_.identity = std::string(64, 'd');
  EXPECT_TRUE(Load().ok());
}

// Weights of a file that were computed by another set of kernels are measured anew, and the result counts.
TEST_F(Int8Model, WeightsThatLoseTooMuchAreRefusedUnlessThatIsAccepted) {
  auto damaged = QuantiseTinyModel(model_);
  QuantisedLinear& linear = damaged->layers[0][static_cast<size_t>(LinearRole::kFfnOut)];
  for (size_t i = 0; i < linear.depth * linear.columns; i += 2) linear.weights.As<int8_t>()[i] = 100;
  damaged->quality.kernels = "another set";
  damaged->quality.cosine_min = 1;
  ASSERT_TRUE(WritePackedFile(File(), options_.identity, *damaged).ok());
  options_.cosine_min = kInt8CosineMin;
  const auto refused = Load();
  ASSERT_EQ(refused.code(), StatusCode::kModelError);
  for (const char* part : {"smallest cosine", "below --int8-cosine-min 0.999", "--precision bf16"}) {
    EXPECT_NE(refused.status().message().find(part), std::string::npos) << refused.status().message();
  }
  options_.cosine_min = 0;
  const auto accepted = Load();
  ASSERT_TRUE(accepted.ok()) << accepted.status().message();
  EXPECT_LT(accepted.value()->quality.cosine_min, 0.999);
}

TEST_F(Int8Model, TheStoredQualityIsEnoughToRefuse) {
  auto stored = QuantiseTinyModel(model_);
  stored->quality = {.kernels = PortableKernels(Element::kF32)->name, .cosine_min = 0.5, .texts = 60, .text = "'no.'"};
  ASSERT_TRUE(WritePackedFile(File(), options_.identity, *stored).ok());
  options_.cosine_min = 0.9;
  const auto refused = Load();
  ASSERT_EQ(refused.code(), StatusCode::kModelError);
  EXPECT_NE(refused.status().message().find("0.50000"), std::string::npos) << refused.status().message();
  EXPECT_NE(refused.status().message().find("'no.'"), std::string::npos) << refused.status().message();

  stored->quality.cosine_min = -0.25;  // the opposite direction
  ASSERT_TRUE(WritePackedFile(File(), options_.identity, *stored).ok());
  options_.cosine_min = 0;
  EXPECT_TRUE(Load().ok()) << "0 accepts anything";
}

}  // namespace
}  // namespace sutra::cpu
