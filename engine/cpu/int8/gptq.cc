// Blocks of 64 inputs: within one by plain loops, everything else by fp32 products.
#include "engine/cpu/int8/gptq.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/int8/gram.h"

namespace sutra::cpu {
namespace {

constexpr size_t kBlock = kPanelColumns;

// u[begin..begin + kBlock) of the upper factor: the block on the diagonal, and with it the rows to the right of it.
bool FactoriseBlockRow(size_t begin, size_t depth, float* h) {
  for (size_t i = begin; i < begin + kBlock; ++i) {
    float* const row = h + i * depth;
    for (size_t k = begin; k < i; ++k) {
      const float* const above = h + k * depth;
      const float factor = above[i];
      for (size_t j = i; j < depth; ++j) row[j] -= factor * above[j];
    }
    if (!(row[i] > 0) || !std::isfinite(row[i])) return false;
    const float inverse = 1 / std::sqrt(row[i]);
    for (size_t j = i; j < depth; ++j) row[j] *= inverse;
  }
  return true;
}

// One walk over the inputs of all output channels, from the last to the first.
class Walk {
 public:
  Walk(const KernelTable& kernels, const float* factor, const std::vector<float>& scale,
       const TransposedWeights& weights)
      : kernels_(kernels),
        factor_(factor),
        scale_(scale),
        inverse_(InverseScales(scale)),
        weights_(weights),
        carried_(weights.depth * weights.width * sizeof(float)),
        errors_(kBlock * weights.width * sizeof(float)),
        packed_(kBlock * weights.width * sizeof(float)),
        costs_(weights.width) {}

  // Chooses codes [depth][width]; with `feedback` errors are carried on, without it each weight is rounded for itself.
  void Run(bool feedback, float* codes) {
    for (size_t end = weights_.depth; end > 0; end -= kBlock) {
      RoundBlock(end - kBlock, feedback, codes);
      if (end > kBlock) CarryOn(end - kBlock);
    }
  }
  // |U (w - q)|^2 of each output channel.
  const std::vector<float>& costs() const { return costs_; }

 private:
  float* carried(size_t k) { return carried_.As<float>() + k * weights_.width; }

  void RoundBlock(size_t begin, bool feedback, float* codes) {
    const size_t width = weights_.width;
    for (size_t j = begin + kBlock; j-- > begin;) {
      const float diagonal = factor_[j * weights_.depth + j];
      const float weight_of_carried = feedback ? 1 / diagonal : 0.0F;
      const float* const row = weights_.row(j);
      const float* const sum = carried(j);
      float* const code = codes + j * width;
      float* const error = errors_.As<float>() + (j - begin) * width;
      for (size_t n = 0; n < width; ++n) {
        code[n] = NearestCode(row[n] + sum[n] * weight_of_carried, inverse_[n]);
        error[n] = row[n] - code[n] * scale_[n];
        const float cost = error[n] * diagonal + sum[n];
        costs_[n] += cost * cost;
      }
      for (size_t i = begin; i < j; ++i) {
        const float factor = factor_[i * weights_.depth + j];
        float* const out = carried(i);
        for (size_t n = 0; n < width; ++n) out[n] += factor * error[n];
      }
    }
  }

  // Adds the errors of the block to all inputs before it.
  void CarryOn(size_t begin) {
    PackPanels(errors_.As<float>(), weights_.width, kBlock, weights_.width, packed_.As<float>());
    GemmCall call;
    call.a = factor_ + begin;
    call.a_stride = weights_.depth;
    call.rows = begin;
    call.b = packed_.data();
    call.depth = kBlock;
    call.panel_end = weights_.width / kPanelColumns;
    call.output = GemmOutput::kAddToF32;
    call.c = carried_.data();
    call.c_stride = weights_.width;
    kernels_.gemm(call);
  }

  const KernelTable& kernels_;
  const float* const factor_;  // U
  const std::vector<float>& scale_;
  const std::vector<float> inverse_;
  const TransposedWeights& weights_;
  AlignedBuffer carried_;  // [depth][width]: U (w - q) so far, but for the diagonal's share
  AlignedBuffer errors_;   // [kBlock][width]: w - q
  AlignedBuffer packed_;
  std::vector<float> costs_;
};

// Inputs in the order of their energy, the least first; equal ones by number.
std::vector<size_t> ByEnergy(const std::vector<float>& moments, size_t depth) {
  std::vector<size_t> order(depth);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return moments[a * depth + a] < moments[b * depth + b]; });
  return order;
}

// H in this order, damped; behind it the rows that products may read.
AlignedBuffer OrderedMoments(const std::vector<float>& moments, const std::vector<size_t>& order, float damping) {
  const size_t depth = order.size();
  AlignedBuffer out((depth + kRowPadding) * depth * sizeof(float));
  double trace = 0;
  for (size_t k = 0; k < depth; ++k) trace += static_cast<double>(moments[k * depth + k]);
  const float raise = damping * static_cast<float>(trace / static_cast<double>(depth));
  for (size_t i = 0; i < depth; ++i) {
    float* const row = out.As<float>() + i * depth;
    for (size_t j = i; j < depth; ++j) row[j] = moments[order[i] * depth + order[j]];
    row[i] += raise;
  }
  return out;
}

}  // namespace

bool Cholesky(const KernelTable& kernels, size_t depth, float* h) {
  assert(depth % kBlock == 0);
  Gram gram(kernels, kBlock, depth);
  for (size_t begin = 0; begin < depth; begin += kBlock) {
    if (!FactoriseBlockRow(begin, depth, h)) return false;
    const size_t next = begin + kBlock;
    if (next == depth) break;
    gram.Load(h + begin * depth + next, depth, kBlock, depth - next, -1);
    for (size_t panel = 0; panel < gram.panels(); ++panel) gram.Add(panel, h + next * depth + next, depth);
  }
  return true;
}

void RoundToNearest(const std::vector<float>& scale, TransposedWeights* weights) {
  const std::vector<float> inverse = InverseScales(scale);
  for (size_t k = 0; k < weights->depth; ++k) {
    float* const row = weights->row(k);
    for (size_t n = 0; n < weights->width; ++n) row[n] = NearestCode(row[n], inverse[n]);
  }
}

void RoundByGptq(const KernelTable& kernels, const std::vector<float>& moments, const std::vector<float>& scale,
                 float damping, TransposedWeights* weights) {
  const size_t depth = weights->depth;
  const size_t width = weights->width;
  const std::vector<size_t> order = ByEnergy(moments, depth);
  const AlignedBuffer factor = OrderedMoments(moments, order, damping);
  if (!Cholesky(kernels, depth, factor.As<float>())) {
    RoundToNearest(scale, weights);
    return;
  }
  TransposedWeights ordered{.depth = depth, .width = width, .values = std::vector<float>(depth * width)};
  for (size_t k = 0; k < depth; ++k) std::copy_n(weights->row(order[k]), width, ordered.row(k));
  std::vector<float> codes(depth * width);
  std::vector<float> nearest(depth * width);
  Walk with_feedback(kernels, factor.As<float>(), scale, ordered);
  with_feedback.Run(true, codes.data());
  Walk without(kernels, factor.As<float>(), scale, ordered);
  without.Run(false, nearest.data());
  for (size_t n = 0; n < width; ++n) {
    const bool worse = with_feedback.costs()[n] > without.costs()[n];
    for (size_t k = 0; k < depth; ++k) weights->row(order[k])[n] = (worse ? nearest : codes)[k * width + n];
  }
}

}  // namespace sutra::cpu
