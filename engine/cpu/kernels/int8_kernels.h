// The int8 half of a kernel table: rows quantised to u8, and products u8 x s8 with exact integer sums.
//
// One row of inputs x of class c is quantised in blocks of `block` columns:
//   t = M (x * inverse_smooth + shift[c])       M orthogonal, see MixBlockWidth
//   a = max |t| / 127,  q = sat_u8(round(t / a) + 128)
// and a product of it is, summed over the blocks,
//   y = a * scale * (sum(q * b) + offset) + bias[c],  offset = -128 * sum(b)
// The weights carry M and the smoothing; the reference vector that `shift` takes away comes back with the bias. Scales
// belong to a row, so a text's vector does not depend on its batch. With one zero point for all rows, what it costs is
// where an integer sum begins: against a zero point of each row's own, products are 1.5 to 2 % faster (Zen 5). Mixed
// inputs lie evenly about zero, so a scale is hardly larger: the smallest cosine over 4,630 texts went from 0.99946 to
// 0.99940 (all-MiniLM-L6-v2).
//
// The order of every rounding is part of the definition (portable_int8.cc is that definition in code), so that all sets
// compute the same bits from the same inputs, the sums of a norm and the activation curve aside.
// A row with an input that is not finite gets the scale NaN: no integer can say it, but every product of that row is
// NaN then, and with it the text's vector.
// Source: SmoothQuant (Xiao et al. 2022) for smoothing, QuaRot (Ashkboos et al. 2024) for mixing; reference vectors per
// class of rows are our own (engine/DESIGN.md).
// Thread rule: stateless, as kernels.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

// A row's class: 0 for the first token of a text, whose activations are nearly the same in all texts, 1 for the others.
inline constexpr size_t kRowClasses = 2;

inline constexpr size_t kMixLanes = 16;  // M mixes column i with i + 16, i + 32, ... of its block, never neighbours

// Columns that share a scale and are mixed with each other: 384 where that divides the depth, else the largest of 256,
// 128, 64 that does. REQUIRES depth % 64 == 0.
// M on a block seen as vectors of kMixLanes columns, v[0..n): n = 24: first v[i], v[i + 8], v[i + 16] each minus 2/3 of
// their sum, for i < 8; then butterflies over v[0..8), v[8..16), v[16..24): for h = 1, 2, 4: (v[i], v[i + h]) becomes
// (v[i] + v[i + h], v[i] - v[i + h]) where i has no bit h. Otherwise butterflies alone, over all n. The factor that
// makes M orthogonal (8^-1/2, or n^-1/2) is in inverse_smooth and shift, so that kernels only add.
constexpr size_t MixBlockWidth(size_t depth) {
  if (depth % 384 == 0) return 384;
  return depth % 256 == 0 ? 256 : depth % 128 == 0 ? 128 : 64;
}

// How the inputs of one product are quantised. Pointers to arrays of `depth` floats.
struct Quantisation {
  size_t depth = 0;
  size_t block = 0;
  const float* inverse_smooth = nullptr;
  const float* shift[kRowClasses] = {};
};

inline constexpr float kInt8ZeroPoint = 128;
inline constexpr float kInt8Levels = 127;  // on either side of it

// A largest |t| below this counts as this: its inverse must be finite.
inline constexpr float kQuantisedRangeMin = 1e-30F;

inline constexpr size_t kNoTwoTermRow = ~size_t{0};

// Rows as products read them. Values lie in [rows][stride] bytes, scales in [rows][blocks] floats. As other inputs of a
// product, values and remainders have kRowPadding spare rows.
// Rows from `two_term_begin` on have a second term, r = sat_u8(round(255 (t / a + 128 - q)) + 128), with a scale of
// a / 255: rows of short texts, which have few others to average their errors with.
struct QuantisedRows {
  uint8_t* values = nullptr;
  uint8_t* remainders = nullptr;  // of the rows from two_term_begin on; may be null if there are none
  size_t stride = 0;
  float* scale = nullptr;  // a
  size_t blocks = 0;       // per row; a product may read fewer, see Int8GemmCall
  size_t two_term_begin = kNoTwoTermRow;
};

// Rows of elements (of the table's type) to u8.
struct QuantiseCall {
  const void* x = nullptr;  // [rows][depth] elements
  size_t x_stride = 0;      // elements
  size_t rows = 0;
  const uint8_t* classes = nullptr;  // [rows]
  Quantisation how;
  QuantisedRows out;
};

// As NormalizeCall, with the rows quantised instead of stored as elements (norm.elements is not used). Columns from the
// norm's width to the quantisation's depth count as zero.
struct NormalizeQuantiseCall {
  NormalizeCall norm;
  const uint8_t* classes = nullptr;  // [rows]
  Quantisation how;
  QuantisedRows out;
};

// As GemmCall, from quantised rows. A product over some of the blocks of its weights has pointers into them.
struct Int8GemmCall {
  QuantisedRows a;
  size_t rows = 0;
  const uint8_t* classes = nullptr;  // [rows]
  const int8_t* b = nullptr;         // [panel][depth / 4][64][4]
  size_t b_panel_stride = 0;         // bytes
  WeightsAhead next = {};            // what the product after this one reads
  size_t depth = 0;                  // of this product, a multiple of `block`
  size_t block = 0;                  // a multiple of 64
  size_t columns = 0;
  size_t panel_begin = 0;
  size_t panel_end = 0;
  const float* scale = nullptr;              // [panels * 64], of each column of b
  const int32_t* offsets = nullptr;          // [depth / block][panels * 64]: -128 * sum of b over the block
  size_t offsets_stride = 0;                 // from one block's to the next
  const float* bias[kRowClasses] = {};       // [panels * 64] each; null: none
  GemmOutput output = GemmOutput::kElement;  // elements are of the table's type
  void* c = nullptr;
  size_t c_stride = 0;
  const ActivationCurve* curve = nullptr;
};

struct Int8Kernels {
  void (*quantise)(const QuantiseCall&);
  void (*normalize_quantise)(const NormalizeQuantiseCall&);
  void (*gemm)(const Int8GemmCall&);
};

// For every shape and CPU, with elements of this type: the definition.
const Int8Kernels* PortableInt8Kernels(Element element);

// Kernel sets with int8 products; what else they compute is as in the set without. Null where the build's compiler
// cannot emit the set. Call only on a CPU that has it (see features.h).
const KernelTable* AvxVnniKernels();         // 256 bits; elements are fp32
const KernelTable* Avx512VnniKernels();      // elements are fp32
const KernelTable* Avx512VnniBf16Kernels();  // elements are bf16
const KernelTable* AmxInt8Kernels();         // elements are bf16

}  // namespace sutra::cpu
