// Public reports about model folders, ids and vectors. Each test names the reports it mirrors; the ids and names are
// literals from the reference (tokenizers 0.23, transformers 4.57, sentence-transformers 6.2), not from this code.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/cpu/packed_model.h"
#include "engine/model/encoder_backend.h"
#include "engine/model/loaded_model.h"
#include "engine/tokenizer/wordpiece.h"
#include "tests/kit/real_model.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

using IdList = std::vector<int32_t>;

// all-MiniLM-L6-v2 with one file of its folder replaced.
class MiniLmReports : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(test::RealModelDirectory() + "/model.safetensors")) {
      GTEST_SKIP() << "no model at " << test::RealModelDirectory()
                   << ": run tools/setup/fetch_deps, or set SUTRA_MODEL_DIR";
    }
    std::filesystem::create_directories(folder_.path() + "/1_Pooling");
    for (const auto& entry : std::filesystem::recursive_directory_iterator(test::RealModelDirectory())) {
      if (entry.is_directory()) continue;
      std::filesystem::create_symlink(
          std::filesystem::canonical(entry.path()),
          folder_.path() + "/" + entry.path().lexically_relative(test::RealModelDirectory()).string());
    }
  }
  void Replace(const std::string& file, const std::string& contents) {
    std::filesystem::remove(folder_.path() + "/" + file);
    folder_.Write(file, contents);
  }
  IdList IdsOf(const std::string& text) {
    const auto model = LoadModel(folder_.path());
    EXPECT_TRUE(model.ok()) << model.status().message();
    IdList ids;
    if (model.ok()) model->tokenizer->Encode(text, model->config.spec.tokens_max, &ids);
    return ids;
  }

  const test::TempDir folder_;
};

// huggingface/tokenizers#160, #113, #722, keras-team/keras-hub#1395: [MASK] and [SEP] written in a text.
TEST_F(MiniLmReports, LiteralsInTheTextAreSpecialTokens) {
  EXPECT_EQ(IdsOf("[MASK]"), (IdList{101, 103, 102}));
  EXPECT_EQ(IdsOf("[UNK] text [SEP]"), (IdList{101, 100, 3793, 102, 102}));
}

// vllm-project/vllm#11184, #11815, huggingface/sentence-transformers#3440: do_lower_case of sentence_bert_config.json.
// From version 6 on, sentence-transformers lower-cases after it has found the literals; before, [SEP] became [sep].
TEST_F(MiniLmReports, LowercasingOfSentenceTransformersIsObeyedForACasedTokenizer) {
  Replace("tokenizer_config.json", R"({"do_lower_case": false, "tokenizer_class": "BertTokenizer"})");
  EXPECT_EQ(IdsOf("The Capital"), (IdList{101, 100, 100, 102}));
  Replace("sentence_bert_config.json", R"({"max_seq_length": 256, "do_lower_case": true})");
  EXPECT_EQ(IdsOf("The Capital"), (IdList{101, 1996, 3007, 102}));
  EXPECT_EQ(IdsOf("The Capital [SEP]"), (IdList{101, 1996, 3007, 102, 102}));
}

// dmis-lab/biobert#163, EmilyAlsentzer/clinicalBERT#26: tokenizer.json and tokenizer_config.json disagree about case.
TEST_F(MiniLmReports, CaseOfTokenizerConfigWinsOverTokenizerJson) {
  EXPECT_EQ(IdsOf("The Capital"), (IdList{101, 1996, 3007, 102}));
  Replace("tokenizer_config.json", R"({"do_lower_case": false, "tokenizer_class": "BertTokenizer"})");
  EXPECT_EQ(IdsOf("The Capital"), (IdList{101, 100, 100, 102}));
}

// huggingface/sentence-transformers#841, #929, neuml/txtai#74: no maximal length, or a number near 1e30, stands in the
// folder; the position table bounds a text then.
TEST(ModelReports, FolderWithoutAMaximalLengthIsBoundedByItsPositionTable) {
  TinyModel model;
  model.Save();
  std::filesystem::remove(model.path() + "/sentence_bert_config.json");
  for (const char* settings :
       {R"({})", R"({"model_max_length": null})", R"({"model_max_length": 1000000000000000019884624838656})"}) {
    model.directory().Write("tokenizer_config.json", settings);
    const auto config = LoadModelConfig(model.path());
    ASSERT_TRUE(config.ok()) << config.status().message();
    EXPECT_EQ(config->spec.tokens_max, 40U) << settings;
  }
}

Result<std::unique_ptr<EncoderBackend>> Backend(const TinyModel& model) {
  Result<LoadedModel> loaded = LoadModel(model.path());
  if (!loaded.ok()) return loaded.status();
  const cpu::KernelTable& kernels = *cpu::PortableKernels(cpu::Element::kF32);
  auto packed = cpu::SharedPackedModel(loaded->config.spec, loaded->weights, kernels.element);
  auto encoder = std::make_unique<cpu::CpuEncoder>(std::make_shared<cpu::FloatPass>(std::move(packed), kernels), 1);
  return EncoderBackend::Make(std::move(loaded).value(), std::move(encoder), "fp32", "cpu");
}

// The vectors of these texts, computed as one batch.
std::vector<std::vector<float>> VectorsOf(ModelBackend& backend, const std::vector<std::string>& texts) {
  IdList ids;
  IdList offsets = {0};
  std::vector<std::vector<float>> vectors(texts.size(), std::vector<float>(backend.info().width));
  std::vector<float*> outputs;
  for (size_t i = 0; i < texts.size(); ++i) {
    backend.tokenizer().Encode(texts[i], backend.info().tokens_max, &ids);
    offsets.push_back(static_cast<int32_t>(ids.size()));
    outputs.push_back(vectors[i].data());
  }
  const Status status = backend.Embed({ids, offsets}, outputs);
  EXPECT_TRUE(status.ok()) << status.message();
  return vectors;
}

const std::vector<std::string> kTexts = {"a", "a b c d e", "ready . ready", "", "b b b b b b b b b b b b b b b b b"};

// huggingface/sentence-transformers#2312, #1534, #3109: a vector depends on the texts beside it.
TEST(ModelReports, VectorIsTheSameAloneInABatchAndInReverseOrder) {
  TinyModel model;
  model.Save();
  auto backend = Backend(model);
  ASSERT_TRUE(backend.ok()) << backend.status().message();
  const auto together = VectorsOf(**backend, kTexts);
  auto reversed = VectorsOf(**backend, {kTexts.rbegin(), kTexts.rend()});
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_TRUE(reversed == together);
  for (size_t i = 0; i < kTexts.size(); ++i) EXPECT_TRUE(VectorsOf(**backend, {kTexts[i]})[0] == together[i]) << i;
}

// huggingface/candle#1887, ggml-org/llama.cpp#7926: the same weights with "bert." before every name, and in half
// precision (the tiny model's numbers are exact in each type).
TEST(ModelReports, PrefixedNamesAndHalfPrecisionGiveTheSameVectors) {
  TinyModel model;
  model.Save();
  auto plain = Backend(model);
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  const auto expected = VectorsOf(**plain, kTexts);
  for (const auto& [type, prefix] : {std::pair("F32", "bert."), std::pair("F16", ""), std::pair("BF16", "bert.")}) {
    model.Save(type, prefix);
    auto other = Backend(model);
    ASSERT_TRUE(other.ok()) << other.status().message();
    EXPECT_TRUE(VectorsOf(**other, kTexts) == expected) << type << prefix;
    EXPECT_EQ((*other)->info().identity == (*plain)->info().identity, std::string(type) == "F32") << type << prefix;
  }
}

// huggingface/transformers#1545, huggingface/tokenizers#302, #309: words added to the vocabulary are refused by name.
TEST_F(MiniLmReports, AddedWordThatIsSearchedInTheNormalizedTextIsRefusedByName) {
  std::ifstream in(test::RealModelDirectory() + "/tokenizer.json");
  std::string json((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string_view list = "\"added_tokens\":[";
  json.erase(std::remove_if(json.begin(), json.begin() + 400, [](char c) { return c == ' ' || c == '\n'; }),
             json.begin() + 400);
  ASSERT_NE(json.find(list), std::string::npos);
  json.insert(json.find(list) + list.size(),
              R"({"id":30522,"special":false,"content":"covid-19","single_word":false,"lstrip":false,)"
              R"("rstrip":false,"normalized":true},)");
  Replace("tokenizer.json", json);
  const auto tokenizer = WordPieceTokenizer::Load(folder_.path());
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.status().message().find("covid-19"), std::string::npos) << tokenizer.status().message();
}

// qdrant/fastembed#368: a model of type bert with a Unigram tokenizer is refused, and the message promises no family as
// a whole.
TEST(ModelReports, UnigramTokenizerOfABertModelIsRefusedWithTheTruth) {
  TinyModel model;
  model.Save();
  model.directory().Write("tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["<s>", 0.0]]}})");
  const std::string message = LoadModel(model.path()).status().message();
  EXPECT_NE(message.find("\"Unigram\""), std::string::npos) << message;
  EXPECT_NE(message.find("multilingual-e5"), std::string::npos) << message;
}

// huggingface/text-generation-inference#1334, AinzRimuru/HuggingfaceProxy#1, openshift/lightspeed-service#2961: the
// folder of a Hugging Face cache.
TEST_F(MiniLmReports, SnapshotOfAHubCacheIsServedUnderItsRepositorysName) {
  const test::TempDir hub;
  const std::string repository = hub / "models--sentence-transformers--all-MiniLM-L6-v2";
  std::filesystem::create_directories(repository + "/snapshots");
  std::filesystem::create_symlink(folder_.path(), repository + "/snapshots/c9745ed1d9f2");
  const auto config = LoadModelConfig(repository + "/snapshots/c9745ed1d9f2");
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->name, "all-MiniLM-L6-v2");
  const std::string message = LoadModelConfig(repository).status().message();
  EXPECT_NE(message.find("snapshots/c9745ed1d9f2"), std::string::npos) << message;
}

}  // namespace
}  // namespace sutra
