// Products of quantised rows on AMX tiles: integer sums of 32 rows by 32 columns, the epilogue shared with AVX-512 and
// done between the tile products of the next block, as in amx_gemm_body.h.
//
// Include from amx_int8.cc (real tiles) and from the test that runs the same loops over emulated tiles.
// Invariant: values and remainders have kRowPadding spare rows, because tiles are read whole.
#pragma once

#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/avx512_int8_body.h"

namespace {

// What waits of one call: the sums of a block of C for one block of inputs (`index`), and what earlier ones add up to.
template <class Ops, int kTerms>
class Int8Epilogue {
 public:
  explicit Int8Epilogue(const Int8GemmCall& call) : call_(call) {}

  // The block with these sums, [kTerms][32][32], becomes the waiting one; REQUIRES that none of the last one is left.
  void Wait(const int32_t* sums, size_t row, size_t rows, size_t column, size_t index) {
    waiting_ = {sums, row, rows, column};
    index_ = index;
  }

  void Finish(size_t count) {
    for (; count > 0 && waiting_.finished < waiting_.rows; --count, ++waiting_.finished) FinishRow(waiting_.finished);
  }

 private:
  void FinishRow(size_t r) {
    const size_t row = waiting_.row + r;
    const float* bias = call_.bias[call_.classes[row]];
    const float* begin = index_ != 0 ? partial_[r] : bias != nullptr ? bias + waiting_.column : kNoBias;
    __m512 y[2];
    __m512i products[kTerms][2];
    for (int v = 0; v < 2; ++v) {
      y[v] = _mm512_loadu_ps(begin + v * kLanes);
      const __m512i offsets =
          _mm512_loadu_si512(call_.offsets + index_ * call_.offsets_stride + waiting_.column + v * kLanes);
      for (int t = 0; t < kTerms; ++t) {
        const int32_t* sums = waiting_.sums + (t * kBlockRows + r) * kBlockColumns + v * kLanes;
        products[t][v] = _mm512_add_epi32(_mm512_load_si512(sums), offsets);
      }
    }
    if constexpr (kTerms == 2) {
      AddBlock<2>(call_, row, index_, waiting_.column, {products[0], products[1]}, y);
    } else {
      AddBlock<1>(call_, row, index_, waiting_.column, {products[0]}, y);
    }
    if ((index_ + 1) * call_.block < call_.depth) {
      for (int v = 0; v < 2; ++v) _mm512_store_ps(partial_[r] + v * kLanes, y[v]);
    } else if (call_.output == GemmOutput::kAddToF32) {
      AddToResidual(call_, row, waiting_.column, y);
    } else {
      if (call_.output == GemmOutput::kElementActivated) ActivateRow<Ops>(*call_.curve, y);
      StoreElements<Ops>(call_, row, waiting_.column, y);
    }
  }

  const Int8GemmCall& call_;
  WaitingBlock<int32_t> waiting_;
  size_t index_ = 0;
  alignas(64) float partial_[kBlockRows][kBlockColumns];
};

// The rows [row_begin, row_end), all of one term or all of two. The outer loop runs over rows, as in AmxGemm.
template <class Ops, class Tiles, int kTerms>
void AmxInt8Rows(const Int8GemmCall& call, size_t row_begin, size_t row_end) {
  constexpr size_t kPerUnit = 4;
  constexpr size_t kSums = kBlockRows * kBlockColumns;
  alignas(64) int32_t sums[2][kTerms * kSums];
  const size_t units = call.block / kPerUnit;
  const size_t rows_per_step = (kBlockRows * kTileUnits + kTerms * units - 1) / (kTerms * units);
  const size_t a_stride = call.a.stride / kPerUnit;
  const void* terms[2] = {call.a.values, call.a.remainders};
  Int8Epilogue<Ops, kTerms> epilogue(call);
  const auto some = [&] { epilogue.Finish(rows_per_step); };
  size_t turn = 0;
  for (size_t row = row_begin; row < row_end; row += kBlockRows) {
    const size_t rows = row_end - row < kBlockRows ? row_end - row : kBlockRows;
    for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
         column += kBlockColumns) {
      const void* panel = call.b + column / kPanelColumns * call.b_panel_stride;
      for (size_t index = 0; index * call.block < call.depth; ++index) {
        const Unit* b = static_cast<const Unit*>(panel) + index * units * kPanelColumns + column % kPanelColumns;
        for (int t = 0; t < kTerms; ++t) {
          const Unit* a = static_cast<const Unit*>(terms[t]) + row * a_stride + index * units;
          if (rows > kTileHeight) {
            AmxBlock<Tiles, 2, 2>(a, a_stride, b, kPanelColumns, units, sums[turn] + t * kSums, some);
          } else {
            AmxBlock<Tiles, 1, 2>(a, a_stride, b, kPanelColumns, units, sums[turn] + t * kSums, some);
          }
        }
        epilogue.Finish(kBlockRows);
        epilogue.Wait(sums[turn], row, rows, column, index);
        turn ^= 1;
      }
    }
  }
  epilogue.Finish(kBlockRows);
}

template <class Ops, class Tiles>
void AmxInt8Gemm(const Int8GemmCall& call) {
  const size_t single = call.a.two_term_begin < call.rows ? call.a.two_term_begin : call.rows;
  AmxInt8Rows<Ops, Tiles, 1>(call, 0, single);
  AmxInt8Rows<Ops, Tiles, 2>(call, single, call.rows);
}

template <class Ops, class Tiles>
constexpr sutra::cpu::Int8Kernels kAmxInt8Kernels = {Quantise<Ops>, NormalizeQuantise, AmxInt8Gemm<Ops, Tiles>};

}  // namespace
