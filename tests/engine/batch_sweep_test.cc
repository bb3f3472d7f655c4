// Memory that runs out at each allocation of a batch in turn, on the caller's thread and on helpers: the batch fails
// with "out of memory" or is computed, and the next one gives the same vectors as ever.
#include <gtest/gtest.h>

#include <vector>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/int8/int8_pass.h"
#include "engine/model/encoder_backend.h"
#include "tests/engine/cpu/int8/quantised_tiny_model.h"
#include "tests/kit/failing_new.h"

namespace sutra::cpu {
namespace {

using test::FailingNew;
using Vectors = std::vector<std::vector<float>>;

class BatchSweep : public testing::TestWithParam<int> {};

TEST_P(BatchSweep, AnInt8BatchIsComputedOrOutOfMemoryAndTheNextOneIsAsEver) {
  LoadedModel model = LoadTinyModel({});
  const auto quantised = QuantiseTinyModel(model);
  const TokenTexts texts = SomeTexts(model, 20);  // of one to 22 tokens, so that a pass arranges them
  const uint32_t width = model.config.spec.hidden;
  auto pass = std::make_shared<Int8Pass>(quantised, *PortableKernels(Element::kF32));
  const Result<std::unique_ptr<EncoderBackend>> backend =
      EncoderBackend::Make(std::move(model), std::make_unique<CpuEncoder>(std::move(pass), GetParam()), "int8", "cpu");
  ASSERT_TRUE(backend.ok()) << backend.status().message();

  Vectors vectors(texts.size(), std::vector<float>(width));
  std::vector<float*> outputs;
  for (std::vector<float>& vector : vectors) outputs.push_back(vector.data());
  ASSERT_TRUE((*backend)->Embed(texts.batch(), outputs).ok());
  const Vectors expected = vectors;

  uint64_t refused = 0;
  bool failed = true;
  for (uint64_t nth = 1; failed; ++nth) {
    ASSERT_LT(nth, 10'000U);
    Status status;
    {
      FailingNew memory(nth, FailingNew::Whose::kAllThreads);
      status = (*backend)->Embed(texts.batch(), outputs);
      failed = memory.failed();
    }
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kOutOfMemory) << nth << ": " << status.message();
    refused += status.ok() ? 0 : 1;
    for (std::vector<float>& vector : vectors) vector.assign(width, 0);
    ASSERT_TRUE((*backend)->Embed(texts.batch(), outputs).ok()) << nth;
    EXPECT_EQ(vectors, expected) << nth;
  }
  EXPECT_GT(refused, 0U);  // the canary: memory did run out
}

INSTANTIATE_TEST_SUITE_P(Threads, BatchSweep, testing::Values(1, 3));

}  // namespace
}  // namespace sutra::cpu
