// The int8 kernels for CPUs with AVX-VNNI and without AVX-512 (Alder Lake and later, Zen 5 under a cap): elements are
// fp32. What is not a product of int8 comes from the AVX2 set. Compiled with that set's flags: VPDPBUSD is written as
// assembly.
#include "engine/cpu/kernels/int8_kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include "engine/cpu/kernels/avx_vnni_body.h"

namespace sutra::cpu {

const KernelTable* AvxVnniKernels() {
  static constexpr Int8Kernels kInt8 = {Quantise, NormalizeQuantise, Int8Gemm};
  static const KernelTable table = [] {
    KernelTable with_int8 = *Avx2Kernels();
    with_int8.name = "avx_vnni";
    with_int8.int8 = &kInt8;
    return with_int8;
  }();
  return &table;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* AvxVnniKernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
