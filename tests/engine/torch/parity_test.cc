// Whole vectors of the real model against sentence-transformers (fixtures/, made by make_fixtures.py), for every kernel
// set this CPU runs, and the ATen encoder against our kernels on a small random model.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/backend_choice.h"
#include "engine/cpu/features.h"
#include "tests/kit/real_model.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

constexpr double kF32DifferenceMax = 2e-5;
constexpr double kBf16CosineMin = 0.9995;

struct Fixture {
  std::vector<std::string> texts;
  std::vector<std::vector<float>> vectors;
};

// Empty if the fixtures do not match the width.
Fixture ReadFixture(size_t width) {
  Fixture fixture;
  std::ifstream text_file(SUTRA_FIXTURES "/texts.json");
  fixture.texts = nlohmann::json::parse(text_file).get<std::vector<std::string>>();
  std::ifstream vector_file(SUTRA_FIXTURES "/vectors.f32", std::ios::binary);
  for (size_t i = 0; i < fixture.texts.size(); ++i) {
    std::vector<float> vector(width);
    vector_file.read(static_cast<char*>(static_cast<void*>(vector.data())), static_cast<std::streamsize>(width * 4));
    if (!vector_file) return {};
    fixture.vectors.push_back(vector);
  }
  return fixture;
}

struct KernelCase {
  const char* kernels;  // as the encoder names itself
  Precision precision;
  Executor executor;
  CpuIsa isa_max;
  bool present;
};

std::vector<KernelCase> Cases() {
  const cpu::Features& features = cpu::DetectFeatures();
  const auto own = [](const char* kernels, Precision precision, CpuIsa isa_max, bool present) {
    return KernelCase{kernels, precision, Executor::kCpu, isa_max, present};
  };
  const auto aten = [](Precision precision, bool present) {
    return KernelCase{"aten", precision, Executor::kTorch, CpuIsa::kAuto, present};
  };
  return {own("portable", Precision::kF32, CpuIsa::kPortable, true),
          aten(Precision::kF32, true),
          aten(Precision::kBf16, features.avx512_bf16),  // elsewhere torch emulates it: correct, but it takes minutes
          own("avx512", Precision::kF32, CpuIsa::kAvx512, features.avx512),
          own("avx512_bf16", Precision::kBf16, CpuIsa::kAvx512Bf16, features.avx512_bf16),
          own("amx_bf16", Precision::kBf16, CpuIsa::kAmx, features.amx_bf16)};
}

const KernelCase kAten = {"aten", Precision::kF32, Executor::kTorch, CpuIsa::kAuto, true};
const KernelCase kOwn = {"", Precision::kF32, Executor::kCpu, CpuIsa::kAuto, true};
const KernelCase kPortable = {"portable", Precision::kF32, Executor::kCpu, CpuIsa::kPortable, true};

Result<std::unique_ptr<ModelBackend>> Make(const std::string& model_dir, const KernelCase& kernel_case,
                                           uint32_t threads = 1) {
  Result<Backends> made = MakeModelBackends({.model_dir = model_dir,
                                             .precision = kernel_case.precision,
                                             .executor = kernel_case.executor,
                                             .threads = threads,
                                             .cpu_isa = kernel_case.isa_max});
  if (!made.ok()) return made.status();
  return std::move(made->front());
}

struct Embedded {
  std::vector<std::vector<float>> vectors;
  Status status;
};

Embedded EmbedIds(ModelBackend& backend, const std::vector<std::vector<int32_t>>& texts) {
  Embedded result;
  std::vector<int32_t> ids;
  std::vector<int32_t> offsets = {0};
  result.vectors.assign(texts.size(), std::vector<float>(backend.info().width));
  std::vector<float*> outputs;
  for (size_t i = 0; i < texts.size(); ++i) {
    ids.insert(ids.end(), texts[i].begin(), texts[i].end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
    outputs.push_back(result.vectors[i].data());
  }
  result.status = backend.Embed({ids, offsets}, outputs);
  return result;
}

std::vector<std::vector<int32_t>> Tokenize(const ModelBackend& backend, const std::vector<std::string>& texts) {
  std::vector<std::vector<int32_t>> all;
  for (const std::string& text : texts) {
    std::vector<int32_t> ids;
    (void)backend.tokenizer().Encode(text, backend.info().tokens_max, &ids);
    all.push_back(ids);
  }
  return all;
}

void ScaleToUnit(std::vector<float>* vector) {
  double square = 0;
  for (const float value : *vector) square += static_cast<double>(value) * static_cast<double>(value);
  for (float& value : *vector) value = static_cast<float>(static_cast<double>(value) / std::sqrt(square));
}

double DifferenceMax(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (std::isnan(difference)) return INFINITY;
    worst = std::max(worst, difference);
  }
  return worst;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]);
    const auto y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

class Parity : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!Cases()[GetParam()].present) GTEST_SKIP() << "this CPU lacks " << Cases()[GetParam()].kernels;
    if (!std::ifstream(test::RealModelDirectory() + "/config.json")) {
      GTEST_SKIP() << "no model in " << test::RealModelDirectory()
                   << "; run tools/setup/fetch_deps or set SUTRA_MODEL_DIR";
    }
  }
};

TEST_P(Parity, VectorsAreThoseOfSentenceTransformers) {
  const KernelCase kernel_case = Cases()[GetParam()];
  testing::internal::CaptureStdout();
  auto made = Make(test::RealModelDirectory(), kernel_case);
  const std::string log = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(made.ok()) << made.status().message();
  ASSERT_NE(log.find("(" + std::string(kernel_case.kernels) + ")"), std::string::npos) << log;
  ModelBackend& backend = **made;
  ASSERT_EQ(backend.info().precision, Name(kernel_case.precision));
  ASSERT_EQ(backend.info().tokens_max, 256U);
  ASSERT_TRUE(backend.info().normalizes);
  const Fixture fixture = ReadFixture(backend.info().width);
  ASSERT_GE(fixture.vectors.size(), 200U);
  Embedded result = EmbedIds(backend, Tokenize(backend, fixture.texts));
  ASSERT_TRUE(result.status.ok()) << result.status.message();
  double difference_max = 0;
  double cosine_min = 1;
  for (size_t i = 0; i < fixture.texts.size(); ++i) {
    ScaleToUnit(&result.vectors[i]);
    difference_max = std::max(difference_max, DifferenceMax(result.vectors[i], fixture.vectors[i]));
    cosine_min = std::min(cosine_min, Cosine(result.vectors[i], fixture.vectors[i]));
    if (backend.info().precision == "fp32") {
      EXPECT_LE(DifferenceMax(result.vectors[i], fixture.vectors[i]), kF32DifferenceMax) << fixture.texts[i];
    } else {
      EXPECT_GE(Cosine(result.vectors[i], fixture.vectors[i]), kBf16CosineMin) << fixture.texts[i];
    }
  }
  std::printf("largest difference %.2e, smallest cosine %.6f over %zu texts\n", difference_max, cosine_min,
              fixture.texts.size());
}

TEST_P(Parity, VectorsDoNotDependOnTheBatch) {
  const KernelCase kernel_case = Cases()[GetParam()];
  auto made = Make(test::RealModelDirectory(), kernel_case, 2);
  ASSERT_TRUE(made.ok()) << made.status().message();
  const Fixture fixture = ReadFixture((*made)->info().width);
  std::vector<std::vector<int32_t>> texts = Tokenize(**made, fixture.texts);
  texts.resize(45);
  const Embedded together = EmbedIds(**made, texts);
  for (size_t i = 0; i < texts.size(); i += 4) {
    const Embedded alone = EmbedIds(**made, {texts[i]});
    if (std::string(kernel_case.kernels) == "aten") {  // torch's products may sum in another order
      EXPECT_GE(Cosine(alone.vectors[0], together.vectors[i]),
                kernel_case.precision == Precision::kF32 ? 0.999999 : 0.9999);
    } else {
      EXPECT_EQ(alone.vectors[0], together.vectors[i]) << fixture.texts[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EverySet, Parity, testing::Range<size_t>(0, 6),
                         [](const testing::TestParamInfo<size_t>& param) {
                           return std::string(Cases()[param.param].kernels) + "_" +
                                  Name(Cases()[param.param].precision);
                         });

TEST(ParityCanary, AWrongVectorIsSeen) {
  std::vector<float> vector(384, 1.0F);
  std::vector<float> other = vector;
  other[100] += 3e-5F;
  EXPECT_GT(DifferenceMax(vector, other), kF32DifferenceMax);
  other[100] = 2.0F;
  EXPECT_LT(Cosine(vector, other), kBf16CosineMin);
  other[100] = NAN;
  EXPECT_FALSE(DifferenceMax(vector, other) <= kF32DifferenceMax);
  EXPECT_FALSE(Cosine(vector, other) >= kBf16CosineMin);
}

std::vector<std::vector<int32_t>> TinyTexts() {
  std::vector<std::vector<int32_t>> texts;
  for (int32_t length = 1; length <= 32; ++length) {
    std::vector<int32_t> text;
    for (int32_t i = 0; i < length; ++i)
      text.push_back((i * 7 + length) % static_cast<int32_t>(TinyModel::kVocabulary));
    texts.push_back(text);
  }
  return texts;
}

TEST(AtenEncoder, AgreesWithTheKernelsForBothActivationsAndHeadWidths) {
  for (const char* activation : {"gelu", "gelu_new"}) {
    for (const uint32_t heads : {2U, 4U}) {
      TinyModel model({.hidden = 128, .heads = heads, .intermediate = 192, .layers = 2, .positions = 40});
      model.config()["hidden_act"] = activation;
      model.Save();
      auto aten = Make(model.path(), kAten);
      auto kernels = Make(model.path(), kOwn);
      ASSERT_TRUE(aten.ok() && kernels.ok()) << aten.status().message() << kernels.status().message();
      const Embedded a = EmbedIds(**aten, TinyTexts());
      const Embedded b = EmbedIds(**kernels, TinyTexts());
      for (size_t i = 0; i < a.vectors.size(); ++i) EXPECT_LE(DifferenceMax(a.vectors[i], b.vectors[i]), 1e-5) << i;
    }
  }
}

TEST(AtenEncoder, AgreesWithThePortableKernelsForShapesOfNoPanel) {
  for (const TinyModel::Shape& shape : {TinyModel::Shape{24, 3, 40, 1, 40}, TinyModel::Shape{50, 5, 129, 2, 40}}) {
    TinyModel model(shape);
    model.Save();
    auto aten = Make(model.path(), kAten);
    auto portable = Make(model.path(), kPortable, 2);
    ASSERT_TRUE(aten.ok() && portable.ok()) << aten.status().message() << portable.status().message();
    const Embedded a = EmbedIds(**aten, TinyTexts());
    const Embedded b = EmbedIds(**portable, TinyTexts());
    for (size_t i = 0; i < a.vectors.size(); ++i) EXPECT_LE(DifferenceMax(a.vectors[i], b.vectors[i]), 1e-5) << i;
  }
}

// Torch computes what nobody asks it for only where this CPU has no fast kernels of ours; no shape makes it.
TEST(AtenEncoder, LeavesOddShapesToOurKernels) {
  TinyModel model({.hidden = 24, .heads = 3, .intermediate = 40, .layers = 1, .positions = 40});
  model.Save();
  testing::internal::CaptureStdout();
  auto made = MakeModelBackends({.model_dir = model.path()});
  const std::string log = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(made.ok()) << made.status().message();
  const bool fast = cpu::DetectFeatures().avx2 || cpu::DetectFeatures().avx512;
  EXPECT_EQ(log.find("(aten)") == std::string::npos, fast) << log;
  EXPECT_TRUE(EmbedIds(*made->front(), TinyTexts()).status.ok());
}

// The tensors of this executor own their memory too.
TEST(AtenEncoder, FilesThatChangeAfterTheLoadChangeNothing) {
  TinyModel model;
  model.Save();
  const std::string weights = model.path() + "/model.safetensors";
  for (const Precision precision : {Precision::kF32, Precision::kBf16}) {
    model.Save();
    auto made = Make(model.path(), {"aten", precision, Executor::kTorch, CpuIsa::kAuto, true});
    ASSERT_TRUE(made.ok()) << made.status().message();
    const Embedded before = EmbedIds(**made, TinyTexts());
    {
      std::fstream out(weights, std::ios::binary | std::ios::in | std::ios::out);
      out << std::string(std::filesystem::file_size(weights), '\0');
    }
    EXPECT_TRUE(EmbedIds(**made, TinyTexts()).vectors == before.vectors) << Name(precision) << ": overwritten";
    std::filesystem::resize_file(weights, 0);
    EXPECT_TRUE(EmbedIds(**made, TinyTexts()).vectors == before.vectors) << Name(precision) << ": truncated";
  }
}

// The fixtures are vectors of the Normalize module; truncate_dim takes their first numbers as they are.
TEST(SentenceTransformers, TruncateDimGivesTheFirstNumbersOfTheirVectors) {
  if (!std::ifstream(test::RealModelDirectory() + "/config.json"))
    GTEST_SKIP() << "no model in " << test::RealModelDirectory();
  const test::TempDir folder;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(test::RealModelDirectory())) {
    const std::string target = folder / entry.path().lexically_relative(test::RealModelDirectory()).string();
    if (entry.is_directory()) {
      std::filesystem::create_directory(target);
    } else if (entry.path().filename() != "config_sentence_transformers.json") {
      std::filesystem::create_symlink(std::filesystem::canonical(entry.path()), target);
    }
  }
  folder.Write("config_sentence_transformers.json", R"({"truncate_dim": 64})");
  auto made = Make(folder.path(), kOwn);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ((*made)->info().width, 64U);
  EXPECT_FALSE((*made)->info().normalizes);
  Fixture fixture = ReadFixture(384);
  fixture.texts.resize(20);
  const Embedded result = EmbedIds(**made, Tokenize(**made, fixture.texts));
  for (size_t i = 0; i < fixture.texts.size(); ++i) {
    fixture.vectors[i].resize(64);
    EXPECT_LE(DifferenceMax(result.vectors[i], fixture.vectors[i]), kF32DifferenceMax) << fixture.texts[i];
  }
}

TEST(AtenEncoder, NonFiniteWeightsFailAtLoad) {
  TinyModel model;
  model.tensors()["encoder.layer.0.output.dense.bias"][0] = INFINITY;
  model.Save();
  EXPECT_EQ(Make(model.path(), kAten).code(), StatusCode::kModelError);
}

TEST(TorchBackend, CudaWithoutItsLibrariesIsRefusedByName) {
  TinyModel model;
  model.Save();
  const auto backend = MakeModelBackends({.model_dir = model.path(), .device = Device::kCuda});
  if (backend.ok()) GTEST_SKIP() << "this host has a GPU that torch can use";
  EXPECT_NE(backend.status().message().find("--device cuda"), std::string::npos) << backend.status().message();
}

}  // namespace
}  // namespace sutra
