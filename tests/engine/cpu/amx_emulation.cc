#include "tests/engine/cpu/amx_emulation.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/amx_attention_body.h"
#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/amx_int8_body.h"

namespace sutra::cpu {
namespace {

constexpr int kTiles = 8;
constexpr int kTileBytes = 1024;

struct EmulatedTiles {
  static thread_local unsigned char tile[kTiles][kTileBytes];

  static float Widen(uint16_t half) { return __builtin_bit_cast(float, static_cast<uint32_t>(half) << 16); }

  template <int kTile>
  static void Zero() {
    __builtin_memset(tile[kTile], 0, kTileBytes);
  }
  template <int kTile>
  static void Load(const void* base, size_t stride) {
    for (size_t row = 0; row < 16; ++row) {
      __builtin_memcpy(tile[kTile] + row * 64, static_cast<const char*>(base) + row * stride, 64);
    }
  }
  template <int kTile>
  static void Store(void* base, size_t stride) {
    for (size_t row = 0; row < 16; ++row) {
      __builtin_memcpy(static_cast<char*>(base) + row * stride, tile[kTile] + row * 64, 64);
    }
  }
  // The definition of TDPBF16PS, rounding aside.
  template <int kSum, int kLeft, int kRight>
  static void Product() {
    float sum[16][16];
    uint16_t left[16][32];
    uint16_t right[16][32];
    __builtin_memcpy(sum, tile[kSum], kTileBytes);
    __builtin_memcpy(left, tile[kLeft], kTileBytes);
    __builtin_memcpy(right, tile[kRight], kTileBytes);
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 16; ++n) {
          sum[m][n] += Widen(left[m][2 * k]) * Widen(right[k][2 * n]);
          sum[m][n] += Widen(left[m][2 * k + 1]) * Widen(right[k][2 * n + 1]);
        }
      }
    }
    __builtin_memcpy(tile[kSum], sum, kTileBytes);
  }
};

struct EmulatedInt8Tiles : EmulatedTiles {
  // The definition of TDPBUSD.
  template <int kSum, int kLeft, int kRight>
  static void Product() {
    int32_t sum[16][16];
    uint8_t left[16][64];
    int8_t right[16][64];
    __builtin_memcpy(sum, tile[kSum], kTileBytes);
    __builtin_memcpy(left, tile[kLeft], kTileBytes);
    __builtin_memcpy(right, tile[kRight], kTileBytes);
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 64; ++k) {
        for (int n = 0; n < 16; ++n) sum[m][n] += left[m][k] * right[k / 4][4 * n + k % 4];
      }
    }
    __builtin_memcpy(tile[kSum], sum, kTileBytes);
  }
};

thread_local unsigned char EmulatedTiles::tile[kTiles][kTileBytes];

}  // namespace

const KernelTable* EmulatedAmxKernels() {
  static constexpr KernelTable kTable = {
      .name = "amx_emulated",
      .element = Element::kBf16,
      .chunk_tokens = 384,
      .prepare_thread = NoThreadState,
      .release_thread = NoThreadState,
      .gemm = AmxGemm<EmulatedTiles>,
      .attention = AmxAttention<EmulatedTiles>,
      .normalize = Normalize<Bf16Ops>,
      .embed = Embed,
      .mean = Mean,
  };
  return &kTable;
}

const KernelTable* EmulatedAmxInt8Kernels() {
  static const KernelTable table = [] {
    KernelTable with_int8 = *EmulatedAmxKernels();
    with_int8.name = "amx_int8_emulated";
    with_int8.int8 = &kAmxInt8Kernels<Bf16Ops, EmulatedInt8Tiles>;
    return with_int8;
  }();
  return &table;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* EmulatedAmxKernels() { return nullptr; }
const KernelTable* EmulatedAmxInt8Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
