// What computes: our kernels, the torch plug-in, or the portable kernels where neither is available.
#include "engine/backend_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "engine/cpu/features.h"
#include "engine/cpu/kernel_choice.h"
#include "shm/base/thread_affinity.h"
#include "tests/kit/temp_dir.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class BackendChoice : public testing::Test {
 protected:
  void SetUp() override { model_.Save(); }
  void TearDown() override { unsetenv("SUTRA_TORCH_PLUGIN"); }
  // As on a host without libtorch.
  static void HideThePlugin() { setenv("SUTRA_TORCH_PLUGIN", "/nowhere/libsutra_torch.so", 1); }
  static std::string Message(const BackendOptions& options) { return MakeModelBackends(options).status().message(); }

  TinyModel model_;
};

TEST_F(BackendChoice, OwnKernelsNeedNoTorch) {
  HideThePlugin();
  auto backend = MakeModelBackends({.model_dir = model_.path(), .precision = Precision::kF32, .threads = 2});
  ASSERT_TRUE(backend.ok()) << backend.status().message();
  EXPECT_EQ(backend->front()->info().precision, "fp32");
  EXPECT_EQ(backend->front()->info().device, "cpu");
}

TEST_F(BackendChoice, ModelOfAnyShapeIsServedWithoutTorch) {
  TinyModel odd({.hidden = 24, .heads = 3, .intermediate = 40, .layers = 1, .positions = 40});
  odd.Save();
  HideThePlugin();
  for (const Precision precision : {Precision::kAuto, Precision::kF32, Precision::kBf16}) {
    auto backend = MakeModelBackends({.model_dir = odd.path(), .precision = precision});
    ASSERT_TRUE(backend.ok()) << backend.status().message();
    const auto choice = cpu::ChooseKernels(precision);
    EXPECT_EQ(backend->front()->info().precision, Name(choice->front().precision)) << "the shape does not matter";
  }
}

// Whichever worker takes a text, its vector is the same; the canary is asked of each.
TEST_F(BackendChoice, EachCoreGroupHasABackendOfTheSameModel) {
  const BackendOptions options = {.model_dir = model_.path(), .threads = 3, .core_groups = 2};
  testing::internal::CaptureStdout();
  auto backends = MakeModelBackends(options);
  const std::string log = testing::internal::GetCapturedStdout();
  ASSERT_TRUE(backends.ok()) << backends.status().message();
  EXPECT_NE(log.find("2 groups of cores: 1 thread"), std::string::npos) << log;
  ASSERT_EQ(backends->size(), 2u);
  const std::vector<int32_t> ids = {2, 5, 6, 7, 3}, offsets = {0, 5};
  std::vector<std::vector<float>> vectors;
  for (const auto& backend : *backends) {
    EXPECT_EQ(backend->info().identity, backends->front()->info().identity);
    EXPECT_EQ(&backend->tokenizer(), &backends->front()->tokenizer());
    vectors.emplace_back(backend->info().width);
    float* const outputs[] = {vectors.back().data()};
    ASSERT_TRUE(backend->Embed({ids, offsets}, outputs).ok());
  }
  EXPECT_EQ(vectors[0], vectors[1]);
  EXPECT_EQ((*backends)[1]->round_tokens(), 2 * (*backends)[0]->round_tokens()) << "a chunk for each thread";
  const std::vector<uint32_t> allowed = AllowedCpus();
  if (allowed.size() < 2) return;
  EXPECT_FALSE((*backends)[0]->cpus().empty());
  EXPECT_EQ((*backends)[0]->cpus().size() + (*backends)[1]->cpus().size(), allowed.size());
  std::thread([&] {
    ASSERT_TRUE(StayOnCpus((*backends)[1]->cpus()));
    EXPECT_TRUE(std::ranges::equal(AllowedCpus(), (*backends)[1]->cpus()));
  }).join();
}

TEST_F(BackendChoice, MissingPluginIsNamedWithTheFixWhereItIsAskedFor) {
  HideThePlugin();
  const std::string torch = Message({.model_dir = model_.path(), .executor = Executor::kTorch});
  EXPECT_NE(torch.find("/nowhere/libsutra_torch.so"), std::string::npos) << torch;
  EXPECT_NE(torch.find("SUTRA_TORCH_PLUGIN"), std::string::npos) << torch;
  const std::string cuda = Message({.model_dir = model_.path(), .device = Device::kCuda});
  EXPECT_NE(cuda.find("/nowhere/libsutra_torch.so"), std::string::npos) << cuda;
}

TEST_F(BackendChoice, ExecutorCpuOnACudaDeviceIsRefused) {
  const auto backend =
      MakeModelBackends({.model_dir = model_.path(), .device = Device::kCuda, .executor = Executor::kCpu});
  EXPECT_EQ(backend.code(), StatusCode::kBadOption);
  EXPECT_NE(backend.status().message().find("--executor"), std::string::npos);
}

TEST_F(BackendChoice, ACapOnInstructionsIsForOurKernels) {
  HideThePlugin();
  const std::string torch =
      Message({.model_dir = model_.path(), .executor = Executor::kTorch, .cpu_isa = CpuIsa::kAvx2});
  EXPECT_NE(torch.find("--cpu-isa avx2"), std::string::npos) << torch;
  EXPECT_NE(torch.find("--executor cpu"), std::string::npos) << torch;
  testing::internal::CaptureStdout();
  EXPECT_TRUE(MakeModelBackends({.model_dir = model_.path(), .cpu_isa = CpuIsa::kPortable}).ok());
  const std::string log = testing::internal::GetCapturedStdout();
  EXPECT_NE(log.find("(portable)"), std::string::npos) << log;
  EXPECT_EQ(log.find("libtorch"), std::string::npos) << log;
}

TEST_F(BackendChoice, MissingModelIsNamed) {
  EXPECT_NE(Message({.model_dir = "/nowhere/model"}).find("/nowhere/model"), std::string::npos);
}

// Int8 is another identity with a note on its recipe, is not chosen by itself, and is kept for the next start.
TEST_F(BackendChoice, Int8IsAChoiceOfItsOwn) {
  HideThePlugin();
  const test::TempDir data;
  BackendOptions options = {.model_dir = model_.path(), .precision = Precision::kInt8};
  options.cpu_isa = CpuIsa::kPortable;
  options.int8_cosine_min = 0;
  options.packed_dir = data.path() + "/packed";
  auto backend = MakeModelBackends(options);
  ASSERT_TRUE(backend.ok()) << backend.status().message();
  EXPECT_EQ(backend->front()->info().precision, "int8");
  EXPECT_TRUE(std::filesystem::exists(options.packed_dir + "/" + backend->front()->info().identity + ".int8"));
  for (const Precision precision : {Precision::kAuto, Precision::kF32, Precision::kBf16}) {
    auto other = MakeModelBackends({.model_dir = model_.path(), .precision = precision});
    ASSERT_TRUE(other.ok()) << other.status().message();
    EXPECT_NE(other->front()->info().precision, "int8");
    EXPECT_NE(other->front()->info().identity, backend->front()->info().identity);
  }
}

TEST_F(BackendChoice, Int8ThatLosesTooMuchIsRefusedWithTheOptionThatAcceptsIt) {
  BackendOptions options = {.model_dir = model_.path(), .precision = Precision::kInt8};
  options.cpu_isa = CpuIsa::kPortable;
  options.int8_cosine_min = 1;
  const std::string message = Message(options);
  EXPECT_NE(message.find("--int8-cosine-min"), std::string::npos) << message;
  EXPECT_NE(message.find("--precision bf16"), std::string::npos) << message;
}

TEST_F(BackendChoice, Int8WithoutFastKernelsSaysWhatIsMissing) {
  const std::string capped =
      Message({.model_dir = model_.path(), .precision = Precision::kInt8, .cpu_isa = CpuIsa::kAvx2});
  EXPECT_NE(capped.find("--cpu-isa"), std::string::npos) << capped;
  EXPECT_NE(capped.find("AVX512_VNNI"), std::string::npos) << capped;
  EXPECT_NE(capped.find("--precision auto"), std::string::npos) << capped;
}

TEST_F(BackendChoice, Int8IsNotForTorch) {
  for (const BackendOptions& options :
       {BackendOptions{.model_dir = model_.path(), .precision = Precision::kInt8, .executor = Executor::kTorch},
        BackendOptions{.model_dir = model_.path(), .precision = Precision::kInt8, .device = Device::kCuda}}) {
    EXPECT_EQ(MakeModelBackends(options).code(), StatusCode::kBadOption);
  }
}

}  // namespace
}  // namespace sutra
