// Products of quantised rows on AMX tiles: integer sums of 32 rows by one panel, the epilogue shared with AVX-512.
//
// Include from amx_int8.cc (real tiles) and from the test that runs the same loops over emulated tiles.
// Invariant: values and remainders have kRowPadding spare rows, because tiles are read whole.
#pragma once

#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/avx512_int8_body.h"

namespace {

constexpr size_t kAmxRows = 2 * kTileHeight;

// sums[32][64] of one block's units.
template <class Tiles>
void AmxIntegerSums(const uint8_t* a, size_t a_stride, size_t rows, const int8_t* b, size_t units, int32_t* sums) {
  const auto* a_units = static_cast<const Unit*>(static_cast<const void*>(a));
  const auto* b_units = static_cast<const Unit*>(static_cast<const void*>(b));
  for (size_t column = 0; column < kPanelColumns; column += 2 * kLanes) {
    if (rows > kTileHeight) {
      AmxBlock<Tiles, true>(a_units, a_stride / sizeof(Unit), b_units + column, units, sums + column);
    } else {
      AmxBlock<Tiles, false>(a_units, a_stride / sizeof(Unit), b_units + column, units, sums + column);
    }
  }
}

// At most 32 rows by one panel, all of one term or all of two.
template <class Ops, class Tiles, int kTerms>
void AmxInt8Rows(const Int8GemmCall& call, size_t panel, size_t row, size_t rows) {
  constexpr size_t kPerUnit = 4;
  alignas(64) int32_t sums[kTerms][kAmxRows * kPanelColumns];
  alignas(64) float partial[kAmxRows][kPanelColumns];
  const size_t column = panel * kPanelColumns;
  const size_t blocks = call.depth / call.block;
  const uint8_t* terms[2] = {call.a.values, call.a.remainders};
  for (size_t index = 0; index < blocks; ++index) {
    const int8_t* b = call.b + panel * call.b_panel_stride + index * call.block * kPanelColumns;
    for (int t = 0; t < kTerms; ++t) {
      AmxIntegerSums<Tiles>(terms[t] + row * call.a.stride + index * call.block, call.a.stride, rows, b,
                            call.block / kPerUnit, sums[t]);
    }
    for (size_t r = 0; r < rows; ++r) {
      const float* bias = call.bias[call.classes[row + r]];
      const float* begin = index != 0 ? partial[r] : bias != nullptr ? bias + column : kNoBias;
      __m512 y[kTileVectors];
      __m512i products[kTerms][kTileVectors];
      for (int v = 0; v < kTileVectors; ++v) {
        y[v] = _mm512_loadu_ps(begin + v * kLanes);
        for (int t = 0; t < kTerms; ++t) products[t][v] = _mm512_load_si512(sums[t] + r * kPanelColumns + v * kLanes);
      }
      if constexpr (kTerms == 2) {
        AddBlock<2>(call, row + r, index, column, {products[0], products[1]}, y);
      } else {
        AddBlock<1>(call, row + r, index, column, {products[0]}, y);
      }
      if (index + 1 < blocks) {
        for (int v = 0; v < kTileVectors; ++v) _mm512_store_ps(partial[r] + v * kLanes, y[v]);
      } else if (call.output == GemmOutput::kAddToF32) {
        AddToResidual(call, row + r, column, y);
      } else {
        if (call.output == GemmOutput::kElementActivated) ActivateRow<Ops>(*call.curve, y);
        StoreElements<Ops>(call, row + r, column, y);
      }
    }
  }
}

// The outer loop runs over rows, the inner one over panels, as in AmxGemm.
template <class Ops, class Tiles>
void AmxInt8Gemm(const Int8GemmCall& call) {
  const size_t single = call.a.two_term_begin < call.rows ? call.a.two_term_begin : call.rows;
  for (size_t row = 0; row < call.rows;) {
    const size_t left = (row < single ? single : call.rows) - row;
    const size_t rows = left < kAmxRows ? left : kAmxRows;
    for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
      if (row < single) {
        AmxInt8Rows<Ops, Tiles, 1>(call, panel, row, rows);
      } else {
        AmxInt8Rows<Ops, Tiles, 2>(call, panel, row, rows);
      }
    }
    row += rows;
  }
}

template <class Ops, class Tiles>
constexpr sutra::cpu::Int8Kernels kAmxInt8Kernels = {Quantise<Ops>, NormalizeQuantise, AmxInt8Gemm<Ops, Tiles>};

}  // namespace
