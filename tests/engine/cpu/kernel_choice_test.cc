// Which kernel set is chosen, by precision and SUTRA_CPU_KERNELS.
#include "engine/cpu/kernel_choice.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/cpu/features.h"

namespace sutra::cpu {
namespace {

constexpr EncoderSpec kMiniLm = {.hidden = 384, .layers = 6, .heads = 12, .intermediate = 1536};

class KernelChoiceTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("SUTRA_CPU_KERNELS"); }
  static void Force(const char* name) { setenv("SUTRA_CPU_KERNELS", name, 1); }
};

TEST_F(KernelChoiceTest, Fp32TakesTheFastestFp32SetOfThisCpu) {
  const Result<KernelChoice> choice = ChooseKernels(kMiniLm, Precision::kF32);
  ASSERT_TRUE(choice.ok());
  EXPECT_EQ(choice->precision, Precision::kF32);
  const Features& features = DetectFeatures();
  EXPECT_EQ(choice->kernels, features.avx512 ? Avx512Kernels()
                             : features.avx2 ? Avx2Kernels()
                                             : PortableKernels(Element::kF32));
  EXPECT_EQ(choice->portable(), !features.avx512 && !features.avx2);
}

TEST_F(KernelChoiceTest, NoShapeFallsBackToThePortableSet) {
  EncoderSpec odd = kMiniLm;
  odd.intermediate = 100;
  odd.heads = 4;
  EXPECT_EQ(ChooseKernels(odd, Precision::kF32)->kernels, ChooseKernels(kMiniLm, Precision::kF32)->kernels);
  EXPECT_EQ(ChooseKernels(odd, Precision::kBf16)->kernels, ChooseKernels(kMiniLm, Precision::kBf16)->kernels);
}

TEST_F(KernelChoiceTest, AutoNeverTakesBf16WhereTheCpuDoesNotMultiplyIt) {
  const Result<KernelChoice> choice = ChooseKernels(kMiniLm, Precision::kAuto);
  if (!DetectFeatures().avx512_bf16) {
    EXPECT_EQ(choice->precision, Precision::kF32);
  }
  EXPECT_EQ(choice->kernels->element, choice->precision == Precision::kF32 ? Element::kF32 : Element::kBf16);
}

TEST_F(KernelChoiceTest, EnvironmentForcesOneSetInBothPrecisions) {
  Force("portable");
  EXPECT_EQ(ChooseKernels(kMiniLm, Precision::kAuto)->kernels, PortableKernels(Element::kF32));
  EXPECT_EQ(ChooseKernels(kMiniLm, Precision::kBf16)->kernels, PortableKernels(Element::kBf16));
}

TEST_F(KernelChoiceTest, ForcedSetThatDoesNotFitIsRefusedByName) {
  Force("neon");
  EXPECT_NE(ChooseKernels(kMiniLm, Precision::kAuto).status().message().find("neon"), std::string::npos);
  Force("avx512");
  EXPECT_EQ(ChooseKernels(kMiniLm, Precision::kBf16).code(), StatusCode::kModelError);
  if (DetectFeatures().avx512) {
    EXPECT_EQ(ChooseKernels(kMiniLm, Precision::kAuto)->precision, Precision::kF32);
  }
}

}  // namespace
}  // namespace sutra::cpu
