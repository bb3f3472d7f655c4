// The matrix product on AMX tiles: 32 x 32 blocks of C in four tiles, the epilogue shared with the AVX-512 kernels.
//
// Include from the AMX sets' files (real tiles) and from the test that runs the same loops over emulated tiles; they
// differ in `Tiles`. The weight panels are those of the AVX-512 bf16 kernel: one tile of weights is 16 units deep and
// 16 columns wide, with a row stride of one panel. Invariant: a[] has kRowPadding spare rows, because tiles are read
// whole; they affect only results that are discarded.
#pragma once

#include "engine/cpu/kernels/avx512_attention_body.h"
#include "engine/cpu/kernels/avx512_body.h"

namespace {

constexpr size_t kTileHeight = 16;
constexpr size_t kTileUnits = 16;

// Tiles 0-3 are C (row block, column block), 4-5 A, 6-7 B.
template <class Tiles, bool kTwoRowBlocks, class Sum>
inline void AmxBlock(const Unit* a, size_t a_stride, const Unit* b, size_t units, Sum* c) {
  Tiles::template Zero<0>();
  Tiles::template Zero<1>();
  if constexpr (kTwoRowBlocks) {
    Tiles::template Zero<2>();
    Tiles::template Zero<3>();
  }
  for (size_t u = 0; u < units; u += kTileUnits) {
    Tiles::template Load<4>(a + u, a_stride * sizeof(Unit));
    Tiles::template Load<6>(b + u * kPanelColumns, kPanelColumns * sizeof(Unit));
    Tiles::template Load<7>(b + u * kPanelColumns + kLanes, kPanelColumns * sizeof(Unit));
    Tiles::template Product<0, 4, 6>();
    Tiles::template Product<1, 4, 7>();
    if constexpr (kTwoRowBlocks) {
      Tiles::template Load<5>(a + kTileHeight * a_stride + u, a_stride * sizeof(Unit));
      Tiles::template Product<2, 5, 6>();
      Tiles::template Product<3, 5, 7>();
    }
  }
  constexpr size_t kRowBytes = kPanelColumns * sizeof(Sum);
  Tiles::template Store<0>(c, kRowBytes);
  Tiles::template Store<1>(c + kLanes, kRowBytes);
  if constexpr (kTwoRowBlocks) {
    Tiles::template Store<2>(c + kTileHeight * kPanelColumns, kRowBytes);
    Tiles::template Store<3>(c + kTileHeight * kPanelColumns + kLanes, kRowBytes);
  }
}

// The outer loop runs over rows, the inner one over panels: 32 rows of A stay in L1 while weights stream from L2.
template <class Tiles>
void AmxGemm(const GemmCall& call) {
  alignas(64) float sums[2 * kTileHeight * kPanelColumns];
  const size_t units = call.depth / Bf16Ops::kPerUnit;
  const size_t a_stride = call.a_stride / Bf16Ops::kPerUnit;
  for (size_t row = 0; row < call.rows; row += 2 * kTileHeight) {
    const size_t rows = call.rows - row < 2 * kTileHeight ? call.rows - row : 2 * kTileHeight;
    const Unit* a = static_cast<const Unit*>(call.a) + row * a_stride;
    for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
      const Unit* b = static_cast<const Unit*>(call.b) + panel * units * kPanelColumns;
      for (size_t column = 0; column < kPanelColumns; column += 2 * kLanes) {
        if (rows > kTileHeight) {
          AmxBlock<Tiles, true>(a, a_stride, b + column, units, sums + column);
        } else {
          AmxBlock<Tiles, false>(a, a_stride, b + column, units, sums + column);
        }
      }
      for (size_t r = 0; r < rows; ++r) {
        __m512 values[kTileVectors];
        for (int v = 0; v < kTileVectors; ++v) values[v] = _mm512_load_ps(sums + r * kPanelColumns + v * kLanes);
        FinishRow<Bf16Ops>(call, row + r, panel * kPanelColumns, values);
      }
    }
  }
}

}  // namespace
