// The kernels as plain C++: every CPU, no intrinsics. They serve where there is no faster set and are the
// reference of all kernel tests, so they are kept obvious: sums in the order of the definition, one loop per step.
#include <cmath>

#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/kernels/kernels.h"
#include "engine/cpu/kernels/portable_elements.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

constexpr size_t kRowsAtOnce = 4;

template <class E>
void FinishRow(const GemmCall& call, size_t row, size_t column, const float* sums) {
  for (size_t n = 0; n < kPanelColumns; ++n) {
    const float sum = sums[n] + (call.bias != nullptr ? call.bias[column + n] : 0.0F);
    const size_t at = row * call.c_stride + column + n;
    switch (call.output) {
      case GemmOutput::kAddToF32: static_cast<float*>(call.c)[at] += sum; break;
      case GemmOutput::kElementActivated:
        static_cast<typename E::T*>(call.c)[at] = E::Store(Activate<E>(*call.curve, sum));
        break;
      case GemmOutput::kElement: static_cast<typename E::T*>(call.c)[at] = E::Store(sum); break;
    }
  }
}

// A few rows against one panel: each packed weight is read once for all of them, and the inner loop runs over
// neighbouring columns, which any compiler vectorises for its target.
template <class E>
void Gemm(const GemmCall& call) {
  constexpr size_t kPerUnit = PerUnit(E::kElement);
  const auto* a = static_cast<const typename E::T*>(call.a);
  const auto* b = static_cast<const typename E::T*>(call.b);
  for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
    const size_t column = panel * kPanelColumns;
    const auto* weights = b + column * call.depth;
    for (size_t row = 0; row < call.rows; row += kRowsAtOnce) {
      const size_t rows = call.rows - row < kRowsAtOnce ? call.rows - row : kRowsAtOnce;
      float sums[kRowsAtOnce][kPanelColumns] = {};
      for (size_t k = 0; k < call.depth; ++k) {
        const auto* line = weights + k / kPerUnit * kPanelColumns * kPerUnit + k % kPerUnit;
        for (size_t r = 0; r < rows; ++r) {
          const float value = E::Load(a[(row + r) * call.a_stride + k]);
          for (size_t n = 0; n < kPanelColumns; ++n) sums[r][n] += value * E::Load(line[n * kPerUnit]);
        }
      }
      for (size_t r = 0; r < rows; ++r) FinishRow<E>(call, row + r, column, sums[r]);
    }
  }
}

// softmax(q k^T) v of one query: scores and then weights of all keys lie in `scores`.
template <class E>
void AttendQuery(const AttentionCall& call, size_t head, size_t query, float* scores) {
  const auto* qkv = static_cast<const typename E::T*>(call.qkv);
  const size_t stride = call.qkv_stride;
  const auto* q = qkv + query * stride + head * call.head_width;
  float top = -INFINITY;
  for (size_t key = 0; key < call.tokens; ++key) {
    const auto* k = qkv + key * stride + call.width + head * call.head_width;
    float score = 0;
    for (size_t i = 0; i < call.head_width; ++i) score += E::Load(q[i]) * E::Load(k[i]);
    scores[key] = score;
    top = score > top ? score : top;
  }
  float total = 0;
  for (size_t key = 0; key < call.tokens; ++key) {
    const float weight = std::exp2(scores[key] - top);
    total += weight;
    scores[key] = E::Load(E::Store(weight));  // the product below reads elements
  }
  auto* context = static_cast<typename E::T*>(call.context) + query * call.context_stride + head * call.head_width;
  for (size_t i = 0; i < call.head_width; ++i) {
    float sum = 0;
    for (size_t key = 0; key < call.tokens; ++key) {
      sum += scores[key] * E::Load(qkv[key * stride + 2 * call.width + head * call.head_width + i]);
    }
    context[i] = E::Store(sum / total);
  }
}

template <class E>
void Attention(const AttentionCall& call) {
  for (size_t head = call.head_begin; head < call.head_end; ++head) {
    for (size_t query = 0; query < (call.queries == 0 ? call.tokens : call.queries); ++query) {
      AttendQuery<E>(call, head, query, static_cast<float*>(call.scratch));
    }
  }
}

template <class E>
void Normalize(const NormalizeCall& call) {
  const auto width = static_cast<float>(call.width);
  const size_t padded = RoundUp(call.width, kPanelColumns);
  for (size_t row = 0; row < call.rows; ++row) {
    float* x = call.x + row * call.stride;
    auto* elements = static_cast<typename E::T*>(call.elements) + row * call.stride;
    float sum = 0;
    for (size_t i = 0; i < call.width; ++i) sum += x[i];
    const float mean = sum / width;
    float square = 0;
    for (size_t i = 0; i < call.width; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0F / std::sqrt(square / width + call.epsilon);
    for (size_t i = 0; i < padded; ++i) {
      x[i] = (x[i] - mean) * factor * call.gain[i] + call.shift[i];
      elements[i] = E::Store(x[i]);
    }
  }
}

void Embed(const EmbedCall& call) {
  for (size_t token = 0; token < call.tokens; ++token) {
    const float* word = call.words + static_cast<size_t>(call.ids[token]) * call.width;
    float* x = call.x + token * call.x_stride;
    for (size_t i = 0; i < RoundUp(call.width, kPanelColumns); ++i) {
      x[i] = i < call.width ? word[i] + call.positions[token * call.width + i] : 0.0F;
    }
  }
}

void Mean(const MeanCall& call) {
  for (size_t i = 0; i < call.width; ++i) {
    float sum = 0;
    for (size_t row = 0; row < call.rows; ++row) sum += call.x[row * call.stride + i];
    call.out[i] = sum / static_cast<float>(call.rows);
  }
}

void NoThreadState() {}

template <class E>
const KernelTable kPortable = {
    .name = E::kElement == Element::kF32 ? "portable" : "portable_bf16",
    .element = E::kElement,
    .chunk_tokens = 192,
    .prepare_thread = NoThreadState,
    .release_thread = NoThreadState,
    .gemm = Gemm<E>,
    .attention = Attention<E>,
    .normalize = Normalize<E>,
    .embed = Embed,
    .mean = Mean,
    .int8 = PortableInt8Kernels(E::kElement),
};

}  // namespace

const KernelTable* PortableKernels(Element element) {
  return element == Element::kF32 ? &kPortable<F32Element> : &kPortable<Bf16Element>;
}

}  // namespace sutra::cpu
