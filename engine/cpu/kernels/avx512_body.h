// The kernel bodies shared by the AVX-512 translation units (fp32, bf16 and the parts of AMX outside the products).
//
// Include this from the kernel files only. Everything sits in an unnamed namespace and no standard header with inline
// code is used: a function that the linker may merge with another unit's copy would carry AVX-512 into code that runs
// on every CPU.
#pragma once

#include <immintrin.h>

#include "engine/cpu/kernels/kernels.h"

namespace {

using sutra::cpu::ActivationCurve;
using sutra::cpu::EmbedCall;
using sutra::cpu::GemmCall;
using sutra::cpu::GemmOutput;
using sutra::cpu::kPanelColumns;
using sutra::cpu::kRoundToBits;
using sutra::cpu::MeanCall;
using sutra::cpu::NormalizeCall;

using Unit = uint32_t __attribute__((may_alias));

constexpr size_t kLanes = 16;
constexpr int kTileRows = 6;     // 6 x 4 accumulators + 4 weights + 1 broadcast: 29 of 32 registers
constexpr int kTileVectors = 4;  // one panel
constexpr int kChains = 4;       // of sums beside each other; with two a norm takes 1.13 times as long (Zen 5)

// The one copy of what shm/base/numbers.h has, for the reason above.
constexpr size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct F32Ops {
  using T = float;
  static constexpr size_t kPerUnit = 1;
  static __m512 Dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static void StoreTwo(T* out, __m512 first, __m512 second) {
    _mm512_storeu_ps(out, first);
    _mm512_storeu_ps(out + kLanes, second);
  }
  static __m512i Join(const __m512 (&value)[1]) { return _mm512_castps_si512(value[0]); }
};

#ifdef __AVX512BF16__
struct Bf16Ops {
  using T = uint16_t;
  static constexpr size_t kPerUnit = 2;
  static __m512 Dot(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  static void StoreTwo(T* out, __m512 first, __m512 second) {
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(second, first));
  }
  // Units of two values, side by side.
  static __m512i Join(const __m512 (&values)[2]) {
    alignas(64) static constexpr uint16_t kInTurns[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_load_si512(kInTurns), (__m512i)_mm512_cvtne2ps_pbh(values[1], values[0]));
  }
};
#endif

// Ones for the lanes of a vector that begins `count` columns before the real width ends.
inline __mmask16 FirstLanes(size_t count) {
  return static_cast<__mmask16>(count < kLanes ? (1U << count) - 1 : 0xffffU);
}

// sums[r][v] += a[r][units] . b[units][16 * v ...]; rows of `a` are a_stride units apart, units of a row a_step.
template <class Ops, int kRows, int kVectors>
inline __attribute__((always_inline)) void Tile(const Unit* a, size_t a_stride, size_t a_step, const Unit* b,
                                                size_t b_stride, size_t units, __m512 (&sums)[kRows][kVectors]) {
  for (size_t u = 0; u < units; ++u) {
    __m512i weights[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) weights[v] = _mm512_loadu_si512(b + u * b_stride + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512i value = _mm512_set1_epi32(static_cast<int>(a[r * a_stride + u * a_step]));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Ops::Dot(sums[r][v], value, weights[v]);
    }
  }
}

// Four vectors at once: one polynomial is a chain of dependent steps, four fill the pipe.
template <int kVectors>
inline void ActivateByPolynomial(const ActivationCurve& curve, __m512 (&x)[kVectors]) {
  const __m512 limit = _mm512_set1_ps(curve.limit);
  const __m512 limit_below = _mm512_sub_ps(_mm512_setzero_ps(), limit);
  const __m512 scale = _mm512_set1_ps(curve.scale);
  __m512 clamped[kVectors];
  __m512 s[kVectors];
  __m512 poly[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    clamped[v] = _mm512_max_ps(_mm512_min_ps(x[v], limit), limit_below);
    s[v] = _mm512_fmsub_ps(_mm512_mul_ps(clamped[v], clamped[v]), scale, _mm512_set1_ps(1.0F));
    poly[v] = _mm512_set1_ps(curve.coefficients[0]);
  }
  for (int i = 1; i < ActivationCurve::kCoefficients; ++i) {
    const __m512 next = _mm512_set1_ps(curve.coefficients[i]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) poly[v] = _mm512_fmadd_ps(poly[v], s[v], next);
  }
  for (int v = 0; v < kVectors; ++v) {
    x[v] = _mm512_mul_ps(x[v], _mm512_fmadd_ps(clamped[v], poly[v], _mm512_set1_ps(0.5F)));
  }
}

// The curve by segments, its tables in registers.
class Segments {
 public:
  explicit Segments(const ActivationCurve& curve)
      : tables_{_mm512_load_ps(curve.segments[0]), _mm512_load_ps(curve.segments[1]),
                _mm512_load_ps(curve.segments[2])},
        per_unit_(_mm512_set1_ps(curve.segments_per_unit)) {}

  template <int kVectors>
  inline __attribute__((always_inline)) void Activate(__m512 (&x)[kVectors]) const {
    const __m512 first = _mm512_set1_ps(kRoundToBits);
    const __m512 last = _mm512_set1_ps(kRoundToBits + ActivationCurve::kSegments - 1);
    const __m512 half = _mm512_set1_ps(0.5F);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512 u = _mm512_abs_ps(x[v]);
      const __m512i segment = _mm512_castps_si512(_mm512_min_ps(_mm512_fmadd_ps(u, per_unit_, first), last));
      const auto look_up = [&](int power) { return _mm512_permutexvar_ps(segment, tables_[power]); };
      const __m512 f = _mm512_fmadd_ps(_mm512_fmadd_ps(look_up(2), u, look_up(1)), u, look_up(0));
      x[v] = _mm512_fmadd_ps(u, f, _mm512_mul_ps(x[v], half));
    }
  }

 private:
  __m512 tables_[3];
  __m512 per_unit_;
};

template <class Ops, int kVectors>
inline void ActivateRow(const ActivationCurve& curve, __m512 (&x)[kVectors]) {
  if constexpr (Ops::kPerUnit == 1) {
    ActivateByPolynomial(curve, x);
  } else {
    Segments(curve).Activate(x);
  }
}

// The store of neighbouring columns of a row; of a GemmCall or an Int8GemmCall.
template <class Call, int kVectors>
inline __attribute__((always_inline)) void AddToResidual(const Call& call, size_t row, size_t column,
                                                         const __m512 (&sums)[kVectors]) {
  float* out = static_cast<float*>(call.c) + row * call.c_stride + column;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    _mm512_storeu_ps(out + v * kLanes, _mm512_add_ps(_mm512_loadu_ps(out + v * kLanes), sums[v]));
  }
}

// Of bf16 by the line: by its halves, products of int8 take 1.01 times as long.
template <class Ops, class Call, int kVectors>
inline __attribute__((always_inline)) void StoreElements(const Call& call, size_t row, size_t column,
                                                         const __m512 (&sums)[kVectors]) {
  auto* out = static_cast<typename Ops::T*>(call.c) + row * call.c_stride + column;
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; v += 2) Ops::StoreTwo(out + v * kLanes, sums[v], sums[v + 1]);
}

// Bias, activation or residual, and the store.
template <class Ops, int kVectors>
inline __attribute__((always_inline)) void FinishRow(const GemmCall& call, size_t row, size_t column,
                                                     __m512 (&sums)[kVectors]) {
  if (call.bias != nullptr) {
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = _mm512_add_ps(sums[v], _mm512_loadu_ps(call.bias + column + v * kLanes));
    }
  }
  if (call.output == GemmOutput::kAddToF32) {
    AddToResidual(call, row, column, sums);
    return;
  }
  if (call.output == GemmOutput::kElementActivated) ActivateRow<Ops>(*call.curve, sums);
  StoreElements<Ops>(call, row, column, sums);
}

template <class Ops, int kRows>
void GemmTile(const GemmCall& call, size_t panel, size_t row) {
  const size_t units = call.depth / Ops::kPerUnit;
  const Unit* a = static_cast<const Unit*>(call.a) + row * (call.a_stride / Ops::kPerUnit);
  const Unit* b = static_cast<const Unit*>(call.b) + panel * units * kPanelColumns;
  __m512 sums[kRows][kTileVectors];
  for (auto& row_sums : sums) {
    for (auto& sum : row_sums) sum = _mm512_setzero_ps();
  }
  Tile<Ops, kRows, kTileVectors>(a, call.a_stride / Ops::kPerUnit, 1, b, kPanelColumns, units, sums);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) FinishRow<Ops>(call, row + r, panel * kPanelColumns, sums[r]);
}

template <class Ops>
void Gemm(const GemmCall& call) {
  // Rows are dealt out evenly: a last block of one or two rows would use a fraction of the accumulators.
  const size_t blocks = (call.rows + kTileRows - 1) / kTileRows;
  for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
    size_t row = 0;
    for (size_t block = 0; block < blocks; ++block) {
      const size_t rows = (call.rows - row + (blocks - block) - 1) / (blocks - block);
      switch (rows) {
        case 6: GemmTile<Ops, 6>(call, panel, row); break;
        case 5: GemmTile<Ops, 5>(call, panel, row); break;
        case 4: GemmTile<Ops, 4>(call, panel, row); break;
        case 3: GemmTile<Ops, 3>(call, panel, row); break;
        case 2: GemmTile<Ops, 2>(call, panel, row); break;
        default: GemmTile<Ops, 1>(call, panel, row); break;
      }
      row += rows;
    }
  }
}

inline float SumOf(const __m512 (&parts)[kChains]) {
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(parts[0], parts[1]), _mm512_add_ps(parts[2], parts[3])));
}

template <class Ops>
void Normalize(const NormalizeCall& call) {
  const size_t padded = RoundUp(call.width, kPanelColumns);
  const float inverse_width = 1.0F / static_cast<float>(call.width);
  for (size_t row = 0; row < call.rows; ++row) {
    float* x = call.x + row * call.stride;
    auto* elements = static_cast<typename Ops::T*>(call.elements) + row * call.stride;
    __m512 sums[kChains] = {};
    for (size_t i = 0; i < padded; i += kChains * kLanes) {
#pragma GCC unroll 4
      for (int v = 0; v < kChains; ++v) sums[v] = _mm512_add_ps(sums[v], _mm512_loadu_ps(x + i + v * kLanes));
    }
    const __m512 mean = _mm512_set1_ps(SumOf(sums) * inverse_width);
    __m512 squares[kChains] = {};
    size_t i = 0;
    for (; i + kChains * kLanes <= call.width; i += kChains * kLanes) {
#pragma GCC unroll 4
      for (int v = 0; v < kChains; ++v) {
        const __m512 centred = _mm512_sub_ps(_mm512_loadu_ps(x + i + v * kLanes), mean);
        squares[v] = _mm512_fmadd_ps(centred, centred, squares[v]);
      }
    }
    for (; i < call.width; i += kLanes) {
      const __m512 part = _mm512_maskz_sub_ps(FirstLanes(call.width - i), _mm512_loadu_ps(x + i), mean);
      squares[0] = _mm512_fmadd_ps(part, part, squares[0]);
    }
    const float variance = SumOf(squares) * inverse_width;
    const __m512 factor = _mm512_div_ps(_mm512_set1_ps(1.0F), _mm512_sqrt_ps(_mm512_set1_ps(variance + call.epsilon)));
    for (i = 0; i < padded; i += 2 * kLanes) {
      __m512 values[2];
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const size_t at = i + v * kLanes;
        const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + at), mean), factor);
        values[v] = _mm512_fmadd_ps(scaled, _mm512_loadu_ps(call.gain + at), _mm512_loadu_ps(call.shift + at));
        _mm512_storeu_ps(x + at, values[v]);
      }
      Ops::StoreTwo(elements + i, values[0], values[1]);
    }
  }
}

[[maybe_unused]] void Embed(const EmbedCall& call) {
  const size_t padded = RoundUp(call.width, kPanelColumns);
  for (size_t token = 0; token < call.tokens; ++token) {
    const float* word = call.words + static_cast<size_t>(call.ids[token]) * call.width;
    const float* position = call.positions + token * call.width;
    float* x = call.x + token * call.x_stride;
    size_t i = 0;
    for (; i + kLanes <= call.width; i += kLanes) {
      _mm512_storeu_ps(x + i, _mm512_add_ps(_mm512_loadu_ps(word + i), _mm512_loadu_ps(position + i)));
    }
    if (i == padded) continue;
    const __mmask16 rest = FirstLanes(call.width - i);
    _mm512_storeu_ps(x + i,
                     _mm512_add_ps(_mm512_maskz_loadu_ps(rest, word + i), _mm512_maskz_loadu_ps(rest, position + i)));
    for (i += kLanes; i < padded; i += kLanes) _mm512_storeu_ps(x + i, _mm512_setzero_ps());
  }
}

[[maybe_unused]] void Mean(const MeanCall& call) {
  const __m512 factor = _mm512_set1_ps(1.0F / static_cast<float>(call.rows));
  for (size_t i = 0; i < call.width; i += kLanes) {
    __m512 sum = _mm512_setzero_ps();
    for (size_t row = 0; row < call.rows; ++row) {
      sum = _mm512_add_ps(sum, _mm512_loadu_ps(call.x + row * call.stride + i));
    }
    _mm512_mask_storeu_ps(call.out + i, FirstLanes(call.width - i), _mm512_mul_ps(sum, factor));
  }
}

alignas(64) [[maybe_unused]] constexpr float kNoBias[kPanelColumns] = {};

[[maybe_unused]] void NoThreadState() {}

}  // namespace
