// The reference is what the portable kernels compute, and the canary sees an encoder that differs.
#include "engine/cpu/canary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/reference_forward.h"
#include "tests/kit/tiny_model.h"

namespace sutra::cpu {
namespace {

LoadedModel Load(const TinyModel& folder) {
  Result<LoadedModel> model = LoadModel(folder.path());
  EXPECT_TRUE(model.ok()) << model.status().message();
  return std::move(model).value();
}

std::unique_ptr<Encoder> Portable(const LoadedModel& model, Element element = Element::kF32) {
  auto packed = SharedPackedModel(model.config.spec, model.weights, element);
  return std::make_unique<CpuEncoder>(std::make_shared<FloatPass>(std::move(packed), *PortableKernels(element)), 1);
}

// Another encoder's vectors, changed.
class Changed final : public Encoder {
 public:
  Changed(std::unique_ptr<Encoder> inner, float factor) : inner_(std::move(inner)), factor_(factor) {}
  const char* name() const override { return "changed"; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override {
    const Status status = inner_->Encode(batch, outputs);
    for (float* output : outputs) output[3] = (output[3] + 1) * factor_;
    return status;
  }

 private:
  std::unique_ptr<Encoder> inner_;
  const float factor_;
};

TEST(ReferenceForward, IsWhatThePortableKernelsCompute) {
  for (const char* activation : {"gelu", "gelu_new"}) {
    for (const char* pooling : {R"({"pooling_mode_mean_tokens": true})", R"({"pooling_mode_cls_token": true})"}) {
      for (const TinyModel::Shape& shape : {TinyModel::Shape{}, TinyModel::Shape{30, 3, 77, 2, 40}}) {
        TinyModel folder(shape);
        folder.config()["hidden_act"] = activation;
        folder.Save();
        folder.directory().Write("1_Pooling/config.json", pooling);
        const LoadedModel model = Load(folder);
        const std::vector<int32_t> ids = {2, 4, 5, 11, 0, 7, 3};
        const int32_t offsets[] = {0, static_cast<int32_t>(ids.size())};
        std::vector<float> expected(model.config.spec.hidden);
        float* const outputs[] = {expected.data()};
        ASSERT_TRUE(Portable(model)->Encode({ids, offsets}, outputs).ok());
        const std::vector<float> vector = ReferenceForward(model.config.spec, model.weights, ids);
        ASSERT_EQ(vector.size(), expected.size());
        for (size_t i = 0; i < vector.size(); ++i) EXPECT_NEAR(vector[i], expected[i], 1e-5) << activation << pooling;
      }
    }
  }
}

TEST(Canary, AgreesWithThePortableKernelsOfBothPrecisions) {
  TinyModel folder;
  for (const char* type : {"F32", "F16", "BF16"}) {
    folder.Save(type);
    const LoadedModel model = Load(folder);
    Canary canary(model);
    EXPECT_GE(canary.Cosine(*Portable(model)).value(), CanaryCosineMin(Precision::kF32)) << type;
    EXPECT_GE(canary.Cosine(*Portable(model, Element::kBf16)).value(), CanaryCosineMin(Precision::kBf16)) << type;
  }
}

TEST(Canary, SeesAChangedVectorAndOneThatIsNotFinite) {
  TinyModel folder;
  folder.Save();
  const LoadedModel model = Load(folder);
  Canary canary(model);
  Changed changed(Portable(model), 3.0F);
  EXPECT_LT(canary.Cosine(changed).value(), CanaryCosineMin(Precision::kBf16));
  Changed broken(Portable(model), std::numeric_limits<float>::infinity());
  EXPECT_EQ(canary.Cosine(broken).value(), 0);
}

// Then the weights are at fault, which whoever checks vectors says better.
TEST(Canary, SaysNothingWhereTheReferenceIsNotFinite) {
  TinyModel folder;
  folder.tensors()["encoder.layer.0.output.dense.bias"][0] = INFINITY;
  folder.Save();
  const LoadedModel model = Load(folder);
  EXPECT_EQ(Canary(model).Cosine(*Portable(model)).value(), 1);
}

}  // namespace
}  // namespace sutra::cpu
