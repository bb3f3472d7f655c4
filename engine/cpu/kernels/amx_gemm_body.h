// The matrix product on AMX tiles: 32 x 32 blocks of C in four tiles, the epilogue shared with the AVX-512 kernels.
//
// Include from the AMX sets' files (real tiles) and from the test that runs the same loops over emulated tiles; they
// differ in `Tiles`. The weight panels are those of the AVX-512 bf16 kernel: one tile of weights is 16 units deep and
// 16 columns wide, with a row stride of one panel. Invariant: a[] has kRowPadding spare rows, because tiles are read
// whole; they affect only results that are discarded.
//
// Tiles and vectors are different units of a core. So the epilogue of one block is done between the tile products of
// the next: 32 x 32 x 384 in bf16 keeps the tiles busy for 768 cycles, GELU and the stores take about 300 of the
// vectors' time. A core looks too few instructions ahead to overlap them by itself.
#pragma once

#include "engine/cpu/kernels/avx512_body.h"

namespace {

constexpr size_t kTileHeight = 16;
constexpr size_t kTileUnits = 16;

constexpr size_t kBlockColumns = 2 * kLanes;
constexpr size_t kBlockRows = 2 * kTileHeight;

// c[16 * kRowTiles][16 * kColumnTiles]. Tiles 0-3 are C (row block, column block), 4-5 A, 6-7 B. `meanwhile` is called
// after each 16 units.
template <class Tiles, int kRowTiles, int kColumnTiles, class Sum, class Meanwhile>
inline void AmxBlock(const Unit* a, size_t a_stride, const Unit* b, size_t b_stride, size_t units, Sum* c,
                     const Meanwhile& meanwhile) {
  constexpr bool kRows = kRowTiles == 2;
  constexpr bool kColumns = kColumnTiles == 2;
  Tiles::template Zero<0>();
  if constexpr (kColumns) Tiles::template Zero<1>();
  if constexpr (kRows) Tiles::template Zero<2>();
  if constexpr (kRows && kColumns) Tiles::template Zero<3>();
  for (size_t u = 0; u < units; u += kTileUnits) {
    Tiles::template Load<4>(a + u, a_stride * sizeof(Unit));
    Tiles::template Load<6>(b + u * b_stride, b_stride * sizeof(Unit));
    Tiles::template Product<0, 4, 6>();
    if constexpr (kColumns) {
      Tiles::template Load<7>(b + u * b_stride + kLanes, b_stride * sizeof(Unit));
      Tiles::template Product<1, 4, 7>();
    }
    if constexpr (kRows) {
      Tiles::template Load<5>(a + kTileHeight * a_stride + u, a_stride * sizeof(Unit));
      Tiles::template Product<2, 5, 6>();
      if constexpr (kColumns) Tiles::template Product<3, 5, 7>();
    }
    meanwhile();
  }
  constexpr size_t kRowSums = kColumnTiles * kLanes;
  constexpr size_t kRowBytes = kRowSums * sizeof(Sum);
  Tiles::template Store<0>(c, kRowBytes);
  if constexpr (kColumns) Tiles::template Store<1>(c + kLanes, kRowBytes);
  if constexpr (kRows) Tiles::template Store<2>(c + kTileHeight * kRowSums, kRowBytes);
  if constexpr (kRows && kColumns) Tiles::template Store<3>(c + kTileHeight * kRowSums + kLanes, kRowBytes);
}

// One block's place in C, its sums, and how many of its rows are finished.
template <class Sum>
struct WaitingBlock {
  const Sum* sums = nullptr;
  size_t row = 0;
  size_t rows = 0;
  size_t column = 0;
  size_t finished = 0;
};

// The outer loop runs over rows, the inner one over columns: 32 rows of A stay in L1 while weights stream from L2.
template <class Tiles>
void AmxGemm(const GemmCall& call) {
  alignas(64) float sums[2][kBlockRows * kBlockColumns];
  const size_t units = call.depth / Bf16Ops::kPerUnit;
  const size_t a_stride = call.a_stride / Bf16Ops::kPerUnit;
  const size_t rows_per_step = (kBlockRows * kTileUnits + units - 1) / units;
  WaitingBlock<float> waiting;
  size_t turn = 0;
  const auto finish = [&](size_t count) {
    for (; count > 0 && waiting.finished < waiting.rows; --count, ++waiting.finished) {
      const float* from = waiting.sums + waiting.finished * kBlockColumns;
      __m512 values[2] = {_mm512_load_ps(from), _mm512_load_ps(from + kLanes)};
      FinishRow<Bf16Ops>(call, waiting.row + waiting.finished, waiting.column, values);
    }
  };
  const auto some = [&] { finish(rows_per_step); };
  for (size_t row = 0; row < call.rows; row += kBlockRows) {
    const size_t rows = call.rows - row < kBlockRows ? call.rows - row : kBlockRows;
    const Unit* a = static_cast<const Unit*>(call.a) + row * a_stride;
    for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
         column += kBlockColumns) {
      const Unit* b =
          static_cast<const Unit*>(call.b) + column / kPanelColumns * kPanelColumns * units + column % kPanelColumns;
      if (rows > kTileHeight) {
        AmxBlock<Tiles, 2, 2>(a, a_stride, b, kPanelColumns, units, sums[turn], some);
      } else {
        AmxBlock<Tiles, 1, 2>(a, a_stride, b, kPanelColumns, units, sums[turn], some);
      }
      finish(kBlockRows);
      waiting = {sums[turn], row, rows, column};
      turn ^= 1;
    }
  }
  finish(kBlockRows);
}

}  // namespace
