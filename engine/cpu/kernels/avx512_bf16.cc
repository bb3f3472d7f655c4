// The bf16 kernels for AVX-512 with native bf16 products (VDPBF16PS). Compiled with exactly these flags; see
// avx512_body.h.
#include "engine/cpu/kernels/kernels.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/avx512_attention_body.h"
#include "engine/cpu/kernels/avx512_body.h"

namespace sutra::cpu {

const KernelTable* Avx512Bf16Kernels() {
  static constexpr KernelTable kTable = {
      .name = "avx512_bf16",
      .element = Element::kBf16,
      .chunk_tokens = 192,
      .prepare_thread = NoThreadState,
      .release_thread = NoThreadState,
      .gemm = Gemm<Bf16Ops>,
      .attention = Attention<Bf16Ops>,
      .normalize = Normalize<Bf16Ops>,
      .embed = Embed,
      .mean = Mean,
      .chunk_tokens_max = 768,
  };
  return &kTable;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* Avx512Bf16Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
