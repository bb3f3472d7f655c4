// The int8 kernel bodies shared by the AVX-512 VNNI sets and AMX, by type of element. portable_int8.cc has the same
// arithmetic in plain code; the order of every rounding is the same here.
//
// Include this from the kernel files only, for the reason in avx512_body.h.
#pragma once

#include "engine/cpu/kernels/avx512_body.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/kernels/mixing.h"

namespace {

using sutra::cpu::Int8GemmCall;
using sutra::cpu::NormalizeQuantiseCall;
using sutra::cpu::Quantisation;
using sutra::cpu::QuantiseCall;
using sutra::cpu::QuantisedRows;

constexpr float kInverseSteps = 1.0F / 255;

inline __m512 LoadElements(const float* from) { return _mm512_loadu_ps(from); }
inline __m512 LoadElements(const uint16_t* from) {
  const __m256i halves = _mm256_loadu_si256(static_cast<const __m256i*>(static_cast<const void*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

template <int kVectors>
inline __attribute__((always_inline)) void Mix(__m512 (&t)[kVectors]) {
  if constexpr (kVectors == 24) {
    const __m512 factor = _mm512_set1_ps(-2.0F / 3);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512 sum = _mm512_add_ps(_mm512_add_ps(t[i], t[i + 8]), t[i + 16]);
      t[i] = _mm512_fmadd_ps(factor, sum, t[i]);
      t[i + 8] = _mm512_fmadd_ps(factor, sum, t[i + 8]);
      t[i + 16] = _mm512_fmadd_ps(factor, sum, t[i + 16]);
    }
    Butterflies<8>(t);
  } else {
    Butterflies<kVectors>(t);
  }
}

inline __m512 Rounded(__m512 value) {
  return _mm512_roundscale_ps(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// Four vectors of levels as 64 bytes, rounded and saturated. The packs work within quarters of a register, which leaves
// the quarters of the four vectors beside each other; the permutation puts each vector's own together.
inline void StoreBytes(uint8_t* out, const __m512 (&levels)[4]) {
  const __m512i first = _mm512_packs_epi32(_mm512_cvtps_epi32(levels[0]), _mm512_cvtps_epi32(levels[1]));
  const __m512i second = _mm512_packs_epi32(_mm512_cvtps_epi32(levels[2]), _mm512_cvtps_epi32(levels[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(first, second)));
}

// Mixes one block of a row and stores it as u8.
template <int kVectors>
inline __attribute__((always_inline)) void StoreBlock(__m512 (&t)[kVectors], size_t row, size_t index,
                                                      const QuantisedRows& out) {
  Mix(t);
  // The second operand wins where one is not a number, so that a NaN in the last vectors reaches the largest. M spreads
  // a value that is not finite to every vector of its block, in the same lane.
  __m512 tops[kChains];
#pragma GCC unroll 4
  for (int v = 0; v < kChains; ++v) tops[v] = _mm512_abs_ps(t[v]);
#pragma GCC unroll 24
  for (int v = kChains; v < kVectors; ++v) tops[v % kChains] = _mm512_max_ps(tops[v % kChains], _mm512_abs_ps(t[v]));
  const __m512 least = _mm512_set1_ps(sutra::cpu::kQuantisedRangeMin);
  const __m512 top =
      _mm512_max_ps(least, _mm512_max_ps(_mm512_max_ps(tops[0], tops[1]), _mm512_max_ps(tops[2], tops[3])));
  const bool finite = _mm512_cmp_ps_mask(top, _mm512_set1_ps(__FLT_MAX__), _CMP_NLE_UQ) == 0;
  const float scale = finite ? _mm512_reduce_max_ps(top) * (1.0F / sutra::cpu::kInt8Levels) : __builtin_nanf("");
  out.scale[row * out.blocks + index] = scale;
  const __m512 inverses = _mm512_set1_ps(1.0F / scale);
  const __m512 zero_point = _mm512_set1_ps(sutra::cpu::kInt8ZeroPoint);
  const size_t at = row * out.stride + index * kVectors * kLanes;
#pragma GCC unroll 6
  for (int v = 0; v < kVectors; v += 4) {
    __m512 levels[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) levels[i] = _mm512_fmadd_ps(t[v + i], inverses, zero_point);
    StoreBytes(out.values + at + v * kLanes, levels);
    if (row < out.two_term_begin) continue;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 whole =
          _mm512_max_ps(_mm512_min_ps(Rounded(levels[i]), _mm512_set1_ps(255.0F)), _mm512_setzero_ps());
      levels[i] = _mm512_fmadd_ps(_mm512_sub_ps(levels[i], whole), _mm512_set1_ps(255.0F), zero_point);
    }
    StoreBytes(out.remainders + at + v * kLanes, levels);
  }
}

// One row; x(column) is the input of 16 columns.
template <int kVectors, class Input>
inline __attribute__((always_inline)) void QuantiseRow(const Quantisation& how, size_t row, uint8_t row_class,
                                                       const QuantisedRows& out, const Input& x) {
  const float* shift = how.shift[row_class];
  for (size_t begin = 0; begin < how.depth; begin += kVectors * kLanes) {
    __m512 t[kVectors];
#pragma GCC unroll 24
    for (int v = 0; v < kVectors; ++v) {
      const size_t at = begin + v * kLanes;
      t[v] = _mm512_fmadd_ps(x(at), _mm512_loadu_ps(how.inverse_smooth + at), _mm512_loadu_ps(shift + at));
    }
    StoreBlock(t, row, begin / (kVectors * kLanes), out);
  }
}

template <class Ops, int kVectors>
void QuantiseBlocks(const QuantiseCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    const auto* x = static_cast<const typename Ops::T*>(call.x) + row * call.x_stride;
    QuantiseRow<kVectors>(
        call.how, row, call.classes[row],
        call.out, [x](size_t at) __attribute__((always_inline)) { return LoadElements(x + at); });
  }
}

template <class Ops>
void Quantise(const QuantiseCall& call) {
  switch (call.how.block) {
    case 384: QuantiseBlocks<Ops, 24>(call); break;
    case 256: QuantiseBlocks<Ops, 16>(call); break;
    case 128: QuantiseBlocks<Ops, 8>(call); break;
    default: QuantiseBlocks<Ops, 4>(call); break;
  }
}

// All of them, known to the compiler, where the width is a multiple of four vectors.
template <bool kWhole>
inline __attribute__((always_inline)) __mmask16 LanesBelow(size_t column, size_t width) {
  if (kWhole || column + kLanes <= width) return 0xffff;
  return column < width ? static_cast<__mmask16>((1U << (width - column)) - 1) : __mmask16{0};
}

struct RowMoments {
  __m512 mean;
  __m512 factor;  // 1 / sqrt(variance + epsilon)
};

template <bool kWhole>
inline RowMoments MomentsOf(const NormalizeCall& norm, const float* x) {
  const float inverse_width = 1.0F / static_cast<float>(norm.width);
  __m512 sums[kChains] = {};
  for (size_t i = 0; i < norm.width; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < kChains; ++v) {
      const size_t at = i + v * kLanes;
      sums[v] = _mm512_add_ps(sums[v], _mm512_maskz_loadu_ps(LanesBelow<kWhole>(at, norm.width), x + at));
    }
  }
  const __m512 mean = _mm512_set1_ps(SumOf(sums) * inverse_width);
  __m512 squares[kChains] = {};
  for (size_t i = 0; i < norm.width; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int v = 0; v < kChains; ++v) {
      const size_t at = i + v * kLanes;
      const __mmask16 lanes = LanesBelow<kWhole>(at, norm.width);
      const __m512 centred = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, x + at), mean);
      squares[v] = _mm512_fmadd_ps(centred, centred, squares[v]);
    }
  }
  const float variance = SumOf(squares) * inverse_width;
  return {mean, _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_sqrt_ps(_mm512_set1_ps(variance + norm.epsilon)))};
}

template <int kVectors, bool kWhole>
void NormalizeQuantiseRows(const NormalizeQuantiseCall& call) {
  const NormalizeCall& norm = call.norm;
  for (size_t row = 0; row < norm.rows; ++row) {
    float* x = norm.x + row * norm.stride;
    const RowMoments moments = MomentsOf<kWhole>(norm, x);
    QuantiseRow<kVectors>(
        call.how, row, call.classes[row], call.out, [&](size_t at) __attribute__((always_inline)) {
          const __mmask16 lanes = LanesBelow<kWhole>(at, norm.width);
          const __m512 centred = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + at), moments.mean);
          const __m512 value = _mm512_maskz_fmadd_ps(lanes, _mm512_mul_ps(centred, moments.factor),
                                                     _mm512_maskz_loadu_ps(lanes, norm.gain + at),
                                                     _mm512_maskz_loadu_ps(lanes, norm.shift + at));
          _mm512_mask_storeu_ps(x + at, lanes, value);
          return value;
        });
  }
}

template <int kVectors>
void NormalizeQuantiseBlocks(const NormalizeQuantiseCall& call) {
  if (call.norm.width == call.how.depth && call.norm.width % (kChains * kLanes) == 0) {
    NormalizeQuantiseRows<kVectors, true>(call);
  } else {
    NormalizeQuantiseRows<kVectors, false>(call);
  }
}

void NormalizeQuantise(const NormalizeQuantiseCall& call) {
  switch (call.how.block) {
    case 384: NormalizeQuantiseBlocks<24>(call); break;
    case 256: NormalizeQuantiseBlocks<16>(call); break;
    case 128: NormalizeQuantiseBlocks<8>(call); break;
    default: NormalizeQuantiseBlocks<4>(call); break;
  }
}

// y += what one block of a row gives to neighbouring columns. sums[term] are the integer products, from their offsets
// on.
template <int kTerms, int kVectors>
inline __attribute__((always_inline)) void AddBlock(const Int8GemmCall& call, size_t row, size_t index, size_t column,
                                                    const __m512i* const (&sums)[kTerms], __m512 (&y)[kVectors]) {
  const float scale = call.a.scale[row * call.a.blocks + index];
  const __m512 scales = _mm512_set1_ps(scale);
  const __m512 fine_scales = _mm512_set1_ps(scale * kInverseSteps);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    __m512 products = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0][v]), scales);
    if constexpr (kTerms == 2) products = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[1][v]), fine_scales, products);
    y[v] = _mm512_fmadd_ps(products, _mm512_loadu_ps(call.scale + column + v * kLanes), y[v]);
  }
}

// sum += the products of four neighbouring u8 with four neighbouring s8. As assembly, because g++ 12 spills the
// accumulators of its intrinsic.
inline __attribute__((always_inline)) void DotBytes(__m512i& sum, __m512i a, __m512i b) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// What becomes of the sums after one block: they wait in L1 for the next one, or they are the result.
enum class TileOutput : uint8_t { kElement, kElementActivated, kAddToF32, kPartial };

// Sums of rows whose product has several blocks.
struct alignas(64) PartialSums {
  float of_row[kTileRows][kPanelColumns];
};

// `ahead`: the first tile of a panel walks through the next one as well, which is then near when its turn comes;
// weights come from L3 or from memory once per chunk.
template <class Ops, TileOutput kOutput, bool kAhead, int kRows, int kTerms>
void Int8Tile(const Int8GemmCall& call, size_t panel, size_t row, size_t index, const int8_t* ahead,
              PartialSums* partial) {
  constexpr size_t kPerUnit = 4;
  constexpr size_t kLine = 64;
  const size_t column = panel * kPanelColumns;
  const size_t stride = call.a.stride / kPerUnit;
  const size_t units = call.block / kPerUnit;
  const auto units_at = [](const void* bytes) { return static_cast<const Unit*>(bytes); };
  const Unit* a[2] = {units_at(call.a.values) + row * stride + index * units, nullptr};
  if constexpr (kTerms == 2) a[1] = units_at(call.a.remainders) + row * stride + index * units;
  const Unit* b = units_at(call.b + panel * call.b_panel_stride) + index * units * kPanelColumns;
  if constexpr (kAhead) ahead += index * units * kPanelColumns * kPerUnit;
  const int32_t* offsets = call.offsets + index * call.offsets_stride + column;
  __m512i sums[kTerms][kRows][kTileVectors];
#pragma GCC unroll 2
  for (int t = 0; t < kTerms; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) sums[t][r][v] = _mm512_loadu_si512(offsets + v * kLanes);
    }
  }
  for (size_t u = 0; u < units; ++u) {
    __m512i weights[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
      weights[v] = _mm512_loadu_si512(b + u * kPanelColumns + v * kLanes);
      if constexpr (kAhead) _mm_prefetch(static_cast<const void*>(ahead + v * kLine), _MM_HINT_T0);
    }
    if constexpr (kAhead) ahead += kPanelColumns * kPerUnit;
#pragma GCC unroll 2
    for (int t = 0; t < kTerms; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512i value = _mm512_set1_epi32(static_cast<int>(a[t][r * stride + u]));
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) DotBytes(sums[t][r][v], value, weights[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const float* bias = call.bias[call.classes[row + r]];
    const float* begin = index != 0 ? partial->of_row[r] : bias != nullptr ? bias + column : kNoBias;
    __m512 y[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) y[v] = _mm512_loadu_ps(begin + v * kLanes);
    if constexpr (kTerms == 2) {
      AddBlock<2>(call, row + r, index, column, {sums[0][r], sums[1][r]}, y);
    } else {
      AddBlock<1>(call, row + r, index, column, {sums[0][r]}, y);
    }
    if constexpr (kOutput == TileOutput::kPartial) {
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) _mm512_store_ps(partial->of_row[r] + v * kLanes, y[v]);
    } else if constexpr (kOutput == TileOutput::kAddToF32) {
      AddToResidual(call, row + r, column, y);
    } else {
      if constexpr (kOutput == TileOutput::kElementActivated) ActivateRow<Ops>(*call.curve, y);
      StoreElements<Ops>(call, row + r, column, y);
    }
  }
}

template <class Ops, TileOutput kOutput, bool kAhead, int kRows, int kTerms>
void Int8TileOfBlocks(const Int8GemmCall& call, size_t panel, size_t row, const int8_t* ahead) {
  PartialSums partial;
  const size_t last = call.depth / call.block - 1;
  for (size_t index = 0; index < last; ++index) {
    Int8Tile<Ops, TileOutput::kPartial, kAhead, kRows, kTerms>(call, panel, row, index, ahead, &partial);
  }
  Int8Tile<Ops, kOutput, kAhead, kRows, kTerms>(call, panel, row, last, ahead, &partial);
}

template <class Ops, TileOutput kOutput, int kRows, int kTerms>
void Int8Rows(const Int8GemmCall& call, size_t panel, size_t row) {
  const int8_t* next = panel + 1 < call.panel_end ? call.b + (panel + 1) * call.b_panel_stride
                                                  : static_cast<const int8_t*>(call.next.begin);
  if (row == 0 && next != nullptr) {
    Int8TileOfBlocks<Ops, kOutput, true, kRows, kTerms>(call, panel, row, next);
  } else {
    Int8TileOfBlocks<Ops, kOutput, false, kRows, kTerms>(call, panel, row, nullptr);
  }
}

// Rows are dealt out evenly, as in Gemm; a row of two terms takes two of a tile's six.
template <class Ops, TileOutput kOutput>
void Int8GemmTo(const Int8GemmCall& call) {
  const size_t single = call.a.two_term_begin < call.rows ? call.a.two_term_begin : call.rows;
  const size_t blocks = (single + kTileRows - 1) / kTileRows;
  for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
    size_t row = 0;
    for (size_t block = 0; block < blocks; ++block) {
      const size_t rows = (single - row + (blocks - block) - 1) / (blocks - block);
      switch (rows) {
        case 6: Int8Rows<Ops, kOutput, 6, 1>(call, panel, row); break;
        case 5: Int8Rows<Ops, kOutput, 5, 1>(call, panel, row); break;
        case 4: Int8Rows<Ops, kOutput, 4, 1>(call, panel, row); break;
        case 3: Int8Rows<Ops, kOutput, 3, 1>(call, panel, row); break;
        case 2: Int8Rows<Ops, kOutput, 2, 1>(call, panel, row); break;
        default: Int8Rows<Ops, kOutput, 1, 1>(call, panel, row); break;
      }
      row += rows;
    }
    for (; row + 3 <= call.rows; row += 3) Int8Rows<Ops, kOutput, 3, 2>(call, panel, row);
    if (call.rows - row == 2) Int8Rows<Ops, kOutput, 2, 2>(call, panel, row);
    if (call.rows - row == 1) Int8Rows<Ops, kOutput, 1, 2>(call, panel, row);
  }
}

template <class Ops>
void Int8Gemm(const Int8GemmCall& call) {
  switch (call.output) {
    case GemmOutput::kElement: Int8GemmTo<Ops, TileOutput::kElement>(call); break;
    case GemmOutput::kElementActivated: Int8GemmTo<Ops, TileOutput::kElementActivated>(call); break;
    case GemmOutput::kAddToF32: Int8GemmTo<Ops, TileOutput::kAddToF32>(call); break;
  }
}

template <class Ops>
constexpr sutra::cpu::Int8Kernels kInt8Kernels = {Quantise<Ops>, NormalizeQuantise, Int8Gemm<Ops>};

}  // namespace
