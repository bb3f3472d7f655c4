// Products of quantised rows on AMX tiles: integer sums of 32 rows by 32 columns, finished between the tile products of
// the next block, as in amx_gemm_body.h, in the order of roundings of the AVX-512 kernels.
//
// Include from amx_int8.cc (real tiles) and from the test that runs the same loops over emulated tiles.
// Invariant: values and remainders have kRowPadding spare rows, because tiles are read whole.
#pragma once

#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/avx512_int8_body.h"

namespace {

using sutra::cpu::kRowClasses;

// A block of C whose sums over one block of inputs (`index`) wait to be finished, with what its columns need in
// registers. What several blocks of inputs add up to stays in `partial`, [32][32].
template <class Ops, int kTerms, GemmOutput kOutput>
class Int8Epilogue {
 public:
  Int8Epilogue(const Int8GemmCall& call, float* partial) : call_(call), output_(call), partial_(partial) {}

  // The block with these sums, [kTerms][32][32], becomes the waiting one; REQUIRES that none of the last one is left.
  inline __attribute__((always_inline)) void Wait(const int32_t* sums, size_t row, size_t rows, size_t column,
                                                  size_t index) {
    sums_ = sums;
    row_ = row;
    end_ = row + rows;
    column_ = column;
    scales_of_rows_ = call_.a.scale + row * call_.a.blocks + index;
    classes_ = call_.classes + row;
    first_ = index == 0;
    last_ = (index + 1) * call_.block == call_.depth;
    from_ = partial_;
    for (size_t c = 0; c < kRowClasses; ++c) bias_[c] = call_.bias[c] != nullptr ? call_.bias[c] + column : kNoBias;
    const int32_t* offsets = call_.offsets + index * call_.offsets_stride + column;
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      offsets_[v] = _mm512_loadu_si512(offsets + v * kLanes);
      scales_[v] = _mm512_loadu_ps(call_.scale + column + v * kLanes);
    }
  }

  inline __attribute__((always_inline)) void Finish(size_t count) {
    for (const size_t end = row_ + count < end_ ? row_ + count : end_; row_ < end; ++row_) FinishRow();
  }

 private:
  // As AddBlock, in the same order.
  inline __attribute__((always_inline)) void FinishRow() {
    const float scale = *scales_of_rows_;
    const __m512 row_scales = _mm512_set1_ps(scale);
    const float* begin = first_ ? (*classes_ == 0 ? bias_[0] : bias_[1]) : from_;
    __m512 y[2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const auto sum = [&](int term) {
        const int32_t* sums = sums_ + static_cast<size_t>(term) * kBlockRows * kBlockColumns + v * kLanes;
        return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_load_si512(sums), offsets_[v]));
      };
      __m512 products = _mm512_mul_ps(sum(0), row_scales);
      if constexpr (kTerms == 2) {
        products = _mm512_fmadd_ps(sum(1), _mm512_set1_ps(scale * kInverseSteps), products);
      }
      y[v] = _mm512_fmadd_ps(products, scales_[v], _mm512_loadu_ps(begin + v * kLanes));
    }
    if (last_) {
      output_.Put(row_, column_, y);
    } else {
      _mm512_store_ps(from_, y[0]);
      _mm512_store_ps(from_ + kLanes, y[1]);
    }
    sums_ += kBlockColumns;
    from_ += kBlockColumns;
    scales_of_rows_ += call_.a.blocks;
    ++classes_;
  }

  const Int8GemmCall& call_;
  const BlockOutput<Ops, kOutput> output_;
  float* const partial_;
  const int32_t* sums_ = nullptr;
  size_t row_ = 0;
  size_t end_ = 0;
  size_t column_ = 0;
  const float* scales_of_rows_ = nullptr;
  const uint8_t* classes_ = nullptr;
  const float* bias_[kRowClasses] = {};
  float* from_ = nullptr;
  bool first_ = true;
  bool last_ = true;
  __m512i offsets_[2] = {};
  __m512 scales_[2] = {};
};

// The rows [row_begin, row_end), all of one term or all of two. The outer loop runs over rows, as in AmxGemmTo.
template <class Ops, class Tiles, int kTerms, GemmOutput kOutput>
void AmxInt8Rows(const Int8GemmCall& call, size_t row_begin, size_t row_end, const WeightsAhead& next) {
  constexpr size_t kPerUnit = 4;
  constexpr size_t kSums = kBlockRows * kBlockColumns;
  alignas(64) int32_t sums[2][kTerms * kSums];
  alignas(64) float partial[kSums];
  const size_t units = call.block / kPerUnit;
  const size_t rows_per_step = (kBlockRows * kTileUnits + kTerms * units - 1) / (kTerms * units);
  const size_t a_stride = call.a.stride / kPerUnit;
  const void* terms[2] = {call.a.values, call.a.remainders};
  Int8Epilogue<Ops, kTerms, kOutput> epilogue(call, partial);
  Fetcher fetcher(next);
  const auto meanwhile = [&]() __attribute__((always_inline)) {
    fetcher.Step();
    epilogue.Finish(rows_per_step);
  };
  size_t turn = 0;
  for (size_t row = row_begin; row < row_end; row += kBlockRows) {
    const size_t rows = row_end - row < kBlockRows ? row_end - row : kBlockRows;
    for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
         column += kBlockColumns) {
      const void* panel = call.b + column / kPanelColumns * call.b_panel_stride;
      for (size_t index = 0; index * call.block < call.depth; ++index) {
        const Unit* b = static_cast<const Unit*>(panel) + index * units * kPanelColumns + column % kPanelColumns;
#pragma GCC unroll 2
        for (int t = 0; t < kTerms; ++t) {
          const Unit* a = static_cast<const Unit*>(terms[t]) + row * a_stride + index * units;
          if (rows > kTileHeight) {
            AmxBlock<Tiles, 2, 2>(a, a_stride, b, kPanelColumns, units, sums[turn] + t * kSums, meanwhile);
          } else {
            AmxBlock<Tiles, 1, 2>(a, a_stride, b, kPanelColumns, units, sums[turn] + t * kSums, meanwhile);
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

template <class Ops, class Tiles, GemmOutput kOutput>
void AmxInt8GemmTo(const Int8GemmCall& call) {
  const size_t single = call.a.two_term_begin < call.rows ? call.a.two_term_begin : call.rows;
  AmxInt8Rows<Ops, Tiles, 1, kOutput>(call, 0, single, call.next);
  AmxInt8Rows<Ops, Tiles, 2, kOutput>(call, single, call.rows, single == 0 ? call.next : WeightsAhead());
}

template <class Ops, class Tiles>
void AmxInt8Gemm(const Int8GemmCall& call) {
  switch (call.output) {
    case GemmOutput::kElement: AmxInt8GemmTo<Ops, Tiles, GemmOutput::kElement>(call); break;
    case GemmOutput::kElementActivated: AmxInt8GemmTo<Ops, Tiles, GemmOutput::kElementActivated>(call); break;
    case GemmOutput::kAddToF32: AmxInt8GemmTo<Ops, Tiles, GemmOutput::kAddToF32>(call); break;
  }
}

template <class Ops, class Tiles>
constexpr sutra::cpu::Int8Kernels kAmxInt8Kernels = {Quantise<Ops>, NormalizeQuantise, AmxInt8Gemm<Ops, Tiles>};

}  // namespace
