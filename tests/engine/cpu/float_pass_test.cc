// Whole encoders of shapes that no kernel set computes without padding, against the definition in double.
#include "engine/cpu/float_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "engine/cpu/cpu_encoder.h"
#include "engine/model/loaded_model.h"
#include "tests/engine/cpu/kernel_tables.h"
#include "tests/kit/tiny_model.h"

namespace sutra::cpu {
namespace {

using Rows = std::vector<std::vector<double>>;

// A BERT with mean pooling, step by step, over the tensors of a TinyModel.
class PlainEncoder {
 public:
  PlainEncoder(TinyModel& model, const TinyModel::Shape& shape) : model_(model), shape_(shape) {}

  std::vector<double> Encode(const std::vector<int32_t>& ids) const {
    const size_t hidden = shape_.hidden;
    Rows x(ids.size(), std::vector<double>(hidden));
    for (size_t t = 0; t < ids.size(); ++t) {
      for (size_t i = 0; i < hidden; ++i) {
        x[t][i] = At("embeddings.word_embeddings.weight", static_cast<size_t>(ids[t]) * hidden + i) +
                  At("embeddings.position_embeddings.weight", t * hidden + i) +
                  At("embeddings.token_type_embeddings.weight", i);
      }
    }
    Normalize("embeddings.LayerNorm", &x);
    for (uint32_t index = 0; index < shape_.layers; ++index) {
      const std::string layer = "encoder.layer." + std::to_string(index) + ".";
      Add(Linear(layer + "attention.output.dense", Attend(layer + "attention.self.", x), hidden), &x);
      Normalize(layer + "attention.output.LayerNorm", &x);
      Rows inner = Linear(layer + "intermediate.dense", x, shape_.intermediate);
      for (auto& row : inner) {
        for (double& value : row) value = 0.5 * value * std::erfc(-value / std::numbers::sqrt2);
      }
      Add(Linear(layer + "output.dense", inner, hidden), &x);
      Normalize(layer + "output.LayerNorm", &x);
    }
    std::vector<double> mean(hidden);
    for (const auto& row : x) {
      for (size_t i = 0; i < hidden; ++i) mean[i] += row[i] / static_cast<double>(x.size());
    }
    return mean;
  }

 private:
  double At(const std::string& name, size_t i) const { return static_cast<double>(model_.tensors().at(name)[i]); }

  Rows Linear(const std::string& name, const Rows& x, size_t columns) const {
    const std::vector<float>& weight = model_.tensors().at(name + ".weight");
    Rows out(x.size(), std::vector<double>(columns));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t n = 0; n < columns; ++n) {
        out[t][n] = At(name + ".bias", n);
        for (size_t k = 0; k < x[t].size(); ++k) {
          out[t][n] += x[t][k] * static_cast<double>(weight[n * x[t].size() + k]);
        }
      }
    }
    return out;
  }

  Rows Attend(const std::string& name, const Rows& x) const {
    const size_t width = shape_.hidden / shape_.heads;
    const Rows q = Linear(name + "query", x, shape_.hidden);
    const Rows k = Linear(name + "key", x, shape_.hidden);
    const Rows v = Linear(name + "value", x, shape_.hidden);
    Rows context(x.size(), std::vector<double>(shape_.hidden));
    for (size_t begin = 0; begin < shape_.hidden; begin += width) {
      for (size_t t = 0; t < x.size(); ++t) {
        std::vector<double> weights(x.size());
        double total = 0;
        for (size_t other = 0; other < x.size(); ++other) {
          double score = 0;
          for (size_t i = begin; i < begin + width; ++i) score += q[t][i] * k[other][i];
          total += weights[other] = std::exp(score / std::sqrt(static_cast<double>(width)));
        }
        for (size_t other = 0; other < x.size(); ++other) {
          for (size_t i = begin; i < begin + width; ++i) context[t][i] += weights[other] / total * v[other][i];
        }
      }
    }
    return context;
  }

  static void Add(const Rows& more, Rows* x) {
    for (size_t t = 0; t < x->size(); ++t) {
      for (size_t i = 0; i < (*x)[t].size(); ++i) (*x)[t][i] += more[t][i];
    }
  }

  void Normalize(const std::string& name, Rows* x) const {
    for (auto& row : *x) {
      const auto width = static_cast<double>(row.size());
      double mean = 0;
      double variance = 0;
      for (const double value : row) mean += value / width;
      for (const double value : row) variance += (value - mean) * (value - mean) / width;
      for (size_t i = 0; i < row.size(); ++i) {
        row[i] = (row[i] - mean) / std::sqrt(variance + 1e-12) * At(name + ".weight", i) + At(name + ".bias", i);
      }
    }
  }

  TinyModel& model_;
  const TinyModel::Shape shape_;
};

class FloatPassOfOddShapes : public testing::TestWithParam<TinyModel::Shape> {};

// The texts are of several lengths and in one chunk, so that what a row leaves in the padding meets another text.
TEST_P(FloatPassOfOddShapes, EverySetGivesTheVectorsOfTheDefinition) {
  TinyModel model(GetParam());
  model.Save();
  const Result<LoadedModel> loaded = LoadModel(model.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const PlainEncoder plain(model, GetParam());
  std::mt19937 random(17);
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};
  std::vector<std::vector<double>> expected;
  for (const size_t length : {1, 2, 5, 13, 32}) {
    std::vector<int32_t> text(length);
    for (int32_t& id : text) id = static_cast<int32_t>(random() % TinyModel::kVocabulary);
    text.back() = TinyModel::kVocabulary - 1;  // the end of the table
    expected.push_back(plain.Encode(text));
    ids.insert(ids.end(), text.begin(), text.end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  for (const KernelTable* table : KernelTables()) {
    auto packed = SharedPackedModel(loaded->config.spec, loaded->weights, table->element);
    for (const int threads : {1, 2}) {  // whole texts, and columns shared by two
      CpuEncoder encoder(std::make_shared<FloatPass>(packed, *table), threads);
      for (int twice = 0; twice < 2; ++twice) {  // in buffers that are fresh, and that are not
        std::vector<std::unique_ptr<GuardedArray<float>>> vectors;
        std::vector<float*> outputs;
        for (size_t i = 0; i < expected.size(); ++i) {
          vectors.push_back(std::make_unique<GuardedArray<float>>(GetParam().hidden));
          outputs.push_back(vectors.back()->data());
        }
        ASSERT_TRUE(encoder.Encode({ids, offsets}, outputs).ok());
        for (size_t i = 0; i < expected.size(); ++i) {
          for (size_t n = 0; n < expected[i].size(); ++n) {
            ASSERT_NEAR(static_cast<double>(outputs[i][n]), expected[i][n],
                        table->element == Element::kF32 ? 2e-5 : 0.05)
                << table->name << " text " << i << " column " << n;
          }
        }
      }
    }
  }
}

constexpr TinyModel::Shape kOddShapes[] = {
    {.hidden = 30, .heads = 3, .intermediate = 77},     // nothing is a multiple of anything
    {.hidden = 100, .heads = 4, .intermediate = 1000},  // heads of 25
    {.hidden = 312, .heads = 12, .intermediate = 1200},
    {.hidden = 48, .heads = 3, .intermediate = 65},   // of 16
    {.hidden = 144, .heads = 3, .intermediate = 64},  // of 48
    {.hidden = 96, .heads = 1, .intermediate = 130},
    {.hidden = 256, .heads = 2, .intermediate = 512},
    {.hidden = 7, .heads = 7, .intermediate = 3},
    {.hidden = 512, .heads = 8, .intermediate = 576},  // rows of 2 KiB
};

INSTANTIATE_TEST_SUITE_P(Shapes, FloatPassOfOddShapes, testing::ValuesIn(kOddShapes),
                         [](const testing::TestParamInfo<TinyModel::Shape>& param) {
                           return std::to_string(param.param.hidden) + "x" + std::to_string(param.param.heads) + "x" +
                                  std::to_string(param.param.intermediate);
                         });

// What a set may fetch ahead is what the next product reads, in the order in which one thread computes them. The inner
// width has several slices.
TEST(FloatPass, EachProductNamesTheWeightsOfTheNext) {
  TinyModel model({.hidden = 64, .heads = 2, .intermediate = 1200});
  model.Save();
  const Result<LoadedModel> loaded = LoadModel(model.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  static std::vector<GemmCall> calls;
  calls.clear();
  KernelTable table = *PortableKernels(Element::kF32);
  table.gemm = [](const GemmCall& call) {
    calls.push_back(call);
    PortableKernels(Element::kF32)->gemm(call);
  };
  auto packed = SharedPackedModel(loaded->config.spec, loaded->weights, Element::kF32);
  CpuEncoder encoder(std::make_shared<FloatPass>(packed, table), 1);
  std::vector<float> vector(64);
  float* outputs[] = {vector.data()};
  const std::vector<int32_t> ids = {3, 4, 5}, offsets = {0, 3};
  ASSERT_TRUE(encoder.Encode({ids, offsets}, outputs).ok());
  ASSERT_GT(calls.size(), 4U);
  for (size_t i = 0; i + 1 < calls.size(); ++i) {
    const GemmCall& next = calls[i + 1];
    const size_t panel_bytes = next.depth * kPanelColumns * sizeof(float);
    EXPECT_EQ(calls[i].next.begin, static_cast<const char*>(next.b) + next.panel_begin * panel_bytes) << i;
    EXPECT_EQ(calls[i].next.panels, next.panel_end - next.panel_begin) << i;
    EXPECT_EQ(calls[i].next.panel_bytes, panel_bytes) << i;
    EXPECT_EQ(calls[i].next.panel_stride, panel_bytes) << i;
  }
  EXPECT_EQ(calls.back().next.begin, nullptr);
}

}  // namespace
}  // namespace sutra::cpu
