// The bf16 kernels for CPUs with AMX: products and attention on tiles, everything else as in the AVX-512 bf16 set.
#include "engine/cpu/kernels/kernels.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/amx_attention_body.h"
#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/amx_tiles.h"

namespace sutra::cpu {
namespace {

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

void LoadTileConfiguration() {
  const TileConfiguration configuration;
  asm volatile("ldtilecfg %0" ::"m"(configuration) : "memory");
}

// Tiles left loaded would slow every context switch and confuse another library's bookkeeping.
void ReleaseTiles() { asm volatile("tilerelease" ::: "memory"); }

}  // namespace

const KernelTable* AmxKernels() {
  static constexpr KernelTable kTable = {
      .name = "amx_bf16",
      .element = Element::kBf16,
      .chunk_tokens = 384,
      .prepare_thread = LoadTileConfiguration,
      .release_thread = ReleaseTiles,
      .gemm = AmxGemm<HardwareBf16Tiles>,
      .attention = AmxAttention<HardwareBf16Tiles>,
      .normalize = Normalize<Bf16Ops>,
      .embed = Embed,
      .mean = Mean,
  };
  return &kTable;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* AmxKernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
