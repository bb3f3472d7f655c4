// Which kernel sets are chosen, by precision and cap, and in which order.
#include "engine/cpu/kernel_choice.h"

#include <gtest/gtest.h>

#include <csignal>

#include "engine/cpu/features.h"

namespace sutra::cpu {
namespace {

KernelChoice First(Precision precision, CpuIsa isa_max = CpuIsa::kAuto) {
  Result<std::vector<KernelChoice>> choices = ChooseKernels(precision, isa_max);
  if (!choices.ok()) {
    ADD_FAILURE() << choices.status().message();
    return {};
  }
  return choices->front();
}

TEST(KernelChoice, Fp32TakesTheFastestFp32SetOfThisCpu) {
  const KernelChoice choice = First(Precision::kF32);
  EXPECT_EQ(choice.precision, Precision::kF32);
  const Features& features = DetectFeatures();
  EXPECT_EQ(choice.kernels, features.avx512 ? Avx512Kernels()
                            : features.avx2 ? Avx2Kernels()
                                            : PortableKernels(Element::kF32));
  EXPECT_EQ(choice.portable(), choice.kernels == PortableKernels(Element::kF32));
}

TEST(KernelChoice, AutoNeverTakesBf16WhereTheCpuDoesNotMultiplyIt) {
  const KernelChoice choice = First(Precision::kAuto);
  if (!DetectFeatures().avx512_bf16) {
    EXPECT_EQ(choice.precision, Precision::kF32);
  }
  EXPECT_EQ(choice.kernels->element, choice.precision == Precision::kF32 ? Element::kF32 : Element::kBf16);
}

TEST(KernelChoice, ASetThatIsNotTrustedIsFollowedByTheNextAndPortableIsLast) {
  const auto choices = ChooseKernels(Precision::kAuto);
  ASSERT_TRUE(choices.ok());
  EXPECT_EQ(choices->back().kernels, PortableKernels(Element::kF32));
  for (size_t i = 1; i < choices->size(); ++i) {
    EXPECT_FALSE((*choices)[i - 1].precision == Precision::kF32 && (*choices)[i].precision == Precision::kBf16);
    EXPECT_NE((*choices)[i - 1].kernels, (*choices)[i].kernels);
  }
  const auto bf16 = ChooseKernels(Precision::kBf16);
  ASSERT_TRUE(bf16.ok());
  for (const KernelChoice& choice : *bf16) {
    EXPECT_EQ(choice.precision, Precision::kBf16) << "what was asked for is not replaced by something else";
  }
}

TEST(KernelChoice, ACapKeepsFasterSetsOut) {
  EXPECT_EQ(First(Precision::kAuto, CpuIsa::kPortable).kernels, PortableKernels(Element::kF32));
  EXPECT_EQ(First(Precision::kBf16, CpuIsa::kPortable).kernels, PortableKernels(Element::kBf16));
  for (const auto& [name, isa] : kCpuIsaNames) {
    const KernelChoice choice = First(Precision::kAuto, isa);
    if (isa < CpuIsa::kAvx512) {
      EXPECT_NE(choice.kernels, Avx512Kernels()) << name;
    }
    if (isa < CpuIsa::kAvx512Bf16) {
      EXPECT_EQ(choice.precision, Precision::kF32) << name;
    }
    if (isa < CpuIsa::kAmx) {
      EXPECT_NE(choice.kernels, AmxKernels()) << name;
    }
  }
}

TEST(KernelChoice, SetsThatFailTheirTrialAreLeftOutByNameAndReason) {
  const KernelTable good = *PortableKernels(Element::kF32);
  KernelTable dies = good, wrong = good;
  dies.name = "one that dies", wrong.name = "one that errs";
  dies.gemm = [](const GemmCall&) { (void)std::raise(SIGILL); };
  wrong.embed = [](const EmbedCall&) {};
  const TrustedKernels trusted = TrustedSets({&dies, &good, &wrong});
  EXPECT_EQ(trusted.sets, std::vector{&good});
  EXPECT_EQ(trusted.left_out, "one that dies dies of Illegal instruction, one that errs computes wrong results");
  EXPECT_EQ(TrustedSets({&good}).left_out, "");
}

TEST(KernelChoice, AnEmulationSaysWhatItReplaces) {
  EXPECT_EQ(WhyBf16IsEmulated("amx dies of Illegal instruction", CpuIsa::kAuto),
            "the kernels that multiply it failed their trial (amx dies of Illegal instruction)");
  EXPECT_EQ(WhyBf16IsEmulated("", CpuIsa::kPortable), "--cpu-isa portable leaves out all others");
  EXPECT_EQ(WhyBf16IsEmulated("", CpuIsa::kAuto),
            "this CPU (" + CpuName() + "; " + DescribeFeatures(DetectFeatures()) + ") does not multiply it");
}

TEST(KernelChoice, APrecisionThatTheCapRulesOutIsRefusedWithCapCpuAndFix) {
  if (!DetectFeatures().avx512_bf16) GTEST_SKIP() << "this CPU has no bf16: it is emulated whatever the cap";
  const Status status = ChooseKernels(Precision::kBf16, CpuIsa::kAvx512).status();
  EXPECT_EQ(status.code(), StatusCode::kBadOption);
  for (const std::string& part : {std::string("--cpu-isa is avx512."), CpuName(), std::string("--precision fp32")}) {
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace sutra::cpu
