// The matrix product on AMX tiles: 32 x 32 blocks of C in four tiles, the sums finished as by the AVX-512 kernels.
//
// Include from the AMX sets' files (real tiles) and from the test that runs the same loops over emulated tiles; they
// differ in `Tiles`. The weight panels are those of the AVX-512 bf16 kernel: one tile of weights is 16 units deep and
// 16 columns wide, with a row stride of one panel. Invariant: a[] has kRowPadding spare rows, because tiles are read
// whole; they affect only results that are discarded.
//
// Tiles and vectors are different units of a core. So the epilogue of one block is done between the tile products of
// the next: 32 x 32 x 384 in bf16 keeps the tiles busy for 768 cycles, GELU and the stores take about 300 of the
// vectors' time. A core looks too few instructions ahead to overlap them by itself. Both share two load ports, of which
// tiles take half, so what an epilogue needs for its 32 columns stays in registers: loaded for every row, it makes
// products of bf16 0.8 to 0.9 as fast and those of int8 0.5 to 0.75 (Emerald Rapids, 384 rows, K = 384).
#pragma once

#include "engine/cpu/kernels/avx512_body.h"

namespace {

using sutra::cpu::WeightsAhead;

constexpr size_t kTileHeight = 16;
constexpr size_t kTileUnits = 16;

constexpr size_t kBlockColumns = 2 * kLanes;
constexpr size_t kBlockRows = 2 * kTileHeight;

// c[16 * kRowTiles][16 * kColumnTiles]. Tiles 0-3 are C (row block, column block), 4-5 A, 6-7 B. `meanwhile` is called
// after each 16 units.
template <class Tiles, int kRowTiles, int kColumnTiles, class Sum, class Meanwhile>
inline __attribute__((always_inline)) void AmxBlock(const Unit* a, size_t a_stride, const Unit* b, size_t b_stride,
                                                    size_t units, Sum* c, const Meanwhile& meanwhile) {
  constexpr bool kRows = kRowTiles == 2;
  constexpr bool kColumns = kColumnTiles == 2;
  Tiles::template Zero<0>();
  if constexpr (kColumns) Tiles::template Zero<1>();
  if constexpr (kRows) Tiles::template Zero<2>();
  if constexpr (kRows && kColumns) Tiles::template Zero<3>();
  for (size_t u = 0; u < units; u += kTileUnits) {
    Tiles::template Load<4>(a + u, a_stride * sizeof(Unit));
    Tiles::template Load<6>(b + u * b_stride, b_stride * sizeof(Unit));
    Tiles::template Product<0, 4, 6>();
    if constexpr (kColumns) {
      Tiles::template Load<7>(b + u * b_stride + kLanes, b_stride * sizeof(Unit));
      Tiles::template Product<1, 4, 7>();
    }
    if constexpr (kRows) {
      Tiles::template Load<5>(a + kTileHeight * a_stride + u, a_stride * sizeof(Unit));
      Tiles::template Product<2, 5, 6>();
      if constexpr (kColumns) Tiles::template Product<3, 5, 7>();
    }
    meanwhile();
  }
  constexpr size_t kRowSums = kColumnTiles * kLanes;
  constexpr size_t kRowBytes = kRowSums * sizeof(Sum);
  Tiles::template Store<0>(c, kRowBytes);
  if constexpr (kColumns) Tiles::template Store<1>(c + kLanes, kRowBytes);
  if constexpr (kRows) Tiles::template Store<2>(c + kTileHeight * kRowSums, kRowBytes);
  if constexpr (kRows && kColumns) Tiles::template Store<3>(c + kTileHeight * kRowSums + kLanes, kRowBytes);
}

// Fetches the next product's weights into L2, a few lines after each step of this one. Where weights come from L3,
// products are 1.2 times as fast with it, in bf16 and in int8 (Emerald Rapids, 384 rows; as fast with 2 or 4 lines).
class Fetcher {
 public:
  explicit Fetcher(const WeightsAhead& weights)
      : panels_(weights.begin != nullptr ? weights.panels : 0),
        panel_bytes_(weights.panel_bytes),
        gap_(weights.panel_stride - weights.panel_bytes),
        at_(static_cast<const char*>(weights.begin)),
        left_(panel_bytes_) {}

  inline __attribute__((always_inline)) void Step() {
    constexpr int kLines = 3;
    constexpr size_t kLine = 64;
    if (panels_ == 0) return;
#pragma GCC unroll 3
    for (int i = 0; i < kLines; ++i) _mm_prefetch(at_ + i * kLine, _MM_HINT_T1);
    const size_t step = left_ < kLines * kLine ? left_ : kLines * kLine;
    at_ += step;
    left_ -= step;
    if (left_ != 0) return;
    --panels_;
    at_ += gap_;
    left_ = panel_bytes_;
  }

 private:
  size_t panels_;
  const size_t panel_bytes_;
  const size_t gap_;
  const char* at_;
  size_t left_;  // bytes of this panel
};

// The curve of a product that activates, in registers; of others, nothing.
template <GemmOutput kOutput>
struct HeldCurve {
  explicit HeldCurve(const ActivationCurve*) {}
  void Activate(__m512 (&)[2]) const {}
};
template <>
struct HeldCurve<GemmOutput::kElementActivated> : Segments {
  explicit HeldCurve(const ActivationCurve* curve) : Segments(*curve) {}
};

// Where the rows of a block go.
template <class Ops, GemmOutput kOutput>
class BlockOutput {
 public:
  template <class Call>
  explicit BlockOutput(const Call& call) : place_{call.c, call.c_stride}, curve_(call.curve) {}

  inline __attribute__((always_inline)) void Put(size_t row, size_t column, __m512 (&y)[2]) const {
    curve_.Activate(y);
    if constexpr (kOutput == GemmOutput::kAddToF32) {
      AddToResidual(place_, row, column, y);
    } else {
      StoreElements<Ops>(place_, row, column, y);
    }
  }

 private:
  struct Place {
    void* c;
    size_t c_stride;
  };
  const Place place_;
  const HeldCurve<kOutput> curve_;
};

// A block whose sums wait to be finished, with what its columns need in registers.
template <GemmOutput kOutput>
class Bf16Epilogue {
 public:
  explicit Bf16Epilogue(const GemmCall& call) : output_(call), bias_(call.bias) {}

  // The block with these sums, [32][32], becomes the waiting one; REQUIRES that none of the last one is left.
  inline __attribute__((always_inline)) void Wait(const float* sums, size_t row, size_t rows, size_t column) {
    sums_ = sums;
    row_ = row;
    end_ = row + rows;
    column_ = column;
    const float* bias = bias_ != nullptr ? bias_ + column : kNoBias;
    held_bias_[0] = _mm512_loadu_ps(bias);
    held_bias_[1] = _mm512_loadu_ps(bias + kLanes);
  }

  inline __attribute__((always_inline)) void Finish(size_t count) {
    for (const size_t end = row_ + count < end_ ? row_ + count : end_; row_ < end; ++row_, sums_ += kBlockColumns) {
      __m512 y[2] = {_mm512_add_ps(_mm512_load_ps(sums_), held_bias_[0]),
                     _mm512_add_ps(_mm512_load_ps(sums_ + kLanes), held_bias_[1])};
      output_.Put(row_, column_, y);
    }
  }

 private:
  const BlockOutput<Bf16Ops, kOutput> output_;
  const float* const bias_;
  const float* sums_ = nullptr;
  size_t row_ = 0;
  size_t end_ = 0;
  size_t column_ = 0;
  __m512 held_bias_[2] = {};
};

// The outer loop runs over rows, the inner one over columns: 32 rows of A stay in L1 while weights stream from L2.
template <class Tiles, GemmOutput kOutput>
void AmxGemmTo(const GemmCall& call) {
  alignas(64) float sums[2][kBlockRows * kBlockColumns];
  const size_t units = call.depth / Bf16Ops::kPerUnit;
  const size_t a_stride = call.a_stride / Bf16Ops::kPerUnit;
  const size_t rows_per_step = (kBlockRows * kTileUnits + units - 1) / units;
  Bf16Epilogue<kOutput> epilogue(call);
  Fetcher fetcher(call.next);
  const auto meanwhile = [&]() __attribute__((always_inline)) {
    fetcher.Step();
    epilogue.Finish(rows_per_step);
  };
  size_t turn = 0;
  for (size_t row = 0; row < call.rows; row += kBlockRows) {
    const size_t rows = call.rows - row < kBlockRows ? call.rows - row : kBlockRows;
    const Unit* a = static_cast<const Unit*>(call.a) + row * a_stride;
    for (size_t column = call.panel_begin * kPanelColumns; column < call.panel_end * kPanelColumns;
         column += kBlockColumns) {
      const Unit* b =
          static_cast<const Unit*>(call.b) + column / kPanelColumns * kPanelColumns * units + column % kPanelColumns;
      if (rows > kTileHeight) {
        AmxBlock<Tiles, 2, 2>(a, a_stride, b, kPanelColumns, units, sums[turn], meanwhile);
      } else {
        AmxBlock<Tiles, 1, 2>(a, a_stride, b, kPanelColumns, units, sums[turn], meanwhile);
      }
      epilogue.Finish(kBlockRows);
      epilogue.Wait(sums[turn], row, rows, column);
      turn ^= 1;
    }
  }
  epilogue.Finish(kBlockRows);
}

template <class Tiles>
void AmxGemm(const GemmCall& call) {
  switch (call.output) {
    case GemmOutput::kElement: AmxGemmTo<Tiles, GemmOutput::kElement>(call); break;
    case GemmOutput::kElementActivated: AmxGemmTo<Tiles, GemmOutput::kElementActivated>(call); break;
    case GemmOutput::kAddToF32: AmxGemmTo<Tiles, GemmOutput::kAddToF32>(call); break;
  }
}

}  // namespace
