// The int8 kernel bodies for AVX2 with AVX-VNNI, on fp32 elements. portable_int8.cc has the same arithmetic in plain
// code; the order of every rounding is the same here.
//
// Include this from avx_vnni.cc only, for the reason in avx2_body.h.
#pragma once

#include "engine/cpu/kernels/avx2_body.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/kernels/mixing.h"

namespace {

using sutra::cpu::Int8GemmCall;
using sutra::cpu::kMixLanes;
using sutra::cpu::NormalizeQuantiseCall;
using sutra::cpu::Quantisation;
using sutra::cpu::QuantiseCall;
using sutra::cpu::QuantisedRows;

constexpr float kInverseSteps = 1.0F / 255;
constexpr size_t kBlockMax = 384;
constexpr int kSpan = 8;  // vectors that fit the registers for their butterflies

// One half of each of kCount neighbours of M: half a line of kMixLanes columns.
template <int kCount>
inline void MixHalves(float* t) {
  __m256 v[kCount];
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) v[i] = _mm256_load_ps(t + i * kMixLanes);
  Butterflies<kCount>(v);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) _mm256_store_ps(t + i * kMixLanes, v[i]);
}

// M on one block in L1, as its 16 registers do not hold a block.
inline void Mix(float* t, size_t block) {
  if (block == kBlockMax) {
    const __m256 factor = _mm256_set1_ps(-2.0F / 3);
    for (size_t i = 0; i < kSpan * kMixLanes; i += kLanes) {
      __m256 v[3];
      for (int third = 0; third < 3; ++third) v[third] = _mm256_load_ps(t + third * kSpan * kMixLanes + i);
      const __m256 sum = _mm256_add_ps(_mm256_add_ps(v[0], v[1]), v[2]);
      for (int third = 0; third < 3; ++third) {
        _mm256_store_ps(t + third * kSpan * kMixLanes + i, _mm256_fmadd_ps(factor, sum, v[third]));
      }
    }
  }
  for (size_t half = 0; half < kMixLanes; half += kLanes) {
    if (block == 4 * kMixLanes) {
      MixHalves<4>(t + half);
      continue;
    }
    for (size_t begin = 0; begin < block; begin += kSpan * kMixLanes) MixHalves<kSpan>(t + begin + half);
  }
  if (block != 2 * kSpan * kMixLanes) return;
  for (size_t i = 0; i < kSpan * kMixLanes; i += kLanes) {
    const __m256 first = _mm256_load_ps(t + i);
    const __m256 second = _mm256_load_ps(t + i + kSpan * kMixLanes);
    _mm256_store_ps(t + i, _mm256_add_ps(first, second));
    _mm256_store_ps(t + i + kSpan * kMixLanes, _mm256_sub_ps(first, second));
  }
}

// Four vectors of levels as 32 bytes, rounded and saturated; the packs work within halves of a register.
inline void StoreBytes(uint8_t* out, const __m256 (&levels)[4]) {
  const __m256i first = _mm256_packs_epi32(_mm256_cvtps_epi32(levels[0]), _mm256_cvtps_epi32(levels[1]));
  const __m256i second = _mm256_packs_epi32(_mm256_cvtps_epi32(levels[2]), _mm256_cvtps_epi32(levels[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(static_cast<__m256i*>(static_cast<void*>(out)),
                      _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order));
}

// Mixes one block of a row and stores it as u8.
inline void StoreBlock(float* t, size_t block, size_t row, size_t index, const QuantisedRows& out) {
  Mix(t, block);
  // The second operand wins where one is not a number, so that a NaN in the last vector reaches the largest. M spreads
  // a value that is not finite to every vector of its block, in the same lane.
  const __m256 sign = _mm256_set1_ps(-0.0F);
  __m256 tops[2] = {};
  for (size_t i = 0; i < block; i += kMixLanes) {
    for (int half = 0; half < 2; ++half) {
      tops[half] = _mm256_max_ps(tops[half], _mm256_andnot_ps(sign, _mm256_load_ps(t + i + half * kLanes)));
    }
  }
  float largest = sutra::cpu::kQuantisedRangeMin;
  bool finite = true;
  for (const __m256& top : tops) {
    alignas(32) float lanes[kLanes];
    _mm256_store_ps(lanes, top);
    for (const float lane : lanes) {
      finite = finite && lane <= __FLT_MAX__;
      largest = lane > largest ? lane : largest;
    }
  }
  const float scale = finite ? largest * (1.0F / sutra::cpu::kInt8Levels) : __builtin_nanf("");
  out.scale[row * out.blocks + index] = scale;
  const __m256 inverses = _mm256_set1_ps(1.0F / scale);
  const __m256 zero_point = _mm256_set1_ps(sutra::cpu::kInt8ZeroPoint);
  const size_t at = row * out.stride + index * block;
  for (size_t i = 0; i < block; i += 4 * kLanes) {
    __m256 levels[4];
    for (int v = 0; v < 4; ++v) levels[v] = _mm256_fmadd_ps(_mm256_load_ps(t + i + v * kLanes), inverses, zero_point);
    StoreBytes(out.values + at + i, levels);
    if (row < out.two_term_begin) continue;
    const __m256 top = _mm256_set1_ps(255.0F);
    for (__m256& level : levels) {
      const __m256 rounded = _mm256_round_ps(level, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256 whole = _mm256_max_ps(_mm256_min_ps(rounded, top), _mm256_setzero_ps());
      level = _mm256_fmadd_ps(_mm256_sub_ps(level, whole), top, zero_point);
    }
    StoreBytes(out.remainders + at + i, levels);
  }
}

// One row; x(column) is the input of 8 columns.
template <class Input>
inline __attribute__((always_inline)) void QuantiseRow(const Quantisation& how, size_t row, uint8_t row_class,
                                                       const QuantisedRows& out, const Input& x) {
  const float* shift = how.shift[row_class];
  alignas(64) float t[kBlockMax];
  for (size_t begin = 0; begin < how.depth; begin += how.block) {
    for (size_t i = 0; i < how.block; i += kLanes) {
      const size_t at = begin + i;
      _mm256_store_ps(t + i,
                      _mm256_fmadd_ps(x(at), _mm256_loadu_ps(how.inverse_smooth + at), _mm256_loadu_ps(shift + at)));
    }
    StoreBlock(t, how.block, row, begin / how.block, out);
  }
}

void Quantise(const QuantiseCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    const float* x = static_cast<const float*>(call.x) + row * call.x_stride;
    QuantiseRow(
        call.how, row, call.classes[row],
        call.out, [x](size_t at) __attribute__((always_inline)) { return _mm256_loadu_ps(x + at); });
  }
}

inline __m256i LanesBelow(size_t column, size_t width) { return FirstLanes(column < width ? width - column : 0); }

void NormalizeQuantise(const NormalizeQuantiseCall& call) {
  const NormalizeCall& norm = call.norm;
  const float inverse_width = 1.0F / static_cast<float>(norm.width);
  for (size_t row = 0; row < norm.rows; ++row) {
    float* x = norm.x + row * norm.stride;
    __m256 sum = _mm256_setzero_ps();
    for (size_t i = 0; i < norm.width; i += kLanes) {
      sum = _mm256_add_ps(sum, _mm256_maskload_ps(x + i, LanesBelow(i, norm.width)));
    }
    const __m256 mean = _mm256_set1_ps(ReduceAdd(sum) * inverse_width);
    __m256 square = _mm256_setzero_ps();
    for (size_t i = 0; i < norm.width; i += kLanes) {
      const __m256i own = LanesBelow(i, norm.width);
      const __m256 centred =
          _mm256_and_ps(_mm256_castsi256_ps(own), _mm256_sub_ps(_mm256_maskload_ps(x + i, own), mean));
      square = _mm256_fmadd_ps(centred, centred, square);
    }
    const __m256 variance = _mm256_set1_ps(ReduceAdd(square) * inverse_width + norm.epsilon);
    const __m256 factor = _mm256_div_ps(_mm256_set1_ps(1.0F), _mm256_sqrt_ps(variance));
    QuantiseRow(
        call.how, row, call.classes[row], call.out, [&](size_t at) __attribute__((always_inline)) {
          const __m256i own = LanesBelow(at, norm.width);
          const __m256 scaled = _mm256_mul_ps(_mm256_sub_ps(_mm256_maskload_ps(x + at, own), mean), factor);
          const __m256 value = _mm256_fmadd_ps(scaled, _mm256_maskload_ps(norm.gain + at, own),
                                               _mm256_maskload_ps(norm.shift + at, own));
          _mm256_maskstore_ps(x + at, own, value);
          return _mm256_and_ps(_mm256_castsi256_ps(own), value);
        });
  }
}

// sum += the products of four neighbouring u8 with four neighbouring s8, in AVX-VNNI's own encoding.
inline __attribute__((always_inline)) void DotBytes(__m256i& sum, __m256i a, __m256i b) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
}

constexpr size_t kTileColumns = kTileVectors * kLanes;

// values[r] += what one block of a row gives to the tile's columns. sums[term][r] are the integer products, from their
// offsets on.
template <int kRows, int kTerms>
inline __attribute__((always_inline)) void AddBlock(const Int8GemmCall& call, size_t row, size_t index, size_t column,
                                                    const __m256i (&sums)[kTerms][kRows][kTileVectors], float* values) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const float scale = call.a.scale[(row + r) * call.a.blocks + index];
    const __m256 fine_scales = _mm256_set1_ps(scale * kInverseSteps);
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) {
      __m256 products = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[0][r][v]), _mm256_set1_ps(scale));
      if constexpr (kTerms == 2) {
        products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[1][r][v]), fine_scales, products);
      }
      float* value = values + r * kTileColumns + v * kLanes;
      _mm256_store_ps(
          value, _mm256_fmadd_ps(products, _mm256_loadu_ps(call.scale + column + v * kLanes), _mm256_load_ps(value)));
    }
  }
}

// The integer sums of one block, 6 rows of one term or 3 of two by 16 columns: as GemmTile of avx2_body.h.
template <int kRows, int kTerms>
inline __attribute__((always_inline)) void AddProducts(const Int8GemmCall& call, size_t row, size_t column,
                                                       size_t index, float* values) {
  constexpr size_t kPerUnit = 4;
  const size_t stride = call.a.stride / kPerUnit;
  const size_t units = call.block / kPerUnit;
  const auto units_at = [](const void* bytes) { return static_cast<const int32_t*>(bytes); };
  const int32_t* a[2] = {units_at(call.a.values) + row * stride + index * units, nullptr};
  if constexpr (kTerms == 2) a[1] = units_at(call.a.remainders) + row * stride + index * units;
  const size_t panel = column / kPanelColumns;
  const int8_t* b = call.b + panel * call.b_panel_stride +
                    (index * units * kPanelColumns + column - panel * kPanelColumns) * kPerUnit;
  const auto* offsets =
      static_cast<const __m256i*>(static_cast<const void*>(call.offsets + index * call.offsets_stride + column));
  __m256i sums[kTerms][kRows][kTileVectors];
#pragma GCC unroll 2
  for (int t = 0; t < kTerms; ++t) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) sums[t][r][v] = _mm256_loadu_si256(offsets + v);
    }
  }
  for (size_t u = 0; u < units; ++u) {
    const auto* line = static_cast<const __m256i*>(static_cast<const void*>(b + u * kPanelColumns * kPerUnit));
    const __m256i weights[kTileVectors] = {_mm256_loadu_si256(line), _mm256_loadu_si256(line + 1)};
#pragma GCC unroll 2
    for (int t = 0; t < kTerms; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m256i value = _mm256_set1_epi32(a[t][r * stride + u]);
        DotBytes(sums[t][r][0], value, weights[0]);
        DotBytes(sums[t][r][1], value, weights[1]);
      }
    }
  }
  AddBlock<kRows, kTerms>(call, row, index, column, sums, values);
}

template <int kRows, int kTerms>
void Int8Tile(const Int8GemmCall& call, size_t row, size_t column) {
  alignas(64) float values[RoundUp(kRows, 2) * kTileColumns] = {};
  for (int r = 0; r < kRows; ++r) {
    const float* bias = call.bias[call.classes[row + r]];
    for (size_t i = 0; bias != nullptr && i < kTileColumns; ++i) values[r * kTileColumns + i] = bias[column + i];
  }
  for (size_t index = 0; index * call.block < call.depth; ++index) {
    AddProducts<kRows, kTerms>(call, row, column, index, values);
  }
  if (call.output == GemmOutput::kElementActivated) {
    for (int r = 0; r < kRows; r += 2) Activate(*call.curve, values + r * kTileColumns);
  }
  const bool adds = call.output == GemmOutput::kAddToF32;
  for (int r = 0; r < kRows; ++r) {
    float* out = static_cast<float*>(call.c) + (row + r) * call.c_stride + column;
    for (int v = 0; v < kTileVectors; ++v) {
      const __m256 value = _mm256_load_ps(values + r * kTileColumns + v * kLanes);
      float* at = out + v * kLanes;
      _mm256_storeu_ps(at, adds ? _mm256_add_ps(_mm256_loadu_ps(at), value) : value);
    }
  }
}

// Rows are dealt out evenly, as in Gemm; a row of two terms takes two of a tile's six.
void Int8Gemm(const Int8GemmCall& call) {
  const size_t single = call.a.two_term_begin < call.rows ? call.a.two_term_begin : call.rows;
  const size_t blocks = (single + kTileRows - 1) / kTileRows;
  for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
       column += kTileColumns) {
    size_t row = 0;
    for (size_t block = 0; block < blocks; ++block) {
      const size_t rows = (single - row + (blocks - block) - 1) / (blocks - block);
      switch (rows) {
        case 6: Int8Tile<6, 1>(call, row, column); break;
        case 5: Int8Tile<5, 1>(call, row, column); break;
        case 4: Int8Tile<4, 1>(call, row, column); break;
        case 3: Int8Tile<3, 1>(call, row, column); break;
        case 2: Int8Tile<2, 1>(call, row, column); break;
        default: Int8Tile<1, 1>(call, row, column); break;
      }
      row += rows;
    }
    for (; row + 3 <= call.rows; row += 3) Int8Tile<3, 2>(call, row, column);
    if (call.rows - row == 2) Int8Tile<2, 2>(call, row, column);
    if (call.rows - row == 1) Int8Tile<1, 2>(call, row, column);
  }
}

}  // namespace
