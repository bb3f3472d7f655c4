// The fp32 kernels for AVX-512 (F, BW, DQ, VL). Compiled with exactly these flags; see avx512_body.h.
#include "engine/cpu/kernels/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include "engine/cpu/kernels/avx512_attention_body.h"
#include "engine/cpu/kernels/avx512_body.h"

namespace sutra::cpu {

const KernelTable* Avx512Kernels() {
  static constexpr KernelTable kTable = {
      .name = "avx512",
      .element = Element::kF32,
      .chunk_tokens = 192,
      .prepare_thread = NoThreadState,
      .release_thread = NoThreadState,
      .gemm = Gemm<F32Ops>,
      .attention = Attention<F32Ops>,
      .normalize = Normalize<F32Ops>,
      .embed = Embed,
      .mean = Mean,
      .chunk_tokens_max = 768,
  };
  return &kTable;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* Avx512Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
