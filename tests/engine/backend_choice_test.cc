// What computes: our kernels, the torch plug-in, or the portable kernels where neither is available.
#include "engine/backend_choice.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/cpu/features.h"
#include "engine/cpu/kernel_choice.h"
#include "tests/kit/tiny_model.h"

namespace sutra {
namespace {

class BackendChoice : public testing::Test {
 protected:
  void SetUp() override { model_.Save(); }
  void TearDown() override {
    unsetenv("SUTRA_CPU_KERNELS");
    unsetenv("SUTRA_TORCH_PLUGIN");
  }
  // As on a host without libtorch.
  static void HideThePlugin() { setenv("SUTRA_TORCH_PLUGIN", "/nowhere/libsutra_torch.so", 1); }
  static std::string Message(const BackendOptions& options) { return MakeModelBackend(options).status().message(); }

  TinyModel model_;
};

TEST_F(BackendChoice, OwnKernelsNeedNoTorch) {
  HideThePlugin();
  auto backend = MakeModelBackend({.model_dir = model_.path(), .precision = Precision::kF32, .threads = 2});
  ASSERT_TRUE(backend.ok()) << backend.status().message();
  EXPECT_EQ((*backend)->info().precision, "fp32");
  EXPECT_EQ((*backend)->info().device, "cpu");
}

TEST_F(BackendChoice, ModelOfAnyShapeIsServedWithoutTorch) {
  TinyModel odd({.hidden = 24, .heads = 3, .intermediate = 40, .layers = 1, .positions = 40});
  odd.Save();
  HideThePlugin();
  for (const Precision precision : {Precision::kAuto, Precision::kF32, Precision::kBf16}) {
    auto backend = MakeModelBackend({.model_dir = odd.path(), .precision = precision});
    ASSERT_TRUE(backend.ok()) << backend.status().message();
    const auto choice = cpu::ChooseKernels(EncoderSpec{}, precision);
    EXPECT_EQ((*backend)->info().precision, Name(choice->precision)) << "the shape does not matter";
  }
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
      MakeModelBackend({.model_dir = model_.path(), .device = Device::kCuda, .executor = Executor::kCpu});
  EXPECT_EQ(backend.code(), StatusCode::kBadOption);
  EXPECT_NE(backend.status().message().find("--executor"), std::string::npos);
}

TEST_F(BackendChoice, EnvironmentForcesTorchOrASet) {
  HideThePlugin();
  setenv("SUTRA_CPU_KERNELS", "aten", 1);
  EXPECT_FALSE(MakeModelBackend({.model_dir = model_.path()}).ok());
  setenv("SUTRA_CPU_KERNELS", "portable", 1);
  EXPECT_TRUE(MakeModelBackend({.model_dir = model_.path(), .executor = Executor::kTorch}).ok());
}

TEST_F(BackendChoice, MissingModelIsNamed) {
  EXPECT_NE(Message({.model_dir = "/nowhere/model"}).find("/nowhere/model"), std::string::npos);
}

}  // namespace
}  // namespace sutra
