// Whole models on the CPU kernels: loading, sharing, threads, and what a backend refuses.
#include "engine/model/encoder_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/packed_model.h"
#include "engine/model/model_identity.h"
#include "tests/kit/by_build.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

using Texts = std::vector<std::vector<int32_t>>;

Result<std::unique_ptr<EncoderBackend>> Make(const std::string& path, const cpu::KernelTable& kernels,
                                             int threads = 1) {
  Result<LoadedModel> model = LoadModel(path);
  if (!model.ok()) return model.status();
  auto packed = cpu::SharedPackedModel(model->config.spec, model->weights, kernels.element);
  auto pass = std::make_shared<cpu::FloatPass>(std::move(packed), kernels);
  auto encoder = std::make_unique<cpu::CpuEncoder>(std::move(pass), threads);
  return EncoderBackend::Make(std::move(model).value(), std::move(encoder),
                              kernels.element == cpu::Element::kF32 ? "fp32" : "bf16", "cpu");
}

Result<std::vector<std::vector<float>>> Embed(ModelBackend& backend, const Texts& texts) {
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};
  std::vector<std::vector<float>> vectors(texts.size(), std::vector<float>(backend.info().width));
  std::vector<float*> outputs;
  for (size_t i = 0; i < texts.size(); ++i) {
    ids.insert(ids.end(), texts[i].begin(), texts[i].end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
    outputs.push_back(vectors[i].data());
  }
  if (Status status = backend.Embed({ids, offsets}, outputs); !status.ok()) return status;
  return vectors;
}

Texts RandomTexts(size_t count, uint32_t length_max) {
  std::mt19937 random(17);
  Texts texts;
  for (size_t i = 0; i < count; ++i) {
    std::vector<int32_t> text(1 + random() % length_max);
    for (int32_t& id : text) id = static_cast<int32_t>(random() % TinyModel::kVocabulary);
    texts.push_back(text);
  }
  return texts;
}

class EncoderBackendOnKernels : public testing::Test {
 protected:
  void SetUp() override {
    tables_ = {cpu::PortableKernels(cpu::Element::kF32), cpu::PortableKernels(cpu::Element::kBf16)};
    if (cpu::DetectFeatures().avx2) tables_.push_back(cpu::Avx2Kernels());
    if (cpu::DetectFeatures().avx512) tables_.push_back(cpu::Avx512Kernels());
    if (cpu::DetectFeatures().avx512_bf16) tables_.push_back(cpu::Avx512Bf16Kernels());
    if (cpu::DetectFeatures().amx_bf16) tables_.push_back(cpu::AmxKernels());
    model_.Save();
  }
  std::vector<const cpu::KernelTable*> tables_;
  TinyModel model_;
};

TEST_F(EncoderBackendOnKernels, VectorsDoNotDependOnTheBatchOrTheThreads) {
  const Texts texts = RandomTexts(test::ByBuild(150, 150, 50), 32);
  for (const cpu::KernelTable* table : tables_) {
    auto alone = Make(model_.path(), *table);
    ASSERT_TRUE(alone.ok()) << alone.status().message();
    const auto together = Embed(**alone, texts);
    ASSERT_TRUE(together.ok());
    for (int threads : {1, 2, 3}) {
      auto backend = Make(model_.path(), *table, threads);
      EXPECT_EQ(Embed(**backend, texts).value(), together.value()) << table->name << " with " << threads << " threads";
      for (size_t i = 0; i < texts.size(); i += 7) {
        EXPECT_EQ(Embed(**backend, {texts[i]}).value()[0], together.value()[i]) << table->name << " text " << i;
      }
    }
  }
}

TEST_F(EncoderBackendOnKernels, HalfPrecisionWeightsAndPrefixedNamesGiveTheSameVectors) {
  const Texts texts = RandomTexts(10, 32);
  auto backend = Make(model_.path(), *tables_[0]);
  const auto expected = Embed(**backend, texts).value();
  for (const char* type : {"F16", "BF16"}) {
    model_.Save(type, "bert.");
    auto other = Make(model_.path(), *tables_[0]);
    ASSERT_TRUE(other.ok()) << other.status().message();
    EXPECT_EQ(Embed(**other, texts).value(), expected) << type;
    EXPECT_NE((*other)->info().identity, (*backend)->info().identity);
  }
}

TEST_F(EncoderBackendOnKernels, ClsPoolingTakesTheFirstToken) {
  auto mean = Make(model_.path(), *tables_[0]);
  model_.directory().Write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  auto cls = Make(model_.path(), *tables_[0]);
  const auto one = Embed(**mean, {{4}}).value();
  EXPECT_EQ(Embed(**cls, {{4}}).value(), one) << "of one token, mean and first are the same";
  EXPECT_NE(Embed(**cls, {{4, 5}}).value(), Embed(**mean, {{4, 5}}).value());
}

// With CLS pooling the last layer goes on with the first rows alone; a watched pass computes all of them.
TEST_F(EncoderBackendOnKernels, ClsPoolingGivesExactlyTheFirstRowOfTheWholeComputation) {
  model_.directory().Write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  Texts texts = RandomTexts(60, 32);
  texts.insert(texts.begin(), {Texts::value_type{3}, Texts::value_type{5}});
  for (const cpu::KernelTable* table : tables_) {
    Result<LoadedModel> model = LoadModel(model_.path());
    ASSERT_TRUE(model.ok());
    const auto encode = [&](const Texts& batch, int threads, cpu::FloatPass::Watcher watcher) {
      auto packed = cpu::SharedPackedModel(model->config.spec, model->weights, table->element);
      cpu::CpuEncoder encoder(std::make_shared<cpu::FloatPass>(std::move(packed), *table, std::move(watcher)), threads);
      std::vector<int32_t> ids;
      std::vector<int32_t> offsets = {0};
      std::vector<std::vector<float>> vectors(batch.size(), std::vector<float>(model->config.spec.hidden));
      std::vector<float*> outputs;
      for (size_t i = 0; i < batch.size(); ++i) {
        ids.insert(ids.end(), batch[i].begin(), batch[i].end());
        offsets.push_back(static_cast<int32_t>(ids.size()));
        outputs.push_back(vectors[i].data());
      }
      EXPECT_TRUE(encoder.Encode({ids, offsets}, outputs).ok());
      return vectors;
    };
    const auto ignore = [](const cpu::ChunkOfTexts&, const cpu::LinearInput&) {};
    const auto whole = encode(texts, 1, ignore);
    for (const int threads : {1, 2, 3}) EXPECT_EQ(encode(texts, threads, {}), whole) << table->name << " " << threads;
    // One chunk by all threads together.
    const Texts few(texts.begin(), texts.begin() + 5);
    EXPECT_EQ(encode(few, 3, {}), encode(few, 1, ignore)) << table->name;
  }
}

// sentence-transformers cuts after the last module and normalises again only where a caller asks for it.
TEST_F(EncoderBackendOnKernels, TruncateDimCutsTheModelsOwnVector) {
  const Texts texts = RandomTexts(20, 32);
  for (const bool normalizes : {true, false}) {
    if (!normalizes) {
      model_.directory().Write(
          "modules.json",
          R"([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
    }
    std::filesystem::remove(model_.path() + "/config_sentence_transformers.json");
    auto whole = Make(model_.path(), *tables_[0]);
    const auto expected = Embed(**whole, texts).value();
    EXPECT_EQ((*whole)->info().normalizes, normalizes);
    model_.directory().Write("config_sentence_transformers.json", R"({"truncate_dim": 16})");
    auto cut = Make(model_.path(), *tables_[0]);
    ASSERT_TRUE(cut.ok()) << cut.status().message();
    EXPECT_EQ((*cut)->info().width, 16U);
    EXPECT_FALSE((*cut)->info().normalizes);
    const auto vectors = Embed(**cut, texts).value();
    for (size_t i = 0; i < texts.size(); ++i) {
      double sum = 0;
      for (const float value : expected[i]) sum += static_cast<double>(value) * static_cast<double>(value);
      ASSERT_EQ(vectors[i].size(), 16U);
      for (size_t n = 0; n < 16; ++n) {
        const double right = static_cast<double>(expected[i][n]) / (normalizes ? std::sqrt(sum) : 1.0);
        ASSERT_NEAR(vectors[i][n], right, 1e-7) << i << " " << n;
      }
    }
  }
}

TEST_F(EncoderBackendOnKernels, NonFiniteWeightsFailAtLoad) {
  model_.tensors()["encoder.layer.1.output.dense.bias"][3] = NAN;
  model_.Save();
  for (const cpu::KernelTable* table : tables_) {
    const auto backend = Make(model_.path(), *table);
    ASSERT_FALSE(backend.ok());
    EXPECT_EQ(backend.code(), StatusCode::kModelError);
    EXPECT_NE(backend.status().message().find("not finite"), std::string::npos);
  }
}

TEST_F(EncoderBackendOnKernels, BatchesBeyondTheContractAreRefused) {
  auto backend = Make(model_.path(), *tables_[0], 2);
  EXPECT_FALSE(Embed(**backend, {{}}).ok());
  EXPECT_FALSE(Embed(**backend, {{TinyModel::kVocabulary}}).ok());
  EXPECT_FALSE(Embed(**backend, {{-1}}).ok());
  EXPECT_FALSE(Embed(**backend, {std::vector<int32_t>(33, 4)}).ok());
  EXPECT_TRUE(Embed(**backend, {std::vector<int32_t>(32, 4)}).ok());
  EXPECT_TRUE(Embed(**backend, {}).ok());
}

TEST_F(EncoderBackendOnKernels, MissingTensorOrOtherShapeIsNamed) {
  const std::string name = "encoder.layer.1.attention.self.key.weight";
  model_.tensors().erase(name);
  model_.Save();
  EXPECT_NE(LoadModel(model_.path()).status().message().find(name), std::string::npos);
  TinyModel other;
  other.config()["intermediate_size"] = 192;
  other.Save();
  EXPECT_NE(LoadModel(other.path()).status().message().find("intermediate.dense.weight"), std::string::npos);
}

TEST_F(EncoderBackendOnKernels, VocabularyBeyondTheTableIsRefused) {
  model_.directory().Write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nready\na\nb\nc\nd\ne\n.\nf\n");
  const auto loaded = LoadModel(model_.path());
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("different models"), std::string::npos);
}

TEST_F(EncoderBackendOnKernels, IdentityFollowsFilesPrecisionAndDeviceButNotThePlace) {
  const auto identity = [](const std::string& path, const std::string& precision, const std::string& device) {
    const auto model = LoadModel(path);
    return ComputeModelIdentity(*model, precision, device).value();
  };
  const std::string base = identity(model_.path(), "fp32", "cpu");
  EXPECT_EQ(base.size(), 64U);
  TinyModel copy;
  copy.Save();
  EXPECT_EQ(identity(copy.path(), "fp32", "cpu"), base);
  EXPECT_NE(identity(model_.path(), "bf16", "cpu"), base);
  EXPECT_NE(identity(model_.path(), "fp32", "cuda"), base);
  copy.tensors()["embeddings.LayerNorm.bias"][0] += 1;
  copy.Save();
  EXPECT_NE(identity(copy.path(), "fp32", "cpu"), base);
  model_.directory().Write("sentence_bert_config.json", R"({"max_seq_length": 31})");
  EXPECT_NE(identity(model_.path(), "fp32", "cpu"), base);
}

// A model file that changes under a running engine: overwritten in place (what rsync --inplace or cp do), truncated,
// removed. Loaded again, the other bytes have another identity.
TEST_F(EncoderBackendOnKernels, FilesThatChangeAfterTheLoadChangeNothing) {
  const Texts texts = RandomTexts(10, 32);
  const std::string weights = model_.path() + "/model.safetensors";
  for (const cpu::KernelTable* table : tables_) {
    TinyModel other;
    for (auto& [name, values] : other.tensors()) std::reverse(values.begin(), values.end());
    other.Save();
    model_.Save();
    auto backend = Make(model_.path(), *table);
    ASSERT_TRUE(backend.ok()) << backend.status().message();
    const auto expected = Embed(**backend, texts).value();
    {
      std::ifstream from(other.path() + "/model.safetensors", std::ios::binary);
      std::fstream to(weights, std::ios::binary | std::ios::in | std::ios::out);
      to << from.rdbuf();
    }
    EXPECT_TRUE(Embed(**backend, texts).value() == expected) << table->name << ": overwritten in place";
    auto changed = Make(model_.path(), *table);
    ASSERT_TRUE(changed.ok()) << changed.status().message();
    EXPECT_NE((*changed)->info().identity, (*backend)->info().identity);
    const auto others = Embed(**changed, texts).value();
    EXPECT_TRUE(others != expected);
    std::filesystem::resize_file(weights, 0);
    EXPECT_TRUE(Embed(**backend, texts).value() == expected) << table->name << ": truncated";
    std::filesystem::remove(weights);
    for (const auto& entry : std::filesystem::directory_iterator(model_.path())) {
      if (entry.is_regular_file()) std::filesystem::resize_file(entry.path(), 0);
    }
    EXPECT_TRUE(Embed(**backend, texts).value() == expected) << table->name << ": removed";
    EXPECT_TRUE(Embed(**changed, texts).value() == others) << table->name << ": removed";
  }
}

TEST_F(EncoderBackendOnKernels, WorkersOfOneModelShareThePackedWeightsAlsoFromACopyOfTheFolder) {
  TinyModel copy;
  copy.Save();
  const auto packed = [&](const std::string& path, cpu::Element element) {
    const auto model = LoadModel(path);
    return cpu::SharedPackedModel(model->config.spec, model->weights, element);
  };
  const auto first = packed(model_.path(), cpu::Element::kF32);
  EXPECT_EQ(packed(copy.path(), cpu::Element::kF32), first);
  EXPECT_NE(packed(copy.path(), cpu::Element::kBf16), first);
  copy.tensors()["embeddings.LayerNorm.bias"][0] += 1;
  copy.Save();
  EXPECT_NE(packed(copy.path(), cpu::Element::kF32), first);
}

// The portable set is the reference: whatever instructions compute, and whatever the head width, the vectors are the
// same.
TEST(EncoderBackend, EverySetGivesTheVectorsOfThePortableOne) {
  const Texts texts = RandomTexts(40, 32);
  for (const uint32_t heads : {2U, 4U}) {
    TinyModel model({.hidden = 128, .heads = heads, .intermediate = 192, .layers = 2, .positions = 40});
    model.Save();
    auto portable = Make(model.path(), *cpu::PortableKernels(cpu::Element::kF32));
    const auto expected = Embed(**portable, texts).value();
    std::vector<const cpu::KernelTable*> tables = {cpu::PortableKernels(cpu::Element::kBf16)};
    if (cpu::DetectFeatures().avx2) tables.push_back(cpu::Avx2Kernels());
    if (cpu::DetectFeatures().avx512) tables.push_back(cpu::Avx512Kernels());
    if (cpu::DetectFeatures().avx512_bf16) tables.push_back(cpu::Avx512Bf16Kernels());
    if (cpu::DetectFeatures().amx_bf16) tables.push_back(cpu::AmxKernels());
    for (const cpu::KernelTable* table : tables) {
      auto backend = Make(model.path(), *table);
      const auto vectors = Embed(**backend, texts).value();
      const float tolerance = table->element == cpu::Element::kF32 ? 2e-5F : 0.1F;
      for (size_t i = 0; i < texts.size(); ++i) {
        for (size_t n = 0; n < vectors[i].size(); ++n) {
          ASSERT_NEAR(vectors[i][n], expected[i][n], tolerance) << table->name << " text " << i;
        }
      }
    }
  }
}

TEST(EncoderBackend, ThreadsShareAModelOfAnyShape) {
  TinyModel model({.hidden = 30, .heads = 3, .intermediate = 77, .layers = 2, .positions = 40});
  model.Save();
  const Texts texts = RandomTexts(60, 32);
  for (const cpu::Element element : {cpu::Element::kF32, cpu::Element::kBf16}) {
    auto one = Make(model.path(), *cpu::PortableKernels(element));
    ASSERT_TRUE(one.ok()) << one.status().message();
    auto three = Make(model.path(), *cpu::PortableKernels(element), 3);
    EXPECT_EQ(Embed(**three, texts).value(), Embed(**one, texts).value());
    EXPECT_EQ(Embed(**three, {texts[5]}).value()[0], Embed(**one, texts).value()[5]);
  }
}

}  // namespace
}  // namespace sutra
