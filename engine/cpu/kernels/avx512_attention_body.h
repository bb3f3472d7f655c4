// Attention of the AVX-512 kernels: one text and head at a time, scores and weights in L1, softmax in base two.
//
// Include this from the kernel files only, for the reason given in avx512_body.h. A block of up to kTileRows
// queries takes three steps: scores against all keys, softmax of each row, weighted sum of the values. Head widths are
// multiples of kHeadColumns.
#pragma once

#include "engine/cpu/kernels/avx512_body.h"

namespace {

using sutra::cpu::AttentionCall;

// 2^x for x <= 0 (and NaN): relative error below 3e-7 after rounding; underflows to zero.
inline __m512 PowerOfTwo(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  __m512 poly = _mm512_set1_ps(1.3398874e-3F);
  poly = _mm512_fmadd_ps(poly, part, _mm512_set1_ps(9.6184373e-3F));
  poly = _mm512_fmadd_ps(poly, part, _mm512_set1_ps(5.5503324e-2F));
  poly = _mm512_fmadd_ps(poly, part, _mm512_set1_ps(2.4022648e-1F));
  poly = _mm512_fmadd_ps(poly, part, _mm512_set1_ps(6.9314718e-1F));
  poly = _mm512_fmadd_ps(poly, part, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(poly, whole);
}

inline void Transpose16(__m512i (&rows)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 2; ++j) {
      rows[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
      rows[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
    }
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
    const __m512i high_odd = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(low, high, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(low, high, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

// The operands of one head while it is computed.
template <class Ops>
struct HeadView {
  const Unit* queries;  // row stride `stride`
  const Unit* keys_rows;
  const Unit* values_rows;
  size_t stride;  // units between tokens in qkv
  size_t tokens;
  size_t query_rows;
  size_t width;
  size_t keys_padded;  // tokens rounded up to 16
  Unit* keys;          // [head units][keys_padded]: keys transposed
  Unit* values;        // [tokens / per unit][width]: neighbouring tokens side by side
  float* scores;       // [kTileRows][keys_padded]
  Unit* weights;       // [kTileRows][keys_padded / per unit]
  typename Ops::T* context;
  size_t context_stride;
};

template <class Ops>
void PackKeys(const HeadView<Ops>& head) {
  for (size_t token = 0; token < head.keys_padded; token += kLanes) {
    for (size_t unit = 0; unit < head.width / Ops::kPerUnit; unit += kLanes) {
      __m512i rows[16];
      for (size_t i = 0; i < kLanes; ++i) {
        rows[i] = token + i < head.tokens ? _mm512_loadu_si512(head.keys_rows + (token + i) * head.stride + unit)
                                          : _mm512_setzero_si512();
      }
      Transpose16(rows);
      for (size_t i = 0; i < kLanes; ++i) {
        _mm512_store_si512(head.keys + (unit + i) * head.keys_padded + token, rows[i]);
      }
    }
  }
}

// Sixteen 16-bit values, each widened to a unit.
inline __m512i WidenHalves(const Unit* source) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(static_cast<const void*>(source))));
}

template <class Ops>
void PackValues(const HeadView<Ops>& head) {
  if constexpr (Ops::kPerUnit == 1) {
    for (size_t token = 0; token < head.tokens; ++token) {
      for (size_t column = 0; column < head.width; column += kLanes) {
        _mm512_store_si512(head.values + token * head.width + column,
                           _mm512_loadu_si512(head.values_rows + token * head.stride + column));
      }
    }
  } else {
    for (size_t token = 0; token < head.tokens; token += 2) {
      for (size_t column = 0; column < head.width; column += kLanes) {
        const Unit* source = head.values_rows + token * head.stride + column / 2;
        const __m512i even = WidenHalves(source);
        __m512i odd = _mm512_setzero_si512();
        if (token + 1 < head.tokens) {
          odd = WidenHalves(source + head.stride);
        }
        _mm512_store_si512(head.values + token / 2 * head.width + column,
                           _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
    }
  }
}

template <class Ops, int kRows, int kVectors>
void ScoreTile(const HeadView<Ops>& head, size_t row, size_t key, size_t head_units) {
  __m512 sums[kRows][kVectors];
  for (auto& row_sums : sums) {
    for (auto& sum : row_sums) sum = _mm512_setzero_ps();
  }
  Tile<Ops, kRows, kVectors>(head.queries + row * head.stride, head.stride, head.keys + key, head.keys_padded,
                             head_units, sums);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      _mm512_store_ps(head.scores + r * head.keys_padded + key + v * kLanes, sums[r][v]);
  }
}

// Turns one row of scores into unnormalised weights; returns the reciprocal of their sum.
template <class Ops>
float SoftmaxRow(const HeadView<Ops>& head, size_t row) {
  float* scores = head.scores + row * head.keys_padded;
  void* weights_row = head.weights + row * head.keys_padded / Ops::kPerUnit;
  auto* weights = static_cast<typename Ops::T*>(weights_row);
  const size_t full = head.tokens / kLanes * kLanes;
  const auto tail = static_cast<__mmask16>((1U << (head.tokens - full)) - 1);
  const __m512 lowest = _mm512_set1_ps(-3.0e38F);
  __m512 highest = lowest;
  for (size_t key = 0; key < full; key += kLanes) highest = _mm512_max_ps(highest, _mm512_load_ps(scores + key));
  if (tail != 0) highest = _mm512_max_ps(highest, _mm512_mask_load_ps(lowest, tail, scores + full));
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(highest));
  __m512 sum = _mm512_setzero_ps();
  for (size_t key = 0; key < full; key += kLanes) {
    const __m512 power = PowerOfTwo(_mm512_sub_ps(_mm512_load_ps(scores + key), top));
    sum = _mm512_add_ps(sum, power);
    Ops::Store(weights + key, power);
  }
  if (tail != 0) {
    const __m512 power = _mm512_maskz_mov_ps(tail, PowerOfTwo(_mm512_sub_ps(_mm512_load_ps(scores + full), top)));
    sum = _mm512_add_ps(sum, power);
    Ops::Store(weights + full, power);
  }
  return 1.0F / _mm512_reduce_add_ps(sum);
}

// The weighted sum of kVectors vectors of columns.
template <class Ops, int kRows, int kVectors>
void ValueTile(const HeadView<Ops>& head, size_t row, size_t column, const float (&inverse)[kRows]) {
  __m512 sums[kRows][kVectors];
  for (auto& row_sums : sums) {
    for (auto& sum : row_sums) sum = _mm512_setzero_ps();
  }
  Tile<Ops, kRows, kVectors>(head.weights, head.keys_padded / Ops::kPerUnit, head.values + column, head.width,
                             (head.tokens + Ops::kPerUnit - 1) / Ops::kPerUnit, sums);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    auto* out = head.context + (row + r) * head.context_stride + column;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      Ops::Store(out + v * kLanes, _mm512_mul_ps(sums[r][v], _mm512_set1_ps(inverse[r])));
    }
  }
}

template <class Ops, int kRows>
void AttendRows(const HeadView<Ops>& head, size_t row) {
  const size_t units = head.width / Ops::kPerUnit;
  size_t key = 0;
  for (; key + 4 * kLanes <= head.keys_padded; key += 4 * kLanes) ScoreTile<Ops, kRows, 4>(head, row, key, units);
  switch ((head.keys_padded - key) / kLanes) {
    case 3: ScoreTile<Ops, kRows, 3>(head, row, key, units); break;
    case 2: ScoreTile<Ops, kRows, 2>(head, row, key, units); break;
    case 1: ScoreTile<Ops, kRows, 1>(head, row, key, units); break;
    default: break;
  }
  float inverse[kRows];
  for (int r = 0; r < kRows; ++r) inverse[r] = SoftmaxRow<Ops>(head, r);
  size_t column = 0;
  for (; column + 4 * kLanes <= head.width; column += 4 * kLanes) ValueTile<Ops, kRows, 4>(head, row, column, inverse);
  if (column < head.width) ValueTile<Ops, kRows, 2>(head, row, column, inverse);
}

template <class Ops>
void AttendHead(const HeadView<Ops>& head) {
  PackKeys<Ops>(head);
  PackValues<Ops>(head);
  const size_t blocks = (head.query_rows + kTileRows - 1) / kTileRows;
  size_t row = 0;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t rows = (head.query_rows - row + (blocks - block) - 1) / (blocks - block);
    switch (rows) {
      case 6: AttendRows<Ops, 6>(head, row); break;
      case 5: AttendRows<Ops, 5>(head, row); break;
      case 4: AttendRows<Ops, 4>(head, row); break;
      case 3: AttendRows<Ops, 3>(head, row); break;
      case 2: AttendRows<Ops, 2>(head, row); break;
      default: AttendRows<Ops, 1>(head, row); break;
    }
    row += rows;
  }
}

template <class Ops>
void Attention(const AttentionCall& call) {
  HeadView<Ops> head;
  head.stride = call.qkv_stride / Ops::kPerUnit;
  head.tokens = call.tokens;
  head.query_rows = call.queries == 0 ? call.tokens : call.queries;
  head.width = call.head_width;
  head.keys_padded = RoundUp(call.tokens, kLanes);
  head.context_stride = call.context_stride;
  head.scores = static_cast<float*>(call.scratch);
  head.weights = static_cast<Unit*>(call.scratch) + kTileRows * head.keys_padded;
  head.keys = head.weights + kTileRows * head.keys_padded;
  head.values = head.keys + head.keys_padded * call.head_width;
  for (size_t index = call.head_begin; index < call.head_end; ++index) {
    const Unit* base = static_cast<const Unit*>(call.qkv) + index * call.head_width / Ops::kPerUnit;
    head.queries = base;
    head.keys_rows = base + call.width / Ops::kPerUnit;
    head.values_rows = base + 2 * call.width / Ops::kPerUnit;
    head.context = static_cast<typename Ops::T*>(call.context) + index * call.head_width;
    AttendHead<Ops>(head);
  }
}

}  // namespace
