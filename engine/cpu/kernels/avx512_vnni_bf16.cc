// The int8 kernels for AVX-512 with VNNI and native bf16: elements are bf16. What is not a product of int8 comes from
// the bf16 set. Compiled with that set's flags: VPDPBUSD is written as assembly.
#include "engine/cpu/kernels/int8_kernels.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/avx512_int8_body.h"

namespace sutra::cpu {

const KernelTable* Avx512VnniBf16Kernels() {
  static const KernelTable table = [] {
    KernelTable with_int8 = *Avx512Bf16Kernels();
    with_int8.name = "avx512_vnni_bf16";
    with_int8.int8 = &kInt8Kernels<Bf16Ops>;
    return with_int8;
  }();
  return &table;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* Avx512VnniBf16Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
