// The arithmetic of an encoder on one CPU core, as tables of plain functions: one table per instruction set, chosen at
// run time by kernel_choice.h. Each table lives in its own translation unit, compiled with that set's flags.
//
// Thread rule: stateless; any thread may call any function. Between PrepareThread and ReleaseThread of a table the
// thread must not use another library that programs the AMX tiles.
// Invariants:
// - An activation buffer that a product reads has kRowPadding spare rows behind the last one, with any content.
// - Every table computes every shape, because widths are padded (widths.h): depths and columns of products are
// multiples
//   of kPanelColumns, head widths of kHeadColumns. In rows of the residual stream and of the elements of a norm,
//   columns from the real width to the next multiple of kPanelColumns are zero.
// - "Element" is the type products read: float, or bfloat16 as uint16_t. Sums, residuals and norms are always fp32.
// - The unit of memory in a product is four bytes: one float, or two neighbouring bfloat16. That is why one kernel body
//   serves both.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sutra::cpu {

enum class Element : uint8_t { kF32, kBf16 };

inline constexpr size_t kPanelColumns = 64;  // columns of one packed weight panel
inline constexpr size_t kHeadColumns = 32;   // a head's width is a multiple of it
inline constexpr size_t kRowPadding = 32;

constexpr size_t ElementBytes(Element element) { return element == Element::kF32 ? 4 : 2; }
constexpr size_t PerUnit(Element element) { return element == Element::kF32 ? 1 : 2; }

// An activation of the form x * (1/2 + f(x)) with odd f; both kinds of GELU are such a curve. It is given twice:
// - for fp32, f(x) = c * R(c * c * scale - 1), c = x clamped to +-limit and R a polynomial, highest power first;
// - for bf16, f(|x|) = p[0] + p[1] |x| + p[2] |x|^2 on segments, which takes half of the arithmetic and looks the p up
// in
//   tables of a register each. |x| is in segment min(round(|x| * segments_per_unit), the last one), where f is 1/2.
struct ActivationCurve {
  static constexpr int kCoefficients = 16;
  static constexpr int kSegments = 16;
  float limit = 0;
  float scale = 0;
  float coefficients[kCoefficients] = {};
  float segments_per_unit = 0;
  alignas(64) float segments[3][kSegments] = {};
};
// Added to a number below 2^22, leaves its nearest integer in the lowest bits of the sum.
inline constexpr float kRoundToBits = 0x1p23F;

enum class GemmOutput : uint8_t {
  kElement,           // c[r][n] = element(sum + bias[n])
  kElementActivated,  // c[r][n] = element(curve(sum + bias[n]))
  kAddToF32,          // c[r][n] += sum + bias[n], c in fp32 (a residual stream); bias may be null
};

// Weights that the product after this one reads, so that a set may fetch them while it computes.
struct WeightsAhead {
  const void* begin = nullptr;  // null: nothing to fetch
  size_t panels = 0;
  size_t panel_bytes = 0;   // read of each
  size_t panel_stride = 0;  // bytes from one to the next
};

// c[rows][64 * (panel_end - panel_begin)] from a[rows][depth] times packed weights. `b`, `bias` and `c` point at panel
// 0 and column 0, so that threads may share one call by panel ranges.
struct GemmCall {
  const void* a = nullptr;
  size_t a_stride = 0;  // elements
  size_t rows = 0;
  const void* b = nullptr;  // [panel][depth / per_unit][64][per_unit] elements
  WeightsAhead next = {};
  size_t depth = 0;
  size_t panel_begin = 0;
  size_t panel_end = 0;
  const float* bias = nullptr;
  GemmOutput output = GemmOutput::kElement;
  void* c = nullptr;
  size_t c_stride = 0;  // elements of the output's type
  const ActivationCurve* curve = nullptr;
};

// softmax(q k^T) v for one text and a range of heads. Queries carry 1 / sqrt(head width) * log2(e) already (folded into
// their weights), so that the exponential is a power of two.
struct AttentionCall {
  const void* qkv = nullptr;  // [tokens][3 * width] elements: queries, keys, values
  size_t qkv_stride = 0;      // elements
  size_t tokens = 0;
  size_t queries = 0;  // rows computed, from the first; 0: all
  size_t width = 0;    // of all heads together
  size_t head_width = 0;
  size_t head_begin = 0;
  size_t head_end = 0;
  void* context = nullptr;  // [queries][width] elements
  size_t context_stride = 0;
  void* scratch = nullptr;  // AttentionScratchBytes(tokens, head_width), 64-byte aligned, one per thread
};
size_t AttentionScratchBytes(size_t tokens, size_t head_width);

// x[rows][width] = norm(x) * gain + shift in place, and the same rounded to elements; both with zeros up to the next
// multiple of kPanelColumns, to which gain and shift have zeros too.
struct NormalizeCall {
  float* x = nullptr;
  size_t rows = 0;
  size_t width = 0;   // of the norm
  size_t stride = 0;  // of x and of `elements`
  float epsilon = 0;
  const float* gain = nullptr;
  const float* shift = nullptr;
  void* elements = nullptr;
};

// x[i] = words[ids[i]] + positions[i] for the tokens of one text, with zeros up to the next multiple of kPanelColumns;
// the first type row is folded into `positions`. Rows of both tables are exactly `width` floats, and nothing is read
// beyond them.
struct EmbedCall {
  const int32_t* ids = nullptr;
  size_t tokens = 0;
  size_t width = 0;
  const float* words = nullptr;
  const float* positions = nullptr;
  float* x = nullptr;
  size_t x_stride = 0;
};

// out[width] = the mean of the rows; nothing is written beyond.
struct MeanCall {
  const float* x = nullptr;
  size_t rows = 0;
  size_t width = 0;
  size_t stride = 0;
  float* out = nullptr;
};

struct Int8Kernels;  // int8_kernels.h

struct KernelTable {
  const char* name;
  Element element;
  size_t chunk_tokens;  // tokens taken through all layers at once, at least: weights are rarely re-read
  void (*prepare_thread)();
  void (*release_thread)();
  void (*gemm)(const GemmCall&);
  void (*attention)(const AttentionCall&);
  void (*normalize)(const NormalizeCall&);
  void (*embed)(const EmbedCall&);
  void (*mean)(const MeanCall&);
  size_t chunk_tokens_max = 0;        // where the caches have room for more; 0: no more
  const Int8Kernels* int8 = nullptr;  // products u8 x s8; null where the set has none
};

// Plain C++ for every CPU: the reference against which the others are tested.
const KernelTable* PortableKernels(Element element);

// Null where the build's compiler cannot emit the set. Call only on a CPU that has it (see features.h).
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* Avx512Bf16Kernels();
const KernelTable* AmxKernels();

}  // namespace sutra::cpu
