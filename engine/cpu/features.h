// What this CPU and kernel offer for matrix products, detected once at run time, independent of the build machine.
// Thread rule: any thread.
#pragma once

#include <string>

#include "engine/model/compute_options.h"

namespace sutra::cpu {

// Each is true only if the kernel enabled the registers as well. All are false on a CPU that is not x86-64.
struct Features {
  bool avx2 = false;      // with FMA
  bool avx_vnni = false;  // products of int8 in 256-bit registers
  bool avx512 = false;    // F, BW, DQ, VL, with FMA: what the fp32 kernels use
  bool avx512_vnni = false;
  bool avx512_bf16 = false;  // VDPBF16PS, a native product of bfloat16
  bool amx_bf16 = false;     // tiles present, enabled by the kernel, and permitted to this process
  bool amx_int8 = false;
};

const Features& DetectFeatures();

// Of `features`, those that a cap allows.
Features Capped(Features features, CpuIsa isa_max);

// "avx2 avx512 avx512_vnni" for the start-up log and bench headers.
std::string DescribeFeatures(const Features& features);

// "AMD EPYC 9B14 96-Core Processor", as the CPU calls itself.
std::string CpuName();

}  // namespace sutra::cpu
