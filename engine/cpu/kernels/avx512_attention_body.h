// Attention of the AVX-512 kernels: one text and head at a time, queries in the lanes.
//
// Include this from the kernel files only, for the reason given in avx512_body.h. With a query in each lane the softmax
// has no sum or maximum across lanes and no tail: everything about a query stays in its lane. A block of up to
// kBlockVectors x 16 queries takes three steps: scores of all keys (keys are broadcast), powers of two, weighted sums
// of the values (values are broadcast), which come out transposed. Head widths are multiples of kHeadColumns.
//
// Against a query per row it takes 0.69 of the time at 32 tokens and 0.79 at 128 (Zen 5, bf16).
#pragma once

#include "engine/cpu/kernels/avx512_body.h"

namespace {

using sutra::cpu::AttentionCall;
using sutra::cpu::kHeadColumns;

constexpr size_t kBlockVectors = 2;  // of queries: 160 tokens' scores are 20 KiB then, less than half of an L1
constexpr size_t kTokenStep = 32;    // whole tiles of keys and of weights; scratch memory is made for it

// 2^x for x <= 0 (and NaN); underflows to zero. A minimax polynomial on +-1/2: its relative error is below 1.1e-7 for
// weights that stay fp32, 7.5e-5 for those that are rounded to bf16 (2^-9).
template <size_t kPerUnit>
inline __m512 PowerOfTwo(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  const auto times = [part](__m512 poly, float next) { return _mm512_fmadd_ps(poly, part, _mm512_set1_ps(next)); };
  __m512 poly;
  if constexpr (kPerUnit == 1) {
    poly = times(_mm512_set1_ps(1.3276472e-3F), 9.6755415e-3F);
    poly = times(times(poly, 5.5507133e-2F), 2.402212e-1F);
    poly = times(times(poly, 6.9314697e-1F), 1.0F);
  } else {
    poly = times(_mm512_set1_ps(5.5171668e-2F), 2.4261114e-1F);
    poly = times(times(poly, 6.9326099e-1F), 9.9992807e-1F);
  }
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

// The operands of one head while it is computed. A unit is one value in fp32, two neighbours in bf16.
template <class Ops>
struct HeadView {
  const Unit* queries_rows;  // three parts of qkv, row stride `stride`
  const Unit* keys_rows;
  const Unit* values_rows;
  size_t stride;
  size_t tokens;
  size_t query_rows;
  size_t units;        // of one row of the head
  size_t width;        // columns of one row of the head
  size_t keys_padded;  // tokens rounded up to what the products take at once
  Unit* keys;          // [keys_padded][units]
  Unit* values;        // as the products want them; in bf16, neighbouring tokens side by side in a unit
  Unit* queries;       // [units][block]: a block of queries, transposed
  float* scores;       // [keys_padded][block]; then the weights as units, [tokens / per unit, rounded up][block]
  Unit* sums;          // [units][block]: the weighted sums
  typename Ops::T* context;
  size_t context_stride;

  Unit* weights() const { return static_cast<Unit*>(static_cast<void*>(scores)); }
};

// A padded key is the last one again, which changes no maximum.
template <class Ops>
void CopyKeys(const HeadView<Ops>& head) {
  for (size_t key = 0; key < head.keys_padded; ++key) {
    const Unit* row = head.keys_rows + (key < head.tokens ? key : head.tokens - 1) * head.stride;
    for (size_t unit = 0; unit < head.units; unit += kLanes) {
      _mm512_store_si512(head.keys + key * head.units + unit, _mm512_loadu_si512(row + unit));
    }
  }
}

// The 16-bit values of two vectors in turns, from their lower or their upper halves.
inline __m512i Interleave(__m512i first, __m512i second, bool upper) {
  const __m512i order =
      _mm512_set_epi32(0x002f000f, 0x002e000e, 0x002d000d, 0x002c000c, 0x002b000b, 0x002a000a, 0x00290009, 0x00280008,
                       0x00270007, 0x00260006, 0x00250005, 0x00240004, 0x00230003, 0x00220002, 0x00210001, 0x00200000);
  return _mm512_permutex2var_epi16(first, _mm512_add_epi16(order, _mm512_set1_epi16(upper ? 16 : 0)), second);
}

// Lanes beyond the last query hold zeros and are computed for nothing.
template <class Ops, int kVectors>
void PackQueries(const HeadView<Ops>& head, size_t query) {
  for (size_t vector = 0; vector < kVectors; ++vector) {
    for (size_t unit = 0; unit < head.units; unit += kLanes) {
      __m512i rows[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        const size_t row = query + vector * kLanes + i;
        rows[i] = row < head.query_rows ? _mm512_loadu_si512(head.queries_rows + row * head.stride + unit)
                                        : _mm512_setzero_si512();
      }
      Transpose16(rows);
      for (size_t i = 0; i < kLanes; ++i) {
        _mm512_store_si512(head.queries + ((unit + i) * kVectors + vector) * kLanes, rows[i]);
      }
    }
  }
}

// The unnormalised weights of one unit of keys, for 16 queries; adds them to their sum.
template <class Ops, int kKeys>
inline __m512i Weights(const float* scores, size_t stride, __m512 top, __m512& sum) {
  __m512 weights[Ops::kPerUnit] = {};
#pragma GCC unroll 2
  for (int k = 0; k < kKeys; ++k) {
    weights[k] = PowerOfTwo<Ops::kPerUnit>(_mm512_sub_ps(_mm512_load_ps(scores + k * stride), top));
    sum = _mm512_add_ps(sum, weights[k]);
  }
  return Ops::Join(weights);
}

// Turns scores into unnormalised weights, in place. A missing neighbour of the last token weighs nothing.
template <class Ops, int kVectors>
inline void Softmax(const HeadView<Ops>& head, const __m512 (&top)[kVectors], __m512 (&inverse)[kVectors]) {
  constexpr size_t kRow = kVectors * kLanes;
  __m512 sum[kVectors] = {};
  const float* scores = head.scores;
  Unit* weights = head.weights();
  for (size_t units = head.tokens / Ops::kPerUnit; units != 0; --units) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const __m512i unit = Weights<Ops, Ops::kPerUnit>(scores + v * kLanes, kRow, top[v], sum[v]);
      _mm512_store_si512(weights + v * kLanes, unit);
    }
    scores += Ops::kPerUnit * kRow;
    weights += kRow;
  }
  for (int v = 0; v < kVectors; ++v) {
    if (head.tokens % Ops::kPerUnit != 0) {
      _mm512_store_si512(weights + v * kLanes, Weights<Ops, 1>(scores + v * kLanes, kRow, top[v], sum[v]));
    }
    inverse[v] = _mm512_div_ps(_mm512_set1_ps(1.0F), sum[v]);
  }
}

// One unit of the context of 16 queries, from the weighted sums of its columns.
template <class Ops>
inline void StoreMeans(Unit* out, const __m512 (&sums)[Ops::kPerUnit], __m512 inverse) {
  __m512 means[Ops::kPerUnit];
  for (size_t i = 0; i < Ops::kPerUnit; ++i) means[i] = _mm512_mul_ps(sums[i], inverse);
  _mm512_store_si512(out, Ops::Join(means));
}

template <class Ops, int kVectors>
void StoreContext(const HeadView<Ops>& head, size_t query) {
  for (size_t vector = 0; vector < kVectors && query + vector * kLanes < head.query_rows; ++vector) {
    for (size_t unit = 0; unit < head.units; unit += kLanes) {
      __m512i rows[kLanes];
      for (size_t i = 0; i < kLanes; ++i) {
        rows[i] = _mm512_load_si512(head.sums + ((unit + i) * kVectors + vector) * kLanes);
      }
      Transpose16(rows);
      const size_t first = query + vector * kLanes;
      for (size_t i = 0; i < kLanes && first + i < head.query_rows; ++i) {
        _mm512_storeu_si512(head.context + (first + i) * head.context_stride + unit * Ops::kPerUnit, rows[i]);
      }
    }
  }
}

// The two products of attention in vector registers; amx_attention_body.h has them in tiles.
template <class Ops>
struct VectorProducts {
  static constexpr size_t kKeyStep = 4;

  // values[tokens / per unit, rounded up][width]
  static void PackValues(const HeadView<Ops>& head) {
    for (size_t token = 0; token < head.tokens; token += Ops::kPerUnit) {
      const Unit* row = head.values_rows + token * head.stride;
      Unit* out = head.values + token / Ops::kPerUnit * head.width;
      for (size_t unit = 0; unit < head.units; unit += kLanes) {
        const __m512i first = _mm512_loadu_si512(row + unit);
        if constexpr (Ops::kPerUnit == 1) {
          _mm512_store_si512(out + unit, first);
        } else {
          const __m512i second =
              token + 1 < head.tokens ? _mm512_loadu_si512(row + head.stride + unit) : _mm512_setzero_si512();
          _mm512_store_si512(out + 2 * unit, Interleave(first, second, false));
          _mm512_store_si512(out + 2 * unit + kLanes, Interleave(first, second, true));
        }
      }
    }
  }

  // Writes all scores of a block of queries; top: the highest of each lane.
  template <int kVectors>
  static void Score(const HeadView<Ops>& head, __m512 (&top)[kVectors]) {
    size_t key = 0;
    for (; key + 12 <= head.keys_padded; key += 12) ScoreTile<12, kVectors>(head, key, top);
    if (head.keys_padded - key == 8) ScoreTile<8, kVectors>(head, key, top);
    if (head.keys_padded - key == 4) ScoreTile<4, kVectors>(head, key, top);
  }

  // Writes the means of the values.
  template <int kVectors>
  static void Mean(const HeadView<Ops>& head, const __m512 (&inverse)[kVectors]) {
    for (size_t column = 0; column < head.width; column += kHeadColumns) {
      MeanTile<12, kVectors>(head, column, inverse);
      MeanTile<12, kVectors>(head, column + 12, inverse);
      MeanTile<8, kVectors>(head, column + 24, inverse);
    }
  }

 private:
  template <int kKeys, int kVectors>
  static inline void ScoreTile(const HeadView<Ops>& head, size_t key, __m512 (&top)[kVectors]) {
    __m512 sums[kKeys][kVectors] = {};
    Tile<Ops, kKeys, kVectors>(head.keys + key * head.units, head.units, 1, head.queries, kVectors * kLanes, head.units,
                               sums);
    float* scores = head.scores + key * kVectors * kLanes;
#pragma GCC unroll 16
    for (int k = 0; k < kKeys; ++k) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        _mm512_store_ps(scores + (k * kVectors + v) * kLanes, sums[k][v]);
        top[v] = _mm512_max_ps(top[v], sums[k][v]);
      }
    }
  }

  template <int kColumns, int kVectors>
  static inline void MeanTile(const HeadView<Ops>& head, size_t column, const __m512 (&inverse)[kVectors]) {
    __m512 sums[kColumns][kVectors] = {};
    Tile<Ops, kColumns, kVectors>(head.values + column, 1, head.width, head.weights(), kVectors * kLanes,
                                  (head.tokens + Ops::kPerUnit - 1) / Ops::kPerUnit, sums);
    Unit* out = head.sums + column / Ops::kPerUnit * kVectors * kLanes;
#pragma GCC unroll 16
    for (size_t unit = 0; unit < kColumns / Ops::kPerUnit; ++unit) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        __m512 columns[Ops::kPerUnit];
        for (size_t i = 0; i < Ops::kPerUnit; ++i) columns[i] = sums[unit * Ops::kPerUnit + i][v];
        StoreMeans<Ops>(out + (unit * kVectors + v) * kLanes, columns, inverse[v]);
      }
    }
  }
};

template <class Ops, class Products, int kVectors>
void AttendBlock(const HeadView<Ops>& head, size_t query) {
  PackQueries<Ops, kVectors>(head, query);
  __m512 top[kVectors];
  for (__m512& lanes : top) lanes = _mm512_set1_ps(-3.0e38F);
  Products::template Score<kVectors>(head, top);
  __m512 inverse[kVectors];
  Softmax<Ops, kVectors>(head, top, inverse);
  Products::template Mean<kVectors>(head, inverse);
  StoreContext<Ops, kVectors>(head, query);
}

template <class Ops, class Products = VectorProducts<Ops>>
void Attention(const AttentionCall& call) {
  constexpr size_t kBlock = kBlockVectors * kLanes;
  HeadView<Ops> head;
  head.stride = call.qkv_stride / Ops::kPerUnit;
  head.tokens = call.tokens;
  head.query_rows = call.queries == 0 ? call.tokens : call.queries;
  head.units = call.head_width / Ops::kPerUnit;
  head.width = call.head_width;
  head.keys_padded = RoundUp(call.tokens, Products::kKeyStep);
  head.context_stride = call.context_stride;
  head.scores = static_cast<float*>(call.scratch);
  head.keys = static_cast<Unit*>(call.scratch) + RoundUp(call.tokens, kTokenStep) * kBlock;
  head.values = head.keys + head.keys_padded * head.units;
  head.queries = head.values + RoundUp(call.tokens, kTokenStep) / Ops::kPerUnit * head.width;
  head.sums = head.queries + head.units * kBlock;
  for (size_t index = call.head_begin; index < call.head_end; ++index) {
    head.queries_rows = static_cast<const Unit*>(call.qkv) + index * head.units;
    head.keys_rows = head.queries_rows + call.width / Ops::kPerUnit;
    head.values_rows = head.keys_rows + call.width / Ops::kPerUnit;
    head.context = static_cast<typename Ops::T*>(call.context) + index * head.width;
    CopyKeys<Ops>(head);
    Products::PackValues(head);
    size_t query = 0;
    for (; query + kLanes < head.query_rows; query += kBlock) AttendBlock<Ops, Products, 2>(head, query);
    if (query < head.query_rows) AttendBlock<Ops, Products, 1>(head, query);
  }
}

}  // namespace
