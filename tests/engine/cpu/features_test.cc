// What a CPU is said to have, and what a cap leaves of it.
#include "engine/cpu/features.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace sutra::cpu {
namespace {

constexpr Features kAll = {.avx2 = true,
                           .avx_vnni = true,
                           .avx512 = true,
                           .avx512_vnni = true,
                           .avx512_bf16 = true,
                           .amx_bf16 = true,
                           .amx_int8 = true};

std::string Under(CpuIsa isa) { return DescribeFeatures(Capped(kAll, isa)); }

TEST(CpuFeatures, ACapKeepsWhatIsBelowIt) {
  EXPECT_EQ(Under(CpuIsa::kPortable), "neither AVX2 nor AVX-512");
  EXPECT_EQ(Under(CpuIsa::kAvx2), "avx2");
  EXPECT_EQ(Under(CpuIsa::kAvxVnni), "avx2 avx_vnni");
  EXPECT_EQ(Under(CpuIsa::kAvx512), "avx2 avx_vnni avx512");
  EXPECT_EQ(Under(CpuIsa::kAvx512Vnni), "avx2 avx_vnni avx512 avx512_vnni");
  EXPECT_EQ(Under(CpuIsa::kAvx512Bf16), "avx2 avx_vnni avx512 avx512_vnni avx512_bf16");
  EXPECT_EQ(Under(CpuIsa::kAmx), "avx2 avx_vnni avx512 avx512_vnni avx512_bf16 amx_bf16 amx_int8");
  EXPECT_EQ(Under(CpuIsa::kAuto), Under(CpuIsa::kAmx));
}

TEST(CpuFeatures, ACapAddsNothing) { EXPECT_EQ(DescribeFeatures(Capped({}, CpuIsa::kAuto)), DescribeFeatures({})); }

// The kernel reads CPUID on its own, and lists what it enabled. It knows the permission of tiles only per process.
TEST(CpuFeatures, AreThoseThatTheKernelLists) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) flags.insert(word);
    break;
  }
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo lists no flags of x86";
  const auto has = [&flags](const char* flag) { return flags.contains(flag); };
  const Features& features = DetectFeatures();
  EXPECT_EQ(features.avx2, has("avx2") && has("fma"));
  EXPECT_EQ(features.avx_vnni, has("avx_vnni"));
  EXPECT_EQ(features.avx512, has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl") && has("fma"));
  EXPECT_EQ(features.avx512_vnni, features.avx512 && has("avx512_vnni"));
  EXPECT_EQ(features.avx512_bf16, features.avx512 && has("avx512_bf16"));
  EXPECT_LE(features.amx_bf16, has("amx_bf16"));
  EXPECT_LE(features.amx_int8, has("amx_int8"));
}

TEST(CpuFeatures, TheCpuHasANameWithoutPadding) {
  const std::string name = CpuName();
  ASSERT_FALSE(name.empty());
  EXPECT_NE(name.front(), ' ');
  EXPECT_NE(name.back(), ' ');
}

}  // namespace
}  // namespace sutra::cpu
