// The fp32 kernel bodies for AVX2 with FMA: products, norms, embedding, mean.
//
// Include this from the kernel files only. Everything sits in an unnamed namespace and no standard header with inline
// code is used: a function that the linker may merge with another unit's copy would carry AVX2 into code that runs on
// every CPU.
#pragma once

#include <immintrin.h>

#include "engine/cpu/kernels/kernels.h"

namespace {

using sutra::cpu::ActivationCurve;
using sutra::cpu::EmbedCall;
using sutra::cpu::GemmCall;
using sutra::cpu::GemmOutput;
using sutra::cpu::kPanelColumns;
using sutra::cpu::MeanCall;
using sutra::cpu::NormalizeCall;

constexpr size_t kLanes = 8;
constexpr int kTileRows = 6;     // 6 x 2 accumulators + 2 weights + 1 broadcast: 15 of 16 registers
constexpr int kTileVectors = 2;  // a quarter of a panel: its rows are one cache line

// The one copy of what shm/base/numbers.h has, for the reason above.
constexpr size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Ones in the first `count` lanes.
inline __m256i FirstLanes(size_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < kLanes ? count : kLanes)), lanes);
}

inline float ReduceAdd(__m256 value) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// sums[r][v] += a[r][depth] . b[depth][8 * v ...]. `next` is null, or what a later tile will read as its b.
template <int kRows, int kVectors>
inline __attribute__((always_inline)) void Tile(const float* a, size_t a_stride, const float* b, size_t b_stride,
                                                size_t depth, __m256 (&sums)[kRows][kVectors],
                                                const float* next = nullptr) {
  for (size_t k = 0; k < depth; ++k) {
    if (next != nullptr) _mm_prefetch(next + k * b_stride, _MM_HINT_T1);
    __m256 weights[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) weights[v] = _mm256_loadu_ps(b + k * b_stride + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256 value = _mm256_broadcast_ss(a + r * a_stride + k);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_fmadd_ps(value, weights[v], sums[r][v]);
    }
  }
}

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void SetZero(__m256 (&sums)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (auto& row_sums : sums) {
#pragma GCC unroll 8
    for (auto& sum : row_sums) sum = _mm256_setzero_ps();
  }
}

// Four values at once: one polynomial is a chain of dependent steps, four fill the pipe.
inline void Activate(const ActivationCurve& curve, float* values) {
  constexpr int kAtOnce = 4;
  const __m256 limit = _mm256_set1_ps(curve.limit);
  const __m256 limit_below = _mm256_sub_ps(_mm256_setzero_ps(), limit);
  __m256 clamped[kAtOnce];
  __m256 s[kAtOnce];
  __m256 poly[kAtOnce];
  for (int v = 0; v < kAtOnce; ++v) {
    clamped[v] = _mm256_max_ps(_mm256_min_ps(_mm256_loadu_ps(values + v * kLanes), limit), limit_below);
    s[v] = _mm256_fmsub_ps(_mm256_mul_ps(clamped[v], clamped[v]), _mm256_set1_ps(curve.scale), _mm256_set1_ps(1.0F));
    poly[v] = _mm256_set1_ps(curve.coefficients[0]);
  }
#pragma GCC unroll 1  // unrolled, g++ 12 keeps the coefficients in registers that it does not have: 5 % of the product
  for (int i = 1; i < ActivationCurve::kCoefficients; ++i) {
    const __m256 next = _mm256_set1_ps(curve.coefficients[i]);
#pragma GCC unroll 4
    for (int v = 0; v < kAtOnce; ++v) poly[v] = _mm256_fmadd_ps(poly[v], s[v], next);
  }
  for (int v = 0; v < kAtOnce; ++v) {
    const __m256 factor = _mm256_fmadd_ps(clamped[v], poly[v], _mm256_set1_ps(0.5F));
    _mm256_storeu_ps(values + v * kLanes, _mm256_mul_ps(_mm256_loadu_ps(values + v * kLanes), factor));
  }
}

// Bias, activation or residual, and the store of one tile.
template <int kRows>
inline __attribute__((always_inline)) void FinishTile(const GemmCall& call, size_t row, size_t column,
                                                      __m256 (&sums)[kRows][kTileVectors]) {
  if (call.bias != nullptr) {
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) {
      const __m256 bias = _mm256_loadu_ps(call.bias + column + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) sums[r][v] = _mm256_add_ps(sums[r][v], bias);
    }
  }
  float* out = static_cast<float*>(call.c) + row * call.c_stride + column;
  if (call.output == GemmOutput::kElementActivated) {
    constexpr size_t kRowFloats = kTileVectors * kLanes;
    alignas(32) float values[RoundUp(kRows, 2) * kRowFloats] = {};
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) _mm256_store_ps(values + r * kRowFloats + v * kLanes, sums[r][v]);
    }
    for (int r = 0; r < kRows; r += 2) Activate(*call.curve, values + r * kRowFloats);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) {
        _mm256_storeu_ps(out + r * call.c_stride + v * kLanes, _mm256_load_ps(values + r * kRowFloats + v * kLanes));
      }
    }
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = out + r * call.c_stride + v * kLanes;
      const __m256 before = call.output == GemmOutput::kAddToF32 ? _mm256_loadu_ps(at) : _mm256_setzero_ps();
      _mm256_storeu_ps(at, _mm256_add_ps(before, sums[r][v]));
    }
  }
}

template <int kRows>
void GemmTile(const GemmCall& call, const float* b, const float* next, size_t row, size_t column) {
  __m256 sums[kRows][kTileVectors];
  SetZero(sums);
  Tile(static_cast<const float*>(call.a) + row * call.a_stride, call.a_stride, b, kPanelColumns, call.depth, sums,
       next);
  FinishTile(call, row, column, sums);
}

// A quarter of a panel at a time: 16 columns of its rows, one cache line every four. The processor's own prefetchers
// follow that badly, so the first rows multiplied by a quarter fetch the same quarter of the next panel into L2: 2.4
// times as fast for a text of ten tokens whose weights are not in L2, 1.1 times for a chunk of 192.
[[maybe_unused]] void Gemm(const GemmCall& call) {
  // Rows are dealt out evenly: a last block of one or two rows would use a fraction of the accumulators.
  const size_t blocks = (call.rows + kTileRows - 1) / kTileRows;
  for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
       column += kTileVectors * kLanes) {
    const size_t panel = column / kPanelColumns * kPanelColumns;
    const float* b = static_cast<const float*>(call.b) + panel * call.depth + (column - panel);
    const float* next = panel / kPanelColumns + 1 < call.panel_end ? b + kPanelColumns * call.depth : nullptr;
    size_t row = 0;
    for (size_t block = 0; block < blocks; ++block) {
      const size_t rows = (call.rows - row + (blocks - block) - 1) / (blocks - block);
      switch (rows) {
        case 6: GemmTile<6>(call, b, next, row, column); break;
        case 5: GemmTile<5>(call, b, next, row, column); break;
        case 4: GemmTile<4>(call, b, next, row, column); break;
        case 3: GemmTile<3>(call, b, next, row, column); break;
        case 2: GemmTile<2>(call, b, next, row, column); break;
        default: GemmTile<1>(call, b, next, row, column); break;
      }
      row += rows;
      next = nullptr;
    }
  }
}

[[maybe_unused]] void Normalize(const NormalizeCall& call) {
  constexpr size_t kAtOnce = 4;
  const size_t padded = RoundUp(call.width, kPanelColumns);
  const float inverse_width = 1.0F / static_cast<float>(call.width);
  for (size_t row = 0; row < call.rows; ++row) {
    float* x = call.x + row * call.stride;
    float* elements = static_cast<float*>(call.elements) + row * call.stride;
    __m256 sum[kAtOnce] = {};
    for (size_t i = 0; i < padded; i += kAtOnce * kLanes) {
      for (size_t v = 0; v < kAtOnce; ++v) sum[v] = _mm256_add_ps(sum[v], _mm256_loadu_ps(x + i + v * kLanes));
    }
    sum[0] = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
    const __m256 mean = _mm256_set1_ps(ReduceAdd(sum[0]) * inverse_width);
    __m256 square[kAtOnce] = {};
    size_t i = 0;
    for (; i + kAtOnce * kLanes <= call.width; i += kAtOnce * kLanes) {
      for (size_t v = 0; v < kAtOnce; ++v) {
        const __m256 part = _mm256_sub_ps(_mm256_loadu_ps(x + i + v * kLanes), mean);
        square[v] = _mm256_fmadd_ps(part, part, square[v]);
      }
    }
    for (; i < call.width; i += kLanes) {
      const __m256 own = _mm256_castsi256_ps(FirstLanes(call.width - i));
      const __m256 part = _mm256_and_ps(own, _mm256_sub_ps(_mm256_loadu_ps(x + i), mean));
      square[0] = _mm256_fmadd_ps(part, part, square[0]);
    }
    square[0] = _mm256_add_ps(_mm256_add_ps(square[0], square[1]), _mm256_add_ps(square[2], square[3]));
    const __m256 variance = _mm256_set1_ps(ReduceAdd(square[0]) * inverse_width + call.epsilon);
    const __m256 factor = _mm256_div_ps(_mm256_set1_ps(1.0F), _mm256_sqrt_ps(variance));
    for (i = 0; i < padded; i += kLanes) {
      const __m256 scaled = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), mean), factor);
      const __m256 value = _mm256_fmadd_ps(scaled, _mm256_loadu_ps(call.gain + i), _mm256_loadu_ps(call.shift + i));
      _mm256_storeu_ps(x + i, value);
      _mm256_storeu_ps(elements + i, value);
    }
  }
}

[[maybe_unused]] void Embed(const EmbedCall& call) {
  const size_t padded = RoundUp(call.width, kPanelColumns);
  const size_t whole = call.width / kLanes * kLanes;
  const __m256i tail = FirstLanes(call.width - whole);
  for (size_t token = 0; token < call.tokens; ++token) {
    const float* word = call.words + static_cast<size_t>(call.ids[token]) * call.width;
    const float* position = call.positions + token * call.width;
    float* x = call.x + token * call.x_stride;
    for (size_t i = 0; i < whole; i += kLanes) {
      _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(word + i), _mm256_loadu_ps(position + i)));
    }
    if (whole == padded) continue;
    _mm256_storeu_ps(x + whole,
                     _mm256_add_ps(_mm256_maskload_ps(word + whole, tail), _mm256_maskload_ps(position + whole, tail)));
    for (size_t i = whole + kLanes; i < padded; i += kLanes) _mm256_storeu_ps(x + i, _mm256_setzero_ps());
  }
}

[[maybe_unused]] void Mean(const MeanCall& call) {
  const __m256 factor = _mm256_set1_ps(1.0F / static_cast<float>(call.rows));
  for (size_t i = 0; i < call.width; i += kLanes) {
    __m256 sum = _mm256_setzero_ps();
    for (size_t row = 0; row < call.rows; ++row) {
      sum = _mm256_add_ps(sum, _mm256_loadu_ps(call.x + row * call.stride + i));
    }
    _mm256_maskstore_ps(call.out + i, FirstLanes(call.width - i), _mm256_mul_ps(sum, factor));
  }
}

[[maybe_unused]] void NoThreadState() {}

}  // namespace
