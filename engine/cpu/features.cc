#include "engine/cpu/features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace sutra::cpu {
namespace {

constexpr unsigned kAmxTileBit = 1U << 24;
constexpr unsigned kAmxBf16Bit = 1U << 22;
constexpr unsigned kAmxInt8Bit = 1U << 25;
constexpr unsigned kAvxVnniBit = 1U << 4;
constexpr uint64_t kXcr0Tiles = (1U << 17) | (1U << 18);
constexpr long kArchRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr long kTileDataFeature = 18;

uint64_t EnabledStates() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return 0;
  unsigned low = 0;
  unsigned high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// The kernel grants tile registers to a process only on request, because they enlarge every signal frame.
bool TilesPermitted() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kAmxTileBit) == 0 || (edx & kAmxBf16Bit) == 0) return false;
  if ((EnabledStates() & kXcr0Tiles) != kXcr0Tiles) return false;
  return syscall(SYS_arch_prctl, kArchRequestPermission, kTileDataFeature) == 0;
}

Features Detect() {
  __builtin_cpu_init();
  Features found;
  found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  found.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("fma");
  found.avx512_bf16 = found.avx512 && __builtin_cpu_supports("avx512bf16");
  found.avx512_vnni = found.avx512 && __builtin_cpu_supports("avx512vnni");
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  found.avx_vnni = found.avx2 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnniBit) != 0;
  found.amx_bf16 = found.avx512_bf16 && TilesPermitted();
  found.amx_int8 = found.amx_bf16 && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kAmxInt8Bit) != 0;
  return found;
}

}  // namespace

const Features& DetectFeatures() {
  static const Features features = Detect();
  return features;
}

std::string DescribeFeatures(const Features& features) {
  std::string text;
  const auto add = [&text](bool present, const char* name) {
    if (!present) return;
    if (!text.empty()) text += ' ';
    text += name;
  };
  add(features.avx2, "avx2");
  add(features.avx_vnni, "avx_vnni");
  add(features.avx512, "avx512");
  add(features.avx512_vnni, "avx512_vnni");
  add(features.avx512_bf16, "avx512_bf16");
  add(features.amx_bf16, "amx_bf16");
  add(features.amx_int8, "amx_int8");
  return text.empty() ? "neither AVX2 nor AVX-512" : text;
}

}  // namespace sutra::cpu
