// How batches become chunks, over a pass that only remembers what it was given; whole models are in
// tests/engine/model/encoder_backend_test.cc.
#include "engine/cpu/cpu_encoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "shm/base/mutex.h"

namespace sutra::cpu {
namespace {

// A text's vector is the sum of its ids and their number.
class RememberingPass final : public ForwardPass {
 public:
  struct Run {
    size_t rows = 0;
    bool shared = false;
  };

  explicit RememberingPass(uint32_t tokens_max) { spec_.hidden = 64, spec_.tokens_max = tokens_max; }
  const EncoderSpec& spec() const override { return spec_; }
  const KernelTable& kernels() const override { return *PortableKernels(Element::kF32); }
  size_t steps() const override { return 1; }
  Workspace MakeWorkspace(size_t rows_max) const override {
    rows_max_ = rows_max;
    return {};
  }
  void Run(const ChunkOfTexts& chunk, const Workspace&, Steps& steps) const override {
    steps.Step(chunk.texts(), [&](size_t begin, size_t end) {
      for (size_t text = begin; text < end; ++text) {
        const int32_t* ids = chunk.ids + chunk.row(text);
        chunk.outputs[text][0] = static_cast<float>(std::accumulate(ids, ids + chunk.tokens(text), 0));
        chunk.outputs[text][1] = static_cast<float>(chunk.tokens(text));
      }
    });
    if (!steps.leads()) return;
    const MutexLock lock(mutex_);
    runs_.push_back({chunk.rows(), steps.shared()});
  }

  std::vector<struct Run> TakeRuns() const {
    const MutexLock lock(mutex_);
    return std::exchange(runs_, {});
  }
  size_t rows_max() const { return rows_max_; }

 private:
  EncoderSpec spec_;
  mutable size_t rows_max_ = 0;
  mutable Mutex mutex_;
  mutable std::vector<struct Run> runs_ SUTRA_GUARDED_BY(mutex_);
};

class CpuEncoderTest : public testing::Test {
 protected:
  // Encodes texts of these lengths, checks their vectors, and returns the chunks.
  std::vector<struct RememberingPass::Run> Encode(CpuEncoder& encoder, const std::vector<size_t>& lengths) {
    std::vector<int32_t> ids;
    std::vector<int32_t> offsets = {0};
    std::vector<std::vector<float>> vectors(lengths.size(), std::vector<float>(2));
    std::vector<float*> outputs;
    for (size_t i = 0; i < lengths.size(); ++i) {
      ids.insert(ids.end(), lengths[i], static_cast<int32_t>(i + 1));
      offsets.push_back(static_cast<int32_t>(ids.size()));
      outputs.push_back(vectors[i].data());
    }
    EXPECT_TRUE(encoder.Encode({ids, offsets}, outputs).ok());
    for (size_t i = 0; i < lengths.size(); ++i) {
      EXPECT_EQ(vectors[i][0], static_cast<float>((i + 1) * lengths[i])) << i;
      EXPECT_EQ(vectors[i][1], static_cast<float>(lengths[i])) << i;
    }
    const auto runs = pass_->TakeRuns();
    size_t rows = 0;
    for (const auto& run : runs) {
      EXPECT_LE(run.rows, pass_->rows_max());
      rows += run.rows;
    }
    EXPECT_EQ(rows, ids.size());
    return runs;
  }

  std::shared_ptr<RememberingPass> pass_ = std::make_shared<RememberingPass>(256);
};

TEST_F(CpuEncoderTest, MembersGetAsManyEquallyLargeChunks) {
  for (const int threads : {1, 2, 3}) {
    CpuEncoder encoder(pass_, threads);
    std::mt19937 random(23);
    for (int round = 0; round < 20; ++round) {
      std::vector<size_t> lengths(200 + random() % 200);
      for (size_t& length : lengths) length = 1 + random() % 48;
      const auto runs = Encode(encoder, lengths);
      EXPECT_EQ(runs.size() % static_cast<size_t>(threads), 0U);
      const auto [least, most] =
          std::minmax_element(runs.begin(), runs.end(), [](const auto& a, const auto& b) { return a.rows < b.rows; });
      EXPECT_FALSE(most->shared);
      EXPECT_LE(most->rows - least->rows, 12U) << "the texts dealt last are short";
    }
  }
}

TEST_F(CpuEncoderTest, AShortTextAndAnUnevenBatchAreComputedTogether) {
  CpuEncoder encoder(pass_, 2);
  for (const std::vector<size_t>& lengths : {std::vector<size_t>{10}, {10, 10}, {256, 5, 9}}) {
    const auto runs = Encode(encoder, lengths);
    ASSERT_FALSE(runs.empty());
    EXPECT_TRUE(std::all_of(runs.begin(), runs.end(), [](const auto& run) { return run.shared; }));
  }
  CpuEncoder alone(pass_, 1);
  EXPECT_FALSE(Encode(alone, {10})[0].shared);
}

TEST_F(CpuEncoderTest, TextsThatFillNoChunkEvenlyGetMoreOfThem) {
  CpuEncoder encoder(pass_, 1);
  for (size_t count = 1; count < 12; ++count) Encode(encoder, std::vector<size_t>(count, 150));
}

TEST_F(CpuEncoderTest, ARoundIsAChunkForEachThread) {
  const size_t one = CpuEncoder(pass_, 1).round_tokens();
  EXPECT_GE(one, pass_->kernels().chunk_tokens);
  EXPECT_EQ(CpuEncoder(pass_, 3).round_tokens(), 3 * one);
}

TEST(ChunkTokens, FollowsTheCachesWithinWhatTheKernelsAskFor) {
  EncoderSpec spec;
  spec.hidden = 256;
  KernelTable kernels = *PortableKernels(Element::kBf16);
  kernels.chunk_tokens = 192;
  const CacheSizes middle = {.l2_bytes = 1U << 20, .l3_share_bytes = 2U << 20};
  EXPECT_EQ(ChunkTokens(kernels, spec, middle), 192U);
  kernels.chunk_tokens_max = 768;
  EXPECT_EQ(ChunkTokens(kernels, spec, middle), 1'572'864U / (256 * 14) / 64 * 64);
  EXPECT_EQ(ChunkTokens(kernels, spec, {.l2_bytes = 1U << 20, .l3_share_bytes = 16U << 20}), 768U);
  EXPECT_EQ(ChunkTokens(kernels, spec, {.l2_bytes = 256U << 10, .l3_share_bytes = 1U << 20}), 192U);
}

}  // namespace
}  // namespace sutra::cpu
