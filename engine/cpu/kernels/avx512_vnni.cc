// The int8 kernels for AVX-512 with VNNI and without native bf16 (Cascade Lake, Ice Lake): elements are fp32. What is
// not a product of int8 comes from the fp32 set. Compiled with that set's flags: VPDPBUSD is written as assembly.
#include "engine/cpu/kernels/int8_kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include "engine/cpu/kernels/avx512_int8_body.h"

namespace sutra::cpu {

const KernelTable* Avx512VnniKernels() {
  static const KernelTable table = [] {
    KernelTable with_int8 = *Avx512Kernels();
    with_int8.name = "avx512_vnni";
    with_int8.int8 = &kInt8Kernels<F32Ops>;
    return with_int8;
  }();
  return &table;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* Avx512VnniKernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
