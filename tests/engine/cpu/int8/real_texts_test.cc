// The real model in int8, prepared as an engine does, against fp32 over thousands of texts of all kinds that none of
// its choices were made on, as bench/quality_texts.py writes them; and that this notices weights which are a little
// off.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/int8_model.h"
#include "engine/cpu/int8/int8_pass.h"
#include "engine/cpu/int8/int8_quality.h"
#include "engine/cpu/int8/packed_file.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/loaded_model.h"
#include "tests/kit/by_build.h"
#include "tests/kit/real_model.h"
#include "tests/kit/temp_dir.h"

namespace sutra::cpu {
namespace {

constexpr int kThreads = 2;

struct Family {
  QualityTexts texts;
  size_t shorts = 0;  // of at most kTwoTermTokensMax tokens
};

// By kind; every kind has hundreds.
std::map<std::string, Family> ReadTexts(const std::string& path, const LoadedModel& model) {
  std::map<std::string, Family> families;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    Family& family = families[json.at("family")];
    std::vector<int32_t>& ids = family.texts.tokens.ids;
    const size_t before = ids.size();
    std::vector<int32_t> text;
    (void)model.tokenizer->Encode(json.at("text").get<std::string>(), model.config.spec.tokens_max, &text);
    ids.insert(ids.end(), text.begin(), text.end());
    family.texts.tokens.EndText();
    family.texts.names.push_back(json.at("text"));
    family.shorts += ids.size() - before <= kTwoTermTokensMax ? 1 : 0;
  }
  return families;
}

TEST(Int8RealTexts, EachIsNearFp32AndAWrongScaleIsNoticed) {
  if (test::ByBuild(false, true, true)) GTEST_SKIP() << "slow with sanitizers; tiny models run the same code";
  if (!std::filesystem::exists(test::RealModelDirectory() + "/config.json")) {
    GTEST_SKIP() << "no model in " << test::RealModelDirectory() << "; run tools/quickstart or set SUTRA_MODEL_DIR";
  }
  const KernelTable* const kernels = ChooseInt8Kernels();
  if (kernels == nullptr) GTEST_SKIP() << "this CPU has no int8 products";
  const test::TempDir directory;
  const std::string command = std::string(SUTRA_QUALITY_TEXTS) + " > " + directory / "texts";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  auto model = LoadModel(test::RealModelDirectory());
  ASSERT_TRUE(model.ok()) << model.status().message();
  const std::map<std::string, Family> families = ReadTexts(directory / "texts", *model);
  size_t texts = 0, shorts = 0;
  for (const auto& [name, family] : families) texts += family.texts.tokens.size(), shorts += family.shorts;
  ASSERT_GE(families.size(), 8U);
  ASSERT_GE(texts, 4000U);
  ASSERT_GE(shorts, 1000U);

  const KernelTable& exact_kernels = *ChooseKernels(Precision::kF32)->front().kernels;
  const Int8Options options = {
      .identity = std::string(64, 'e'), .directory = directory / "packed", .cosine_min = 0, .threads = kThreads};
  const auto prepared = SharedInt8Model(*model, *kernels, exact_kernels, options);
  ASSERT_TRUE(prepared.ok()) << prepared.status().message();
  const EncoderSpec& spec = model->config.spec;
  CpuEncoder exact(std::make_shared<FloatPass>(SharedPackedModel(spec, model->weights, Element::kF32), exact_kernels),
                   kThreads);
  CpuEncoder quantised(std::make_shared<Int8Pass>(*prepared, *kernels), kThreads);
  for (const auto& [name, family] : families) {
    const auto quality = CompareEncoders(exact, quantised, spec.hidden, family.texts);
    ASSERT_TRUE(quality.ok()) << quality.status().message();
    EXPECT_GE(quality->cosine_min, kInt8CosineMin) << name << ": " << quality->text;
    EXPECT_GE(quality->cosine_mean, 0.9995) << name;
    EXPECT_EQ(quality->texts, family.texts.tokens.size());
    std::printf("%-10s %4u texts, smallest cosine %.5f, mean %.5f\n", name.c_str(), quality->texts, quality->cosine_min,
                quality->cosine_mean);
  }

  // The canary: every eighth output of one product of 24 is a tenth too large.
  auto wrong = std::make_shared<QuantisedModel>();
  wrong->rest = (*prepared)->rest;
  ASSERT_TRUE(ReadPackedFile(PackedFilePath(options.directory, options.identity), options.identity, wrong.get()).ok());
  const QuantisedLinear& linear = wrong->layers[2][static_cast<size_t>(LinearRole::kFfnOut)];
  for (size_t n = 0; n < linear.columns; n += 8) linear.scale.As<float>()[n] *= 1.1F;
  CpuEncoder off(std::make_shared<Int8Pass>(wrong, *kernels), kThreads);
  const auto noticed = CompareEncoders(exact, off, spec.hidden, families.at("short").texts);
  ASSERT_TRUE(noticed.ok()) << noticed.status().message();
  EXPECT_LT(noticed->cosine_min, kInt8CosineMin);
  std::printf("canary: smallest cosine %.5f\n", noticed->cosine_min);
}

}  // namespace
}  // namespace sutra::cpu
