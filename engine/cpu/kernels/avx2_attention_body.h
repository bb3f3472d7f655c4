// Attention of the AVX2 kernels: one text and head at a time, scores and weights in L1, softmax in base two.
//
// Include this from the kernel files only, for the reason given in avx2_body.h. A block of up to kTileRows queries
// takes three steps: scores against all keys, softmax of each row, weighted sum of the values. Head widths are
// multiples of kHeadColumns.
#pragma once

#include "engine/cpu/kernels/avx2_body.h"

namespace {

using sutra::cpu::AttentionCall;

constexpr size_t kTileColumns = kTileVectors * kLanes;

// 2^x for x <= 0 (and NaN): relative error below 3e-7 after rounding; zero below 2^-126.
inline __m256 PowerOfTwo(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-127.0F), x);  // in this order a NaN stays one
  const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 part = _mm256_sub_ps(x, whole);
  __m256 poly = _mm256_set1_ps(1.3398874e-3F);
  poly = _mm256_fmadd_ps(poly, part, _mm256_set1_ps(9.6184373e-3F));
  poly = _mm256_fmadd_ps(poly, part, _mm256_set1_ps(5.5503324e-2F));
  poly = _mm256_fmadd_ps(poly, part, _mm256_set1_ps(2.4022648e-1F));
  poly = _mm256_fmadd_ps(poly, part, _mm256_set1_ps(6.9314718e-1F));
  poly = _mm256_fmadd_ps(poly, part, _mm256_set1_ps(1.0F));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  return _mm256_mul_ps(poly, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

inline void Transpose8(__m256 (&rows)[8]) {
  __m256 t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  __m256 quarters[8];  // columns j and j + 4 of rows 0..3, then of rows 4..7
  for (int i = 0; i < 2; ++i) {
    quarters[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    quarters[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    quarters[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    quarters[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(quarters[j], quarters[4 + j], 0x20);
    rows[4 + j] = _mm256_permute2f128_ps(quarters[j], quarters[4 + j], 0x31);
  }
}

// The operands of one head while it is computed.
struct HeadView {
  const float* queries;  // row stride `stride`
  const float* keys_rows;
  const float* values_rows;
  size_t stride;  // between tokens in qkv
  size_t tokens;
  size_t query_rows;
  size_t width;
  size_t keys_padded;  // tokens rounded up to kTileColumns
  float* keys;         // [width][keys_padded]: keys transposed
  float* values;       // [tokens][width]
  float* scores;       // [kTileRows][keys_padded]; become weights
  float* context;
  size_t context_stride;
};

void PackKeys(const HeadView& head) {
  for (size_t token = 0; token < head.keys_padded; token += kLanes) {
    for (size_t column = 0; column < head.width; column += kLanes) {
      __m256 rows[8];
      for (size_t i = 0; i < kLanes; ++i) {
        rows[i] = token + i < head.tokens ? _mm256_loadu_ps(head.keys_rows + (token + i) * head.stride + column)
                                          : _mm256_setzero_ps();
      }
      Transpose8(rows);
      for (size_t i = 0; i < kLanes; ++i) {
        _mm256_storeu_ps(head.keys + (column + i) * head.keys_padded + token, rows[i]);
      }
    }
  }
}

// Side by side: the rows of a text lie so far apart that many of them fall on the same cache sets.
void PackValues(const HeadView& head) {
  for (size_t token = 0; token < head.tokens; ++token) {
    for (size_t column = 0; column < head.width; column += kLanes) {
      _mm256_storeu_ps(head.values + token * head.width + column,
                       _mm256_loadu_ps(head.values_rows + token * head.stride + column));
    }
  }
}

// Turns one row of scores into unnormalised weights; returns the reciprocal of their sum.
inline float SoftmaxRow(const HeadView& head, float* scores) {
  for (size_t key = head.tokens; key < head.keys_padded; ++key) scores[key] = -__builtin_inff();
  __m256 highest = _mm256_set1_ps(-__builtin_inff());
  for (size_t key = 0; key < head.keys_padded; key += kLanes) {
    highest = _mm256_max_ps(highest, _mm256_loadu_ps(scores + key));
  }
  highest = _mm256_max_ps(highest, _mm256_permute2f128_ps(highest, highest, 1));
  highest = _mm256_max_ps(highest, _mm256_permute_ps(highest, 0x4e));
  const __m256 top = _mm256_max_ps(highest, _mm256_permute_ps(highest, 0xb1));
  __m256 sum = _mm256_setzero_ps();
  for (size_t key = 0; key < head.keys_padded; key += kLanes) {
    const __m256 power = PowerOfTwo(_mm256_sub_ps(_mm256_loadu_ps(scores + key), top));
    sum = _mm256_add_ps(sum, power);
    _mm256_storeu_ps(scores + key, power);
  }
  return 1.0F / ReduceAdd(sum);
}

template <int kRows>
void AttendRows(const HeadView& head, size_t row) {
  for (size_t key = 0; key < head.keys_padded; key += kTileColumns) {
    __m256 sums[kRows][kTileVectors];
    SetZero(sums);
    Tile(head.queries + row * head.stride, head.stride, head.keys + key, head.keys_padded, head.width, sums);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) {
        _mm256_storeu_ps(head.scores + r * head.keys_padded + key + v * kLanes, sums[r][v]);
      }
    }
  }
  float inverse[kRows];
  for (int r = 0; r < kRows; ++r) inverse[r] = SoftmaxRow(head, head.scores + r * head.keys_padded);
  for (size_t column = 0; column < head.width; column += kTileColumns) {
    __m256 sums[kRows][kTileVectors];
    SetZero(sums);
    Tile(head.scores, head.keys_padded, head.values + column, head.width, head.tokens, sums);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* out = head.context + (row + r) * head.context_stride + column;
#pragma GCC unroll 8
      for (int v = 0; v < kTileVectors; ++v) {
        _mm256_storeu_ps(out + v * kLanes, _mm256_mul_ps(sums[r][v], _mm256_set1_ps(inverse[r])));
      }
    }
  }
}

void AttendHead(const HeadView& head) {
  PackKeys(head);
  PackValues(head);
  const size_t blocks = (head.query_rows + kTileRows - 1) / kTileRows;
  size_t row = 0;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t rows = (head.query_rows - row + (blocks - block) - 1) / (blocks - block);
    switch (rows) {
      case 6: AttendRows<6>(head, row); break;
      case 5: AttendRows<5>(head, row); break;
      case 4: AttendRows<4>(head, row); break;
      case 3: AttendRows<3>(head, row); break;
      case 2: AttendRows<2>(head, row); break;
      default: AttendRows<1>(head, row); break;
    }
    row += rows;
  }
}

void Attention(const AttentionCall& call) {
  HeadView head;
  head.stride = call.qkv_stride;
  head.tokens = call.tokens;
  head.query_rows = call.queries == 0 ? call.tokens : call.queries;
  head.width = call.head_width;
  head.keys_padded = RoundUp(call.tokens, kTileColumns);
  head.context_stride = call.context_stride;
  head.scores = static_cast<float*>(call.scratch);
  head.keys = head.scores + kTileRows * head.keys_padded;
  head.values = head.keys + head.keys_padded * head.width;
  for (size_t index = call.head_begin; index < call.head_end; ++index) {
    head.queries = static_cast<const float*>(call.qkv) + index * head.width;
    head.keys_rows = head.queries + call.width;
    head.values_rows = head.keys_rows + call.width;
    head.context = static_cast<float*>(call.context) + index * head.width;
    AttendHead(head);
  }
}

}  // namespace
