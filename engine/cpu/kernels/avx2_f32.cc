// The fp32 kernels for AVX2 with FMA. Compiled with exactly these flags; see avx2_body.h.
#include "engine/cpu/kernels/kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include "engine/cpu/kernels/avx2_attention_body.h"
#include "engine/cpu/kernels/avx2_body.h"

namespace sutra::cpu {

const KernelTable* Avx2Kernels() {
  static constexpr KernelTable kTable = {
      .name = "avx2",
      .element = Element::kF32,
      .chunk_tokens = 192,
      .prepare_thread = NoThreadState,
      .release_thread = NoThreadState,
      .gemm = Gemm,
      .attention = Attention,
      .normalize = Normalize,
      .embed = Embed,
      .mean = Mean,
  };
  return &kTable;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* Avx2Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
