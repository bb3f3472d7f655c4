// A batch that fails is computed again by another encoder, once, and only then refused.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/packed_model.h"
#include "engine/model/encoder_backend.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

constexpr int32_t kBadId = 7;

// The portable kernels, except that a batch with kBadId fails as asked.
class Faulty final : public Encoder {
 public:
  Faulty(std::unique_ptr<Encoder> inner, StatusCode code) : inner_(std::move(inner)), code_(code) {}
  const char* name() const override { return "faulty"; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override {
    Status status = inner_->Encode(batch, outputs);
    for (const int32_t id : batch.ids) {
      if (id != kBadId) continue;
      if (code_ != StatusCode::kOk) return Status(code_, "faulty");
      outputs[0][0] = NAN;
    }
    return status;
  }

 private:
  std::unique_ptr<Encoder> inner_;
  const StatusCode code_;
};

class EncoderFallback : public testing::Test {
 protected:
  void SetUp() override { folder_.Save(); }

  std::unique_ptr<Encoder> Portable(const LoadedModel& model) {
    auto packed = cpu::SharedPackedModel(model.config.spec, model.weights, cpu::Element::kF32);
    auto pass = std::make_shared<cpu::FloatPass>(std::move(packed), *cpu::PortableKernels(cpu::Element::kF32));
    return std::make_unique<cpu::CpuEncoder>(std::move(pass), 1);
  }
  std::unique_ptr<ModelBackend> Make(StatusCode code, EncoderBackend::MakeFallback fallback) {
    LoadedModel model = LoadModel(folder_.path()).value();
    auto encoder = std::make_unique<Faulty>(Portable(model), code);
    return EncoderBackend::Make(std::move(model), std::move(encoder), "bf16", "cpu", std::move(fallback)).value();
  }
  EncoderBackend::MakeFallback Counted() {
    return [this]() -> Result<std::unique_ptr<Encoder>> {
      ++made_;
      return Portable(LoadModel(folder_.path()).value());
    };
  }
  static Status Embed(ModelBackend& backend, const std::vector<int32_t>& ids, std::vector<float>* vector) {
    vector->assign(backend.info().width, 0.0F);
    const int32_t offsets[] = {0, static_cast<int32_t>(ids.size())};
    float* const outputs[] = {vector->data()};
    return backend.Embed({ids, offsets}, outputs);
  }

  TinyModel folder_;
  int made_ = 0;
};

TEST_F(EncoderFallback, ABatchThatFailsIsComputedAgainByAFallbackThatIsMadeOnce) {
  const LoadedModel model = LoadModel(folder_.path()).value();
  std::vector<float> expected(model.config.spec.hidden);
  const int32_t ids[] = {2, kBadId, 3};
  const int32_t offsets[] = {0, 3};
  float* const outputs[] = {expected.data()};
  ASSERT_TRUE(Portable(model)->Encode({ids, offsets}, outputs).ok());
  for (const StatusCode code : {StatusCode::kOk, StatusCode::kModelError}) {
    made_ = 0;
    auto backend = Make(code, Counted());
    std::vector<float> vector;
    ASSERT_TRUE(Embed(*backend, {2, 4, 3}, &vector).ok());
    EXPECT_EQ(made_, 0) << "nothing is made before it is needed";
    for (uint64_t retries = 1; retries <= 3; ++retries) {
      const Status status = Embed(*backend, {2, kBadId, 3}, &vector);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(vector, expected);
      EXPECT_EQ(backend->retries(), retries);
    }
    EXPECT_EQ(made_, 1);
  }
}

TEST_F(EncoderFallback, ABatchThatFailsTwiceIsRefused) {
  auto backend = Make(StatusCode::kOk, [this]() -> Result<std::unique_ptr<Encoder>> {
    return std::unique_ptr<Encoder>(
        std::make_unique<Faulty>(Portable(LoadModel(folder_.path()).value()), StatusCode::kOk));
  });
  std::vector<float> vector;
  EXPECT_EQ(Embed(*backend, {kBadId}, &vector).code(), StatusCode::kModelError);
  EXPECT_EQ(backend->retries(), 1U);
}

TEST_F(EncoderFallback, WhereNoneCanBeMadeTheFirstFailureStandsAndNoneIsTriedForAWhile) {
  auto backend = Make(StatusCode::kModelError, [this]() -> Result<std::unique_ptr<Encoder>> {
    ++made_;
    return Status(StatusCode::kModelError, "the folder is gone");
  });
  std::vector<float> vector;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Embed(*backend, {kBadId}, &vector).message(), "faulty");
  EXPECT_EQ(made_, 1);
  EXPECT_EQ(backend->retries(), 0U);
  EXPECT_TRUE(Embed(*backend, {4}, &vector).ok());
}

// A device that is lost, or memory that is short, does not get better by more work; nor does a batch out of contract.
TEST_F(EncoderFallback, OnlyAFailureOfTheModelIsRetried) {
  std::vector<float> vector;
  for (const StatusCode code : {StatusCode::kOutOfMemory, StatusCode::kEngineGone}) {
    auto backend = Make(code, Counted());
    EXPECT_EQ(Embed(*backend, {kBadId}, &vector).code(), code);
    EXPECT_FALSE(Embed(*backend, {-1}, &vector).ok());
  }
  EXPECT_EQ(made_, 0);
}

}  // namespace
}  // namespace sutra
