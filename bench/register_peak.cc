#include "bench/register_peak.h"

#include <algorithm>
#include <ctime>

namespace sutra::bench {
namespace {

constexpr int kRounds = 2000;
constexpr int kAccumulators = 14;  // twice what hides a latency of four cycles at two instructions a cycle, or nearly

#if defined(__x86_64__)
// Operands are small numbers, not zeros: some multipliers are faster on zeros. The sums stay finite: each product is
// about 1e-4 in fp32, and integer sums may wrap.
alignas(64) constexpr unsigned kOperands[16] = {0x3c003c01, 0x3c013c02, 0x3c023c03, 0x3c033c04, 0x3c043c05, 0x3c053c06,
                                                0x3c063c07, 0x3c073c08, 0x3c083c09, 0x3c093c0a, 0x3c0a3c0b, 0x3c0b3c0c,
                                                0x3c0c3c0d, 0x3c0d3c0e, 0x3c0e3c0f, 0x3c0f3c10};

// Operands are in registers 0 and 1, the accumulators in 2 to 15, which start at zero: a VEX-encoded write of the low
// half clears the rest. The whole loop is one statement, so that the compiler saves nothing between its instructions.
#define SUTRA_EACH ".irp n,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
#define SUTRA_LOOP(instruction, width)                                                                             \
  long rounds = kRounds;                                                                                           \
  asm volatile("vmovups (%1), %%" width "0\nvmovups (%1), %%" width "1\n" SUTRA_EACH                               \
               "vpxor %%xmm\\n, %%xmm\\n, %%xmm\\n\n.endr\n1:\n" SUTRA_EACH instruction " %%" width "0, %%" width  \
               "1, %%" width "\\n\n.endr\ndec %0\njnz 1b\nvzeroupper\n"                                            \
               : "+r"(rounds)                                                                                      \
               : "r"(kOperands)                                                                                    \
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
                 "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory")

void FmaYmm() { SUTRA_LOOP("vfmadd231ps", "ymm"); }
void FmaZmm() { SUTRA_LOOP("vfmadd231ps", "zmm"); }
void DotBf16Zmm() { SUTRA_LOOP("vdpbf16ps", "zmm"); }
void DotInt8Ymm() { SUTRA_LOOP("%{vex%} vpdpbusd", "ymm"); }
void DotInt8Zmm() { SUTRA_LOOP("vpdpbusd", "zmm"); }

void Run(RegisterLoop loop) {
  switch (loop) {
    case RegisterLoop::kFmaYmm: return FmaYmm();
    case RegisterLoop::kFmaZmm: return FmaZmm();
    case RegisterLoop::kDotBf16Zmm: return DotBf16Zmm();
    case RegisterLoop::kDotInt8Ymm: return DotInt8Ymm();
    case RegisterLoop::kDotInt8Zmm: return DotInt8Zmm();
  }
}
constexpr bool kHasLoops = true;
#else
void Run(RegisterLoop) {}
constexpr bool kHasLoops = false;
#endif

// Of one instruction: lanes of 32 bits, products in a lane, and the addition of each.
double ArithmeticOf(RegisterLoop loop) {
  switch (loop) {
    case RegisterLoop::kFmaYmm: return 8 * 1 * 2;
    case RegisterLoop::kFmaZmm: return 16 * 1 * 2;
    case RegisterLoop::kDotBf16Zmm: return 16 * 2 * 2;
    case RegisterLoop::kDotInt8Ymm: return 8 * 4 * 2;
    case RegisterLoop::kDotInt8Zmm: return 16 * 4 * 2;
  }
  return 0;
}

}  // namespace

const char* NameOf(RegisterLoop loop) {
  switch (loop) {
    case RegisterLoop::kFmaYmm: return "fp32 FMA, 256 bits";
    case RegisterLoop::kFmaZmm: return "fp32 FMA, 512 bits";
    case RegisterLoop::kDotBf16Zmm: return "VDPBF16PS, 512 bits";
    case RegisterLoop::kDotInt8Ymm: return "VPDPBUSD, 256 bits";
    case RegisterLoop::kDotInt8Zmm: return "VPDPBUSD, 512 bits";
  }
  return "";
}

double ThreadSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double RegisterPeak(RegisterLoop loop) {
  if (!kHasLoops) return 0;
  constexpr int kRunsOfBurst = 20;  // about 0.15 ms
  double best = 1e9;
  for (int burst = 0; burst < 20; ++burst) {
    const double start = ThreadSeconds();
    for (int run = 0; run < kRunsOfBurst; ++run) Run(loop);
    best = std::min(best, (ThreadSeconds() - start) / kRunsOfBurst);
  }
  return kRounds * kAccumulators * ArithmeticOf(loop) / best / 1e9;
}

}  // namespace sutra::bench
