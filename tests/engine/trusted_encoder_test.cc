// Kernel sets that compute something else than plain fp32 are passed over at load, or refused.
#include "engine/trusted_encoder.h"

#include <gtest/gtest.h>

#include <utility>

#include "tests/engine/cpu/int8/quantised_tiny_model.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

const cpu::KernelTable& Good() { return *cpu::PortableKernels(cpu::Element::kF32); }

// Passes no trial of its own; here it stands for a set that fails on real weights only.
const cpu::KernelTable& Lying() {
  static const cpu::KernelTable table = [] {
    cpu::KernelTable lying = Good();
    lying.name = "lying";
    lying.mean = [](const cpu::MeanCall& call) {
      Good().mean(call);
      call.out[0] = 100 - call.out[0];
    };
    return lying;
  }();
  return table;
}

class TrustedEncoderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_.Save();
    Result<LoadedModel> loaded = LoadModel(folder_.path());
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    model_ = std::make_unique<LoadedModel>(std::move(loaded).value());
  }
  TinyModel folder_;
  std::unique_ptr<LoadedModel> model_;
};

TEST_F(TrustedEncoderTest, TheFirstSetIsTakenWhereItAgrees) {
  const cpu::KernelChoice choices[] = {{Precision::kBf16, cpu::PortableKernels(cpu::Element::kBf16)},
                                       {Precision::kF32, &Good()}};
  const Result<TrustedEncoders> made = FirstTrusted(*model_, choices, {{.threads = 1}});
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ(made->precision, Precision::kBf16);
  EXPECT_STREQ(made->encoders.front()->name(), "portable_bf16");
}

TEST_F(TrustedEncoderTest, ALyingSetIsPassedOverWithAWarning) {
  const cpu::KernelChoice choices[] = {{Precision::kBf16, &Lying()}, {Precision::kF32, &Good()}};
  testing::internal::CaptureStdout();
  const Result<TrustedEncoders> made = FirstTrusted(*model_, choices, {{.threads = 2}});
  const std::string log = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ(made->precision, Precision::kF32);
  EXPECT_STREQ(made->encoders.front()->name(), "portable");
  EXPECT_NE(log.find("lying"), std::string::npos) << log;
}

TEST_F(TrustedEncoderTest, WhereNoneIsLeftTheModelIsRefusedWithTheFix) {
  const cpu::KernelChoice choices[] = {{Precision::kF32, &Lying()}};
  const Status status = FirstTrusted(*model_, choices, {{.threads = 1}}).status();
  EXPECT_EQ(status.code(), StatusCode::kModelError);
  for (const char* part : {"lying", "0.9999", "--precision"}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

// The weights have proved their quality, but perhaps on another CPU.
TEST_F(TrustedEncoderTest, Int8ThatIsFarFromFp32IsRefusedUnlessThatIsAccepted) {
  auto quantised = cpu::QuantiseTinyModel(*model_);
  EXPECT_EQ(TrustedInt8(*model_, quantised, Good(), 0.99, {{.threads = 1}})->precision, Precision::kInt8);
  const cpu::QuantisedLinear& linear = quantised->layers[0][static_cast<size_t>(cpu::LinearRole::kFfnOut)];
  for (size_t n = 0; n < linear.columns; n += 2) linear.scale.As<float>()[n] *= 9;
  const Status refused = TrustedInt8(*model_, quantised, Good(), kInt8CosineMin, {{.threads = 1}}).status();
  EXPECT_EQ(refused.code(), StatusCode::kModelError);
  EXPECT_NE(refused.message().find("int8 needs 0.999"), std::string::npos) << refused.message();
  EXPECT_TRUE(TrustedInt8(*model_, quantised, Good(), 0, {{.threads = 1}}).ok());
}

TEST_F(TrustedEncoderTest, TheFallbackIsFp32AndOfAnotherSetWhereFp32WasFirst) {
  const auto make = [this](Precision first) {
    return MakeFallbackEncoder(folder_.path(), ServedWeights::Of(*model_), first, {.threads = 1}, CpuIsa::kAuto);
  };
  const auto after_fp32 = make(Precision::kF32);
  ASSERT_TRUE(after_fp32.ok()) << after_fp32.status().message();
  EXPECT_STREQ((*after_fp32)->name(), "portable");
  const auto after_bf16 = make(Precision::kBf16);
  ASSERT_TRUE(after_bf16.ok()) << after_bf16.status().message();
  EXPECT_STREQ((*after_bf16)->name(), cpu::ChooseKernels(Precision::kF32).value().front().kernels->name);
}

TEST_F(TrustedEncoderTest, OtherWeightsInTheFolderAreNoFallback) {
  folder_.tensors()["embeddings.LayerNorm.bias"][0] += 1;
  folder_.Save();
  const Status status =
      MakeFallbackEncoder(folder_.path(), ServedWeights::Of(*model_), Precision::kBf16, {.threads = 1}, CpuIsa::kAuto)
          .status();
  EXPECT_NE(status.message().find("restart the engine"), std::string::npos) << status.message();
}

// The tensors fit any number of heads: the weights alone would not tell that the fallback computes another model.
TEST_F(TrustedEncoderTest, OtherSettingsInTheFolderAreNoFallback) {
  for (const auto& [key, value] :
       {std::pair("num_attention_heads", nlohmann::json(1)), std::pair("layer_norm_eps", nlohmann::json(0.5)),
        std::pair("hidden_act", nlohmann::json("gelu_new"))}) {
    const nlohmann::json before = std::exchange(folder_.config()[key], value);
    folder_.Save();
    const Status status =
        MakeFallbackEncoder(folder_.path(), ServedWeights::Of(*model_), Precision::kBf16, {.threads = 1}, CpuIsa::kAuto)
            .status();
    EXPECT_NE(status.message().find("restart the engine"), std::string::npos) << key << ": " << status.message();
    folder_.config()[key] = before;
  }
}

}  // namespace
}  // namespace sutra
