// The int8 pass over whole models: what a vector depends on, how near it is to fp32, and what becomes of broken inputs.
#include "engine/cpu/int8/int8_pass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <random>
#include <stdexcept>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "tests/engine/cpu/amx_emulation.h"
#include "tests/engine/cpu/int8/round_model.h"
#include "tests/kit/by_build.h"
#include "tests/kit/real_model.h"
#include "tests/kit/tiny_model.h"

namespace sutra::cpu {
namespace {

using Texts = std::vector<std::vector<int32_t>>;

struct Batch {
  explicit Batch(const Texts& texts) {
    for (const auto& text : texts) {
      ids.insert(ids.end(), text.begin(), text.end());
      offsets.push_back(static_cast<int32_t>(ids.size()));
    }
  }
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};
};

std::vector<std::vector<float>> Encode(const std::shared_ptr<const ForwardPass>& pass, const Texts& texts,
                                       int threads = 1) {
  CpuEncoder encoder(pass, threads);
  const Batch batch(texts);
  std::vector<std::vector<float>> vectors(texts.size(), std::vector<float>(pass->spec().hidden));
  std::vector<float*> outputs;
  for (auto& vector : vectors) outputs.push_back(vector.data());
  EXPECT_TRUE(encoder.Encode({batch.ids, batch.offsets}, outputs).ok());
  return vectors;
}

Texts RandomTexts(size_t count, uint32_t length_max, uint32_t vocabulary, uint32_t seed = 17) {
  std::mt19937 random(seed);
  Texts texts;
  for (size_t i = 0; i < count; ++i) {
    // Half of them are around the length where rows have a second term.
    std::vector<int32_t> text(1 + random() % (i % 2 == 0 ? length_max : kTwoTermTokensMax + 2));
    for (int32_t& id : text) id = static_cast<int32_t>(random() % vocabulary);
    texts.push_back(text);
  }
  return texts;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double dot = 0;
  double a_square = 0;
  double b_square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    a_square += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    b_square += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return dot / std::sqrt(a_square * b_square);
}

std::vector<const KernelTable*> Tables() {
  const Features& features = DetectFeatures();
  std::vector<const KernelTable*> tables = {PortableKernels(Element::kF32), PortableKernels(Element::kBf16)};
  const auto add = [&](bool present, const KernelTable* table) {
    if (present && table != nullptr) tables.push_back(table);
  };
  add(features.avx_vnni, AvxVnniKernels());
  add(features.avx512_vnni, Avx512VnniKernels());
  add(features.avx512_vnni && features.avx512_bf16, Avx512VnniBf16Kernels());
  add(features.avx512_vnni && features.avx512_bf16, EmulatedAmxInt8Kernels());
  add(features.amx_int8, AmxInt8Kernels());
  return tables;
}

// One model in int8 for both kinds of element, and the fp32 pass to compare with.
class Passes {
 public:
  Passes(const std::string& path, const Texts& calibration) : model_(LoadModel(path)) {
    if (!model_.ok()) throw std::runtime_error(model_.status().message());
    const Batch batch(calibration);
    std::vector<std::vector<float>> vectors(calibration.size(), std::vector<float>(model_->config.spec.hidden));
    std::vector<float*> outputs;
    for (auto& vector : vectors) outputs.push_back(vector.data());
    const ChunkOfTexts texts{batch.ids.data(), batch.offsets, outputs};
    for (const Element element : {Element::kF32, Element::kBf16}) {
      rounded_[element == Element::kF32 ? 0 : 1] = RoundModel(*model_, element, texts);
    }
  }

  std::shared_ptr<const ForwardPass> Int8(const KernelTable& kernels) const {
    return std::make_shared<Int8Pass>(rounded_[kernels.element == Element::kF32 ? 0 : 1], kernels);
  }
  std::shared_ptr<const ForwardPass> Float(const KernelTable& kernels) const {
    auto packed = SharedPackedModel(model_->config.spec, model_->weights, kernels.element);
    return std::make_shared<FloatPass>(std::move(packed), kernels);
  }

 private:
  Result<LoadedModel> model_;
  std::shared_ptr<const QuantisedModel> rounded_[2];
};

// Inner widths of two and of four blocks; hidden widths of one block and of two.
const TinyModel::Shape kShapes[] = {
    {.hidden = 64, .heads = 2, .intermediate = 128, .layers = 2, .positions = 40},
    {.hidden = 128, .heads = 2, .intermediate = 512, .layers = 2, .positions = 40},
    {.hidden = 192, .heads = 3, .intermediate = 768, .layers = 2, .positions = 40},
    {.hidden = 100, .heads = 4, .intermediate = 200, .layers = 2, .positions = 40},  // all of it padded
};

TEST(Int8Pass, VectorsDoNotDependOnTheBatchOrTheThreads) {
  for (const TinyModel::Shape& shape : kShapes) {
    TinyModel model(shape);
    model.Save();
    const Passes passes(model.path(), RandomTexts(30, 30, TinyModel::kVocabulary, 3));
    const Texts texts = RandomTexts(test::ByBuild(60, 12, 12), 32, TinyModel::kVocabulary);
    for (const KernelTable* table : Tables()) {
      const auto pass = passes.Int8(*table);
      const auto together = Encode(pass, texts);
      for (const int threads : {2, 3}) {
        EXPECT_EQ(Encode(pass, texts, threads), together) << table->name << " with " << threads << " threads";
      }
      const Texts few = {Texts::value_type(20, 5), {3, 4, 5}};  // rows of one and of two terms, computed together
      EXPECT_EQ(Encode(pass, few, 2), Encode(pass, few)) << table->name;
      for (size_t i = 0; i < texts.size(); i += 5) {
        EXPECT_EQ(Encode(pass, {texts[i]})[0], together[i]) << table->name << " text " << i;
        EXPECT_EQ(Encode(pass, {texts[i]}, 2)[0], together[i]) << table->name << " text " << i << " shared";
      }
    }
  }
}

// Takes the first row where a mean was asked for: the whole computation, then the first row of it.
KernelTable WithFirstRowAsMean(const KernelTable& table) {
  static const KernelTable* real;
  real = &table;
  KernelTable first = table;
  first.mean = [](const MeanCall& call) {
    MeanCall one = call;
    one.rows = 1;
    real->mean(one);
  };
  return first;
}

TEST(Int8Pass, ClsPoolingGivesExactlyTheFirstRowOfTheWholeComputation) {
  for (const TinyModel::Shape& shape : {kShapes[1], kShapes[3]}) {
    TinyModel model(shape);
    model.Save();
    const Texts calibration = RandomTexts(30, 30, TinyModel::kVocabulary, 3);
    const Passes mean(model.path(), calibration);
    model.directory().Write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
    const Passes cls(model.path(), calibration);
    const Texts both = RandomTexts(test::ByBuild(60, 12, 12), 32, TinyModel::kVocabulary);
    const Texts shorts = RandomTexts(20, 5, TinyModel::kVocabulary), longs = {both[0], Texts::value_type(32, 7)};
    for (const KernelTable* table : Tables()) {
      const KernelTable whole_table = WithFirstRowAsMean(*table);
      for (const Texts& texts : {both, shorts, longs}) {
        const auto whole = Encode(mean.Int8(whole_table), texts);
        for (const int threads : {1, 2, 3}) {
          EXPECT_EQ(Encode(cls.Int8(*table), texts, threads), whole) << table->name << " with " << threads;
        }
        EXPECT_EQ(Encode(cls.Int8(*table), {texts[0]}, 2)[0], whole[0]) << table->name << " alone";
      }
    }
  }
}

// The rows that the products of a model with CLS pooling multiplied, by a set that counts them.
TEST(Int8Pass, ClsPoolingMultipliesOnlyFirstRowsAfterTheLastKeysAndValues) {
  TinyModel model(kShapes[1]);
  model.Save();
  model.directory().Write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  const Passes cls(model.path(), RandomTexts(30, 30, TinyModel::kVocabulary, 3));
  static std::vector<size_t> rows;
  rows.clear();
  Int8Kernels counting = *PortableKernels(Element::kF32)->int8;
  counting.gemm = [](const Int8GemmCall& call) {
    rows.push_back(call.rows);
    PortableKernels(Element::kF32)->int8->gemm(call);
  };
  KernelTable table = *PortableKernels(Element::kF32);
  table.int8 = &counting;
  (void)Encode(cls.Int8(table), {{3, 4, 5}, {5, 6, 7, 8, 9, 10, 11}});
  ASSERT_FALSE(rows.empty());
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 10U), static_cast<std::ptrdiff_t>(rows.size() / 2 + 1))
      << "all of the first layer's, and the last one's first";
  EXPECT_EQ(rows.back(), 2U);
}

// What a set may fetch ahead is what the next product reads, in the order in which one thread computes them.
TEST(Int8Pass, EachProductNamesTheWeightsOfTheNext) {
  TinyModel model(kShapes[1]);
  model.Save();
  const Passes passes(model.path(), RandomTexts(30, 30, TinyModel::kVocabulary, 3));
  static std::vector<Int8GemmCall> calls;
  calls.clear();
  Int8Kernels recording = *PortableKernels(Element::kF32)->int8;
  recording.gemm = [](const Int8GemmCall& call) {
    calls.push_back(call);
    PortableKernels(Element::kF32)->int8->gemm(call);
  };
  KernelTable table = *PortableKernels(Element::kF32);
  table.int8 = &recording;
  (void)Encode(passes.Int8(table), {{3, 4, 5, 6, 7, 8, 9}});
  ASSERT_FALSE(calls.empty());
  for (size_t i = 0; i + 1 < calls.size(); ++i) {
    const Int8GemmCall& next = calls[i + 1];
    EXPECT_EQ(calls[i].next.begin, next.b + next.panel_begin * next.b_panel_stride) << i;
    EXPECT_EQ(calls[i].next.panels, next.panel_end - next.panel_begin) << i;
    EXPECT_EQ(calls[i].next.panel_bytes, next.depth * kPanelColumns) << i;
    EXPECT_EQ(calls[i].next.panel_stride, next.b_panel_stride) << i;
  }
  EXPECT_EQ(calls.back().next.begin, nullptr);
}

TEST(Int8Pass, IsNearFp32AndSetsAreNearEachOther) {
  for (const TinyModel::Shape& shape : kShapes) {
    TinyModel model(shape);
    model.Save();
    const Passes passes(model.path(), RandomTexts(30, 30, TinyModel::kVocabulary, 3));
    const Texts texts = RandomTexts(test::ByBuild(60, 8, 8), 32, TinyModel::kVocabulary);
    const auto exact = Encode(passes.Float(*PortableKernels(Element::kF32)), texts);
    for (const KernelTable* table : Tables()) {
      const auto defined = Encode(passes.Int8(*PortableKernels(table->element)), texts);
      const auto vectors = Encode(passes.Int8(*table), texts);
      for (size_t i = 0; i < texts.size(); ++i) {
        EXPECT_GE(Cosine(vectors[i], exact[i]), 0.998) << table->name << " text " << i;
        EXPECT_GE(Cosine(vectors[i], defined[i]), 0.9998) << table->name << " text " << i;
      }
    }
  }
}

// A text of few tokens gains most from the second term; the bound is one that rows of one term miss here.
TEST(Int8Pass, ShortTextsAreNearerToFp32ThanLongOnes) {
  TinyModel model(kShapes[1]);
  model.Save();
  const Passes passes(model.path(), RandomTexts(30, 30, TinyModel::kVocabulary, 3));
  const auto worst = [&](size_t tokens) {
    Texts texts = RandomTexts(40, 1, TinyModel::kVocabulary);
    std::mt19937 random(1);
    for (auto& text : texts) {
      text.resize(tokens);
      for (int32_t& id : text) id = static_cast<int32_t>(random() % TinyModel::kVocabulary);
    }
    const KernelTable& kernels = *PortableKernels(Element::kF32);
    const auto exact = Encode(passes.Float(kernels), texts);
    const auto vectors = Encode(passes.Int8(kernels), texts);
    double sum = 0;
    for (size_t i = 0; i < texts.size(); ++i) sum += 1 - Cosine(vectors[i], exact[i]);
    return sum / static_cast<double>(texts.size());
  };
  EXPECT_LT(worst(kTwoTermTokensMax), worst(kTwoTermTokensMax + 1));
}

TEST(Int8Pass, BrokenWordMakesItsTextsNotFiniteAndLeavesOthersAlone) {
  TinyModel model(kShapes[1]);
  model.Save();
  const Texts calibration = RandomTexts(30, 30, TinyModel::kVocabulary - 1, 3);
  const Texts texts = RandomTexts(40, 32, TinyModel::kVocabulary);
  const auto healthy = Passes(model.path(), calibration);
  constexpr int32_t kBroken = TinyModel::kVocabulary - 1;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    TinyModel damaged(kShapes[1]);
    auto& words = damaged.tensors().at("embeddings.word_embeddings.weight");
    words[static_cast<size_t>(kBroken) * kShapes[1].hidden + 5] = bad;
    damaged.Save();
    const Passes passes(damaged.path(), calibration);
    for (const KernelTable* table : Tables()) {
      const auto right = Encode(healthy.Int8(*table), texts);
      const auto vectors = Encode(passes.Int8(*table), texts);
      for (size_t i = 0; i < texts.size(); ++i) {
        if (std::find(texts[i].begin(), texts[i].end(), kBroken) == texts[i].end()) {
          EXPECT_EQ(vectors[i], right[i]) << table->name;
        } else {
          EXPECT_FALSE(std::all_of(vectors[i].begin(), vectors[i].end(), [](float v) { return std::isfinite(v); }))
              << table->name << " text " << i;
        }
      }
    }
  }
}

TEST(Int8Pass, RealModelIsNearFp32AtEveryLength) {
  if (test::ByBuild(false, true, true)) GTEST_SKIP() << "slow with sanitizers; tiny models run the same code";
  const std::string path = test::RealModelDirectory();
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no model at " << path;
  if (!DetectFeatures().avx512_vnni || Avx512VnniKernels() == nullptr) GTEST_SKIP() << "needs AVX-512 VNNI";
  const auto real_texts = [](size_t count, uint32_t seed) {
    Texts texts = RandomTexts(count, 60, 28000, seed);
    for (auto& text : texts) {
      for (int32_t& id : text) id += 1000;
      text.insert(text.begin(), 101);
      text.push_back(102);
    }
    return texts;
  };
  const Passes passes(path, real_texts(60, 3));
  const Texts texts = real_texts(200, 17);
  const auto exact = Encode(passes.Float(*Avx512Kernels()), texts);
  const auto vectors = Encode(passes.Int8(*Avx512VnniKernels()), texts);
  for (size_t i = 0; i < texts.size(); ++i) EXPECT_GE(Cosine(vectors[i], exact[i]), 0.999) << "text " << i;
}

}  // namespace
}  // namespace sutra::cpu
