// What this CPU and kernel offer for matrix products, detected once at run time, independent of the build machine.
// Thread rule: any thread.
#pragma once

#include <string>

namespace sutra::cpu {

struct Features {
  bool avx2 = false;         // with FMA
  bool avx_vnni = false;     // products of int8 in 256-bit registers
  bool avx512 = false;       // F, BW, DQ, VL: what the fp32 kernels use
  bool avx512_bf16 = false;  // VDPBF16PS, a native product of bfloat16
  bool avx512_vnni = false;
  bool amx_bf16 = false;  // tiles present, enabled by the kernel, and permitted to this process
  bool amx_int8 = false;
};

const Features& DetectFeatures();

// "avx512 avx512_bf16 avx512_vnni" for the start-up log and bench headers.
std::string DescribeFeatures(const Features& features);

}  // namespace sutra::cpu
