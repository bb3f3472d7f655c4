// The real model through the real engine: the vectors are those of the fixtures, they survive a restart, and damaged or
// missing model files are named. Skipped where the model is not on this machine.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/exit_code.h"
#include "tests/kit/by_build.h"
#include "tests/kit/real_model.h"
#include "tests/system/system_fixture.h"

namespace sutra::test {
namespace {

class RealModel : public SystemTest {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(RealModelDirectory() + "/model.safetensors")) {
      GTEST_SKIP() << "no model at " << RealModelDirectory() << ": run tools/setup/fetch_deps, or set SUTRA_MODEL_DIR";
    }
  }
  static EngineOptions Torch(const std::string& model, const std::string& precision = "fp32") {
    EngineOptions options;
    options.args = {"--backend", "torch", "--model", model, "--precision", precision, "--threads", "2"};
    return options;
  }
  static double Length(const std::vector<float>& vector) {
    double sum = 0;
    for (const float value : vector) sum += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(sum);
  }
  static double Dot(const std::vector<float>& left, const std::vector<float>& right) {
    double sum = 0;
    for (size_t i = 0; i < left.size(); ++i) sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
    return sum;
  }
  // A copy of the model directory that a test may damage; the large files are links.
  static std::string CopyOfModel(const TempDir& directory, const std::string& damaged) {
    const std::string copy = directory / "damaged-model";
    std::filesystem::create_directories(copy);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(RealModelDirectory())) {
      const std::filesystem::path target = copy / std::filesystem::relative(entry.path(), RealModelDirectory());
      if (entry.is_directory()) {
        std::filesystem::create_directories(target);
      } else if (entry.path().filename() == damaged) {
        std::filesystem::copy_file(std::filesystem::canonical(entry.path()), target);
      } else {
        std::filesystem::create_symlink(std::filesystem::canonical(entry.path()), target);
      }
    }
    return copy;
  }
  static void ExpectCannotStart(EngineProcess& engine, const std::string& named) {
    engine.Launch();
    const ExitStatus status = engine.WaitEnd();
    EXPECT_TRUE(status.exited && status.code == kExitCannotStart) << ToText(status);
    EXPECT_NE(engine.Log().find(named), std::string::npos) << engine.Log();
  }
};

const std::vector<std::string>& Sentences() {
  static const std::vector<std::string> texts = {"Apple Inc. reported quarterly revenue of 94.9 billion dollars.",
                                                 "The iPhone maker earned 94.9 billion dollars in the quarter.",
                                                 "A recipe for potato soup with leek and cream."};
  return texts;
}

TEST_F(RealModel, EmbedsThenAnswersTheSameAfterAKill) {
  EngineProcess engine(Torch(RealModelDirectory()));
  ASSERT_TRUE(engine.Start());
  std::vector<Reply> before;
  {
    const ClientHandle client = Attached(engine);
    EXPECT_EQ(client.info().width, 384u);
    before = client.EmbedBatch(Sentences());
  }
  for (const Reply& reply : before) {
    ASSERT_EQ(reply.status, SUTRA_OK);
    EXPECT_EQ(reply.source, SUTRA_SOURCE_MODEL);
    EXPECT_NEAR(Length(reply.vector), 1.0, 1e-5);
  }
  // What the model is for: the first two mean the same, the third does not.
  EXPECT_GT(Dot(before[0].vector, before[1].vector), Dot(before[0].vector, before[2].vector) + 0.3);
  ASSERT_TRUE(engine.WaitWritten());
  engine.Kill();
  ASSERT_TRUE(engine.Start());
  const std::vector<Reply> after = Attached(engine).EmbedBatch(Sentences());
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_TRUE(after[i].FromCache());
    EXPECT_EQ(after[i].token_count, before[i].token_count);
    EXPECT_TRUE(SameVector(after[i].vector, before[i].vector));
  }
}

// A host without libtorch: the plug-in cannot be found, and a model is served nevertheless.
TEST_F(RealModel, IsServedWithoutLibtorch) {
  EngineProcess engine(Torch(RealModelDirectory()));
  engine.options().environment = {"SUTRA_TORCH_PLUGIN=/nowhere/libsutra_torch.so"};
  ASSERT_TRUE(engine.Start());
  EXPECT_EQ(Attached(engine).Embed(Sentences()[0]).status, SUTRA_OK);
  EXPECT_EQ(ReadFile("/proc/" + std::to_string(engine.process().pid()) + "/maps").find("libtorch"), std::string::npos);
}

// The vectors of sentence-transformers on the same texts (tests/engine/model), now through lanes, batches and both
// sources.
TEST_F(RealModel, AnswersWhatSentenceTransformersAnswers) {
  std::ifstream text_file(SUTRA_MODEL_FIXTURES "/texts.json");
  auto texts = nlohmann::json::parse(text_file).get<std::vector<std::string>>();
  ASSERT_GE(texts.size(), 200u);
  EngineProcess engine(Torch(RealModelDirectory()));
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  const size_t width = client.info().width;
  const std::string expected = ReadFile(SUTRA_MODEL_FIXTURES "/vectors.f32");
  ASSERT_EQ(expected.size(), texts.size() * width * sizeof(float));
  texts.resize(ByBuild<size_t>(texts.size(), 40, 12));  // checked kernels are slow, and a text waits 30 s at most
  for (const bool stored : {false, true}) {
    const std::vector<Reply> replies = client.EmbedBatch(texts);
    float difference_max = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      ASSERT_EQ(replies[i].status, SUTRA_OK) << texts[i];
      std::vector<float> row(width);
      std::memcpy(row.data(), expected.data() + i * width * sizeof(float), width * sizeof(float));
      for (size_t k = 0; k < width; ++k) {
        difference_max = std::max(difference_max, std::fabs(row[k] - replies[i].vector[k]));
      }
      if (stored) {
        EXPECT_TRUE(replies[i].FromCache()) << texts[i];
      }
    }
    EXPECT_LE(difference_max, 2e-5F);
  }
}

TEST_F(RealModel, ABatchAnswersAsSingleTextsDo) {
  EngineProcess engine(Torch(RealModelDirectory()));
  engine.options().args.push_back("--no-cache");
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  std::vector<std::string> texts = Sentences();
  for (int i = 0; i < 30; ++i) {
    texts.push_back("Sentence number " + std::to_string(i) + std::string(static_cast<size_t>(i) * 5, 'y'));
  }
  const std::vector<Reply> together = client.EmbedBatch(texts);
  for (size_t i = 0; i < texts.size(); ++i) {
    const Reply alone = client.Embed(texts[i]);
    ASSERT_EQ(alone.status, SUTRA_OK);
    ASSERT_EQ(together[i].status, SUTRA_OK);
    EXPECT_GT(Dot(alone.vector, together[i].vector), 0.99999) << texts[i];
  }
}

TEST_F(RealModel, AnotherPrecisionIsAnotherIdentityInTheSameData) {
  EngineProcess engine(Torch(RealModelDirectory(), "fp32"));
  ASSERT_TRUE(engine.Start());
  std::string fp32;
  Reply exact;
  {
    const ClientHandle client = Attached(engine);
    fp32 = client.info().identity;
    exact = client.Embed(Sentences()[0]);
  }
  EXPECT_EQ(engine.Terminate().code, kExitClean);
  engine.options().args = Torch(RealModelDirectory(), "bf16").args;
  ASSERT_TRUE(engine.Start());
  const ClientHandle client = Attached(engine);
  EXPECT_NE(fp32, client.info().identity);
  const Reply rounded = client.Embed(Sentences()[0]);
  ASSERT_EQ(rounded.status, SUTRA_OK);
  EXPECT_EQ(rounded.source, SUTRA_SOURCE_MODEL);  // never the other precision's entry
  EXPECT_GT(Dot(exact.vector, rounded.vector), 0.9995);
}

TEST_F(RealModel, ADamagedModelIsNamedAndNeverServed) {
  EngineProcess engine;
  const std::string weights = "model.safetensors";
  const std::string copy = CopyOfModel(engine.directory(), weights);
  engine.options().args = Torch(copy).args;
  ASSERT_EQ(truncate((copy + "/" + weights).c_str(), 1'000'000), 0);
  ExpectCannotStart(engine, weights);
  WriteFile(copy + "/" + weights, "not weights at all");
  ExpectCannotStart(engine, weights);
  std::filesystem::remove(copy + "/" + weights);
  ExpectCannotStart(engine, weights);
}

TEST_F(RealModel, ADamagedConfigurationIsNamed) {
  EngineProcess engine;
  const std::string copy = CopyOfModel(engine.directory(), "config.json");
  engine.options().args = Torch(copy).args;
  WriteFile(copy + "/config.json", "{\"hidden_size\": ");
  ExpectCannotStart(engine, "config.json");
  std::filesystem::remove(copy + "/config.json");
  ExpectCannotStart(engine, "config.json");
}

}  // namespace
}  // namespace sutra::test
