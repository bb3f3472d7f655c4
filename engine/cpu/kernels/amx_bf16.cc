// The bf16 kernels for CPUs with AMX: products on tiles, everything else as in the AVX-512 bf16 set.
//
// The tile instructions are written as assembly with a memory clobber: the compiler's own intrinsics lack it, and a
// tile load could be moved ahead of a store that it must see.
#include "engine/cpu/kernels/kernels.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/amx_gemm_body.h"

namespace sutra::cpu {
namespace {

struct HardwareTiles {
  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static void Load(const void* base, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* base, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSum, int kLeft, int kRight>
  static void Product() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight));
  }
};

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
      .gemm = AmxGemm<HardwareTiles>,
      .attention = Attention<Bf16Ops>,
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
