// Sets that compute wrongly, execute instructions that the CPU lacks, or never return: none harms this process.
#include "engine/cpu/kernel_trial.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "engine/cpu/features.h"
#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {
namespace {

const KernelTable& Good() { return *PortableKernels(Element::kF32); }

KernelTable With(void (*gemm)(const GemmCall&)) {
  KernelTable table = Good();
  table.gemm = gemm;
  return table;
}

void Illegal(const GemmCall&) {
#if defined(__x86_64__)
  asm volatile("ud2");
#else
  (void)std::raise(SIGILL);
#endif
}

void Wrong(const GemmCall& call) {
  Good().gemm(call);
  if (call.output == GemmOutput::kAddToF32) static_cast<float*>(call.c)[5 * call.c_stride + 17] += 0.01F;
}

TEST(KernelTrial, ThePortableSetsPass) {
  const KernelTable* sets[] = {PortableKernels(Element::kF32), PortableKernels(Element::kBf16)};
  for (const TrialResult& result : TryKernels(sets)) EXPECT_EQ(result.problem, "") << result.kernels->name;
}

TEST(KernelTrial, ASetOfIllegalInstructionsCostsAChildAndNoOtherSet) {
  const KernelTable illegal = With(Illegal);
  const KernelTable* sets[] = {&illegal, &Good(), &illegal, &illegal, &Good()};
  const std::vector<TrialResult> results = TryKernels(sets);
  ASSERT_EQ(results.size(), 5U);
  for (const size_t i : {0U, 2U, 3U}) {
    EXPECT_NE(results[i].problem.find("dies of Illegal instruction"), std::string::npos) << results[i].problem;
  }
  EXPECT_EQ(results[1].problem, "");
  EXPECT_EQ(results[4].problem, "");
  EXPECT_EQ(results[2].kernels, &illegal);
}

// The engine has a handler of SIGBUS, and blocks signals: the child must die all the same.
TEST(KernelTrial, HandlersAndMasksOfThisProcessDoNotKeepABadSetAlive) {
  struct sigaction ignore = {}, before = {};
  ignore.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGILL, &ignore, &before), 0);
  const KernelTable illegal = With(Illegal);
  const KernelTable* sets[] = {&illegal};
  EXPECT_EQ(TryKernels(sets)[0].problem, "dies of Illegal instruction") << "at once, not when its time is over";
  sigaction(SIGILL, &before, nullptr);
}

TEST(KernelTrial, AWrongNumberIsFoundInEachFunction) {
  KernelTable attention = Good(), normalize = Good(), embed = Good(), mean = Good(), activation = Good();
  attention.attention = [](const AttentionCall& call) {
    Good().attention(call);
    static_cast<float*>(call.context)[3 * call.context_stride + call.width - 1] *= 1.01F;
  };
  normalize.normalize = [](const NormalizeCall& call) {
    Good().normalize(call);
    static_cast<float*>(call.elements)[call.stride + 1] += 0.01F;
  };
  embed.embed = [](const EmbedCall& call) {
    Good().embed(call);
    call.x[2 * call.x_stride] += 0.1F;
  };
  mean.mean = [](const MeanCall& call) {
    Good().mean(call);
    call.out[call.width - 1] += 0.01F;
  };
  activation.gemm = [](const GemmCall& call) {
    Good().gemm(call);
    if (call.output == GemmOutput::kElementActivated) static_cast<float*>(call.c)[1] += 0.1F;
  };
  const KernelTable product = With(Wrong);
  const KernelTable* sets[] = {&product, &attention, &normalize, &embed, &mean, &activation, &Good()};
  const std::vector<TrialResult> results = TryKernels(sets);
  for (size_t i = 0; i + 1 < results.size(); ++i) EXPECT_EQ(results[i].problem, "computes wrong results") << i;
  EXPECT_EQ(results.back().problem, "");
  EXPECT_FALSE(KernelsComputeCorrectly(product));
  EXPECT_TRUE(KernelsComputeCorrectly(Good()));
}

TEST(KernelTrial, SetsWithInt8ProductsAreTriedWithThem) {
  static const Int8Kernels good = *PortableInt8Kernels(Element::kF32);
  Int8Kernels quantise = good, second_term = good, normalize = good, product = good;
  quantise.quantise = [](const QuantiseCall& call) {
    good.quantise(call);
    call.out.values[2 * call.out.stride + 5] ^= 1;
  };
  second_term.quantise = [](const QuantiseCall& call) {
    good.quantise(call);
    call.out.remainders[call.out.two_term_begin * call.out.stride] ^= 1;
  };
  normalize.normalize_quantise = [](const NormalizeQuantiseCall& call) {
    good.normalize_quantise(call);
    call.out.scale[3] *= 1.01F;
  };
  product.gemm = [](const Int8GemmCall& call) {
    good.gemm(call);
    static_cast<float*>(call.c)[7 * call.c_stride + 100] *= 1.01F;
  };
  for (const Int8Kernels* wrong : {&quantise, &second_term, &normalize, &product}) {
    KernelTable table = Good();
    table.int8 = wrong;
    EXPECT_FALSE(KernelsComputeCorrectly(table)) << wrong - &quantise;
  }
  const Features& features = DetectFeatures();
  std::vector<const KernelTable*> sets;
  if (features.avx512_vnni && Avx512VnniKernels() != nullptr) sets.push_back(Avx512VnniKernels());
  if (features.avx512_vnni && features.avx512_bf16 && Avx512VnniBf16Kernels() != nullptr) {
    sets.push_back(Avx512VnniBf16Kernels());
  }
  for (const TrialResult& result : TryKernels(sets)) EXPECT_EQ(result.problem, "") << result.kernels->name;
}

TEST(KernelTrial, ASetThatEndsTheProcessIsNotUsed) {
  const KernelTable ends = With([](const GemmCall&) { _exit(0); });
  const KernelTable* sets[] = {&ends, &Good()};
  const std::vector<TrialResult> results = TryKernels(sets);
  EXPECT_EQ(results[0].problem, "ends the process");
  EXPECT_EQ(results[1].problem, "");
}

// As under a parent that ignores the death of its children: nobody can be waited for.
TEST(KernelTrial, VerdictsNeedNoStatusOfTheChild) {
  ASSERT_NE(std::signal(SIGCHLD, SIG_IGN), SIG_ERR);
  const KernelTable illegal = With(Illegal);
  const KernelTable* sets[] = {&Good(), &illegal, &Good()};
  const std::vector<TrialResult> results = TryKernels(sets);
  std::signal(SIGCHLD, SIG_DFL);
  EXPECT_EQ(results[0].problem, "");
  EXPECT_NE(results[1].problem, "");
  EXPECT_EQ(results[2].problem, "");
}

}  // namespace
}  // namespace sutra::cpu
