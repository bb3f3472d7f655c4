// Attention of the AMX kernels: both products in tiles, everything else as in avx512_attention_body.h.
//
// Include from the AMX sets' files (real tiles) and from the test that runs the same loops over emulated tiles. Where
// there is AMX, VDPBF16PS multiplies an eighth of what the tiles do, so that attention on vectors took about a quarter
// of the time at 128 tokens. A tile of keys is 16 rows of 16 units, as they lie; a tile of queries and one of
// weights are 16 units of 16 queries, as they lie; values are transposed once per head.
#pragma once

#include "engine/cpu/kernels/amx_gemm_body.h"
#include "engine/cpu/kernels/avx512_attention_body.h"

namespace {

template <class Tiles>
struct TileProducts {
  static constexpr size_t kKeyStep = kTileHeight;

  // values[width][units of 32 tokens each]; zeros behind the last token.
  static void PackValues(const HeadView<Bf16Ops>& head) {
    const size_t stride = WeightUnits(head);
    for (size_t token = 0; token < head.tokens; token += kTokenStep) {
      for (size_t unit = 0; unit < head.units; unit += kLanes) {
        __m512i lower[kLanes];
        __m512i upper[kLanes];
        for (size_t i = 0; i < kLanes; ++i) {
          const __m512i first = ValueUnits(head, token + 2 * i, unit);
          const __m512i second = ValueUnits(head, token + 2 * i + 1, unit);
          lower[i] = Interleave(first, second, false);
          upper[i] = Interleave(first, second, true);
        }
        Transpose16(lower);
        Transpose16(upper);
        Unit* out = head.values + 2 * unit * stride + token / 2;
        for (size_t i = 0; i < kLanes; ++i) {
          _mm512_store_si512(out + i * stride, lower[i]);
          _mm512_store_si512(out + (kLanes + i) * stride, upper[i]);
        }
      }
    }
  }

  template <int kVectors>
  static void Score(const HeadView<Bf16Ops>& head, __m512 (&top)[kVectors]) {
    constexpr size_t kRow = kVectors * kLanes;
    for (size_t key = 0; key < head.keys_padded; key += kBlockRows) {
      const Unit* keys = head.keys + key * head.units;
      float* scores = head.scores + key * kRow;
      if (head.keys_padded - key > kTileHeight) {
        AmxBlock<Tiles, 2, kVectors>(keys, head.units, head.queries, kRow, head.units, scores, Nothing);
      } else {
        AmxBlock<Tiles, 1, kVectors>(keys, head.units, head.queries, kRow, head.units, scores, Nothing);
      }
    }
    for (size_t key = 0; key < head.tokens; ++key) {
      for (int v = 0; v < kVectors; ++v) {
        top[v] = _mm512_max_ps(top[v], _mm512_load_ps(head.scores + key * kRow + v * kLanes));
      }
    }
  }

  template <int kVectors>
  static void Mean(const HeadView<Bf16Ops>& head, const __m512 (&inverse)[kVectors]) {
    constexpr size_t kRow = kVectors * kLanes;
    const size_t units = WeightUnits(head);
    for (size_t i = (head.tokens + 1) / 2 * kRow; i < units * kRow; i += kLanes) {
      _mm512_store_si512(head.weights() + i, _mm512_setzero_si512());
    }
    alignas(64) float sums[kBlockRows * kRow];
    for (size_t column = 0; column < head.width; column += kBlockRows) {
      AmxBlock<Tiles, 2, kVectors>(head.values + column * units, units, head.weights(), kRow, units, sums, Nothing);
      Unit* out = head.sums + column / 2 * kRow;
      for (size_t i = 0; i < kBlockRows / 2; ++i) {
        for (int v = 0; v < kVectors; ++v) {
          const float* first = sums + 2 * i * kRow + v * kLanes;
          StoreMeans<Bf16Ops>(out + i * kRow + v * kLanes, {_mm512_load_ps(first), _mm512_load_ps(first + kRow)},
                              inverse[v]);
        }
      }
    }
  }

 private:
  static void Nothing() {}

  static size_t WeightUnits(const HeadView<Bf16Ops>& head) { return RoundUp(head.tokens, kTokenStep) / 2; }

  static __m512i ValueUnits(const HeadView<Bf16Ops>& head, size_t token, size_t unit) {
    return token < head.tokens ? _mm512_loadu_si512(head.values_rows + token * head.stride + unit)
                               : _mm512_setzero_si512();
  }
};

template <class Tiles>
void AmxAttention(const AttentionCall& call) {
  Attention<Bf16Ops, TileProducts<Tiles>>(call);
}

}  // namespace
