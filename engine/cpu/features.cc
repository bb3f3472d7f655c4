// Reads CPUID, what the kernel enabled (XCR0), and asks for the tiles of AMX.
#include "engine/cpu/features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <array>
#include <cstdint>
#include <cstring>

namespace sutra::cpu {
namespace {

#if defined(__x86_64__)

constexpr uint64_t kXcr0Ymm = 0x6;
constexpr uint64_t kXcr0Zmm = 0xe6;
constexpr uint64_t kXcr0Tiles = 0x60000;
constexpr long kArchRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr long kTileDataFeature = 18;

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the CPU has no such leaf.
Leaf Cpuid(unsigned leaf, unsigned subleaf = 0) {
  Leaf found;
  (void)__get_cpuid_count(leaf, subleaf, &found.eax, &found.ebx, &found.ecx, &found.edx);
  return found;
}

uint64_t EnabledStates() {
  if ((Cpuid(1).ecx & bit_OSXSAVE) == 0) return 0;
  unsigned low = 0;
  unsigned high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// The kernel grants tile registers to a process only on request, because they enlarge every signal frame.
bool TilesPermitted() { return syscall(SYS_arch_prctl, kArchRequestPermission, kTileDataFeature) == 0; }

// The bits of Intel's manual, volume 2, CPUID.
Features Detect() {
  const uint64_t enabled = EnabledStates();
  const auto has = [](unsigned word, unsigned bits) { return (word & bits) == bits; };
  const Leaf basic = Cpuid(1);
  const Leaf extended = Cpuid(7, 0);
  const Leaf more = Cpuid(7, 1);
  constexpr unsigned kAvx512 = (1U << 16) | (1U << 17) | (1U << 30) | (1U << 31);  // F, DQ, BW, VL
  const auto bit = [](unsigned index) { return 1U << index; };

  Features found;
  found.avx2 = (enabled & kXcr0Ymm) == kXcr0Ymm && has(basic.ecx, bit_AVX | bit_FMA) && has(extended.ebx, bit(5));
  found.avx_vnni = found.avx2 && has(more.eax, bit(4));
  found.avx512 = found.avx2 && (enabled & kXcr0Zmm) == kXcr0Zmm && has(extended.ebx, kAvx512);
  found.avx512_vnni = found.avx512 && has(extended.ecx, bit(11));
  found.avx512_bf16 = found.avx512 && has(more.eax, bit(5));
  const bool tiles = found.avx512_bf16 && (enabled & kXcr0Tiles) == kXcr0Tiles && has(extended.edx, bit(24)) &&
                     has(extended.edx, bit(22)) && TilesPermitted();
  found.amx_bf16 = tiles;
  found.amx_int8 = tiles && has(extended.edx, bit(25));
  return found;
}

std::string ReadName() {
  constexpr unsigned kFirst = 0x80000002;
  std::array<char, 48> name = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Leaf part = Cpuid(kFirst + i);
    std::memcpy(name.data() + i * sizeof(part), &part, sizeof(part));
  }
  std::string text(name.data(), strnlen(name.data(), name.size()));
  text.erase(0, text.find_first_not_of(' '));
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

#else

Features Detect() { return {}; }
std::string ReadName() { return {}; }

#endif

}  // namespace

const Features& DetectFeatures() {
  static const Features features = Detect();
  return features;
}

Features Capped(Features features, CpuIsa isa_max) {
  const auto cap = [isa_max](bool* feature, CpuIsa needed) { *feature = *feature && isa_max >= needed; };
  cap(&features.avx2, CpuIsa::kAvx2);
  cap(&features.avx_vnni, CpuIsa::kAvxVnni);
  cap(&features.avx512, CpuIsa::kAvx512);
  cap(&features.avx512_vnni, CpuIsa::kAvx512Vnni);
  cap(&features.avx512_bf16, CpuIsa::kAvx512Bf16);
  cap(&features.amx_bf16, CpuIsa::kAmx);
  cap(&features.amx_int8, CpuIsa::kAmx);
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

std::string CpuName() {
  const std::string name = ReadName();
  return name.empty() ? "an unnamed CPU" : name;
}

}  // namespace sutra::cpu
