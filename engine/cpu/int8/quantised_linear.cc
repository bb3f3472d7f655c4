// Everything but the rounding itself (gptq.h).
#include "engine/cpu/int8/quantised_linear.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

#include "engine/cpu/int8/gptq.h"
#include "engine/cpu/int8/mixing.h"
#include "engine/cpu/int8/transposed_weights.h"

namespace sutra::cpu {
namespace {

// Shares of the largest weight of an output channel that are tried as its clipping point.
constexpr float kClippings[] = {1, 0.97F, 0.94F, 0.91F, 0.88F, 0.85F, 0.8F, 0.75F, 0.7F};

TransposedWeights Transpose(const float* weight, size_t columns, size_t depth) {
  TransposedWeights out{.depth = QuantisedDepth(depth), .width = RoundUp(columns, kPanelColumns), .values = {}};
  out.values.resize(out.depth * out.width);
  for (size_t n = 0; n < columns; ++n) {
    for (size_t k = 0; k < depth; ++k) out.row(k)[n] = weight[n * depth + k];
  }
  return out;
}

double SumOfSquares(const float* x, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

// s_k = (rms of input k / rms of its weights)^(1/2), with mean 1: what inputs and weights are hard to hold is halved
// between them.
std::vector<float> Smoothing(const TransposedWeights& weight, size_t columns, const LinearStatistics& statistics) {
  constexpr double kInputMin = 1e-3;
  constexpr double kWeightMin = 1e-4;
  const size_t depth = statistics.depth;
  std::vector<double> smoothing(depth);
  double sum = 0;
  for (size_t k = 0; k < depth; ++k) {
    const double input = std::sqrt(std::max(0.0, static_cast<double>(statistics.moments[k * depth + k])));
    const double weights = std::sqrt(SumOfSquares(weight.row(k), columns) / static_cast<double>(columns));
    smoothing[k] = std::sqrt(std::max(input, kInputMin) / std::max(weights, kWeightMin));
    sum += smoothing[k];
  }
  std::vector<float> out(depth);
  for (size_t k = 0; k < depth; ++k) out[k] = static_cast<float>(smoothing[k] * static_cast<double>(depth) / sum);
  return out;
}

// W'' = W diag(s) M^T, transposed.
void SmoothAndMix(TransposedWeights* weight, const std::vector<float>& smoothing, size_t block) {
  const float factor = MixFactor(block);
  for (size_t k = 0; k < smoothing.size(); ++k) {
    float* const row = weight->row(k);
    for (size_t n = 0; n < weight->width; ++n) row[n] *= smoothing[k] * factor;
  }
  Mix(weight->values.data(), weight->depth, block, weight->width);
}

// H'' = M S^-1 H S^-1 M^T, [depth][depth], padded with zeros.
std::vector<float> MixedMoments(const LinearStatistics& statistics, const std::vector<float>& smoothing, size_t depth,
                                size_t block) {
  const size_t real = statistics.depth;
  std::vector<float> out(depth * depth);
  for (size_t k = 0; k < real; ++k) {
    for (size_t j = k; j < real; ++j) {
      const float value = statistics.moments[k * real + j] / (smoothing[k] * smoothing[j]);
      out[k * depth + j] = out[j * depth + k] = value;
    }
  }
  Mix(out.data(), depth, block, depth);
  const float factor = MixFactor(block) * MixFactor(block);
  for (size_t k = 0; k < depth; ++k) {
    Mix(out.data() + k * depth, depth, block);
    for (size_t j = 0; j < depth; ++j) out[k * depth + j] *= factor;
  }
  return out;
}

// The scale of each output channel: the clipping point with the least squared error, weighted by the energy of the
// inputs. An output channel of zeros has scale 0.
std::vector<float> ClippedScales(const TransposedWeights& weight, const std::vector<float>& moments) {
  const size_t width = weight.width;
  std::vector<float> largest(width);
  for (size_t k = 0; k < weight.depth; ++k) {
    for (size_t n = 0; n < width; ++n) largest[n] = std::max(largest[n], std::abs(weight.row(k)[n]));
  }
  std::vector<float> best(width);
  std::vector<float> best_error(width, INFINITY);
  std::vector<float> scale(width);
  std::vector<float> error(width);
  for (const float clipping : kClippings) {
    for (size_t n = 0; n < width; ++n) scale[n] = largest[n] * clipping / kCodeMax;
    const std::vector<float> inverse = InverseScales(scale);
    std::fill(error.begin(), error.end(), 0.0F);
    for (size_t k = 0; k < weight.depth; ++k) {
      const float* const row = weight.row(k);
      const float energy = moments[k * weight.depth + k];
      for (size_t n = 0; n < width; ++n) {
        const float rest = NearestCode(row[n], inverse[n]) * scale[n] - row[n];
        error[n] += energy * rest * rest;
      }
    }
    for (size_t n = 0; n < width; ++n) {
      if (error[n] < best_error[n]) {
        best_error[n] = error[n];
        best[n] = scale[n];
      }
    }
  }
  return best;
}

AlignedBuffer Floats(size_t count) { return AlignedBuffer(count * sizeof(float)); }

void PackCodes(const TransposedWeights& codes, const std::vector<float>& scale, QuantisedLinear* out) {
  const size_t width = codes.width;
  out->weights = AlignedBuffer(codes.depth * width);
  out->scale = Floats(width);
  out->offsets = AlignedBuffer(codes.depth / out->block * width * sizeof(int32_t));
  std::copy(scale.begin(), scale.end(), out->scale.As<float>());
  for (size_t k = 0; k < codes.depth; ++k) {
    int32_t* const offsets = out->offsets.As<int32_t>() + k / out->block * width;
    for (size_t n = 0; n < width; ++n) {
      const size_t unit = (n / kPanelColumns * codes.depth / 4 + k / 4) * kPanelColumns + n % kPanelColumns;
      const auto code = static_cast<int8_t>(codes.row(k)[n]);
      out->weights.As<int8_t>()[unit * 4 + k % 4] = code;
      offsets[n] -= static_cast<int32_t>(kInt8ZeroPoint) * code;
    }
  }
}

void PackInputs(const LinearStatistics& statistics, const std::vector<float>& smoothing, QuantisedLinear* out) {
  const float factor = MixFactor(out->block);
  out->inverse_smooth = Floats(out->depth);
  for (size_t k = 0; k < smoothing.size(); ++k) out->inverse_smooth.As<float>()[k] = factor / smoothing[k];
  for (size_t c = 0; c < kRowClasses; ++c) {
    out->shift[c] = Floats(out->depth);
    for (size_t k = 0; k < smoothing.size(); ++k) {
      out->shift[c].As<float>()[k] = -statistics.mean[c][k] * out->inverse_smooth.As<float>()[k];
    }
  }
}

void PackBias(const float* weight, const float* bias, const LinearStatistics& statistics, QuantisedLinear* out) {
  for (size_t c = 0; c < kRowClasses; ++c) {
    out->bias[c] = Floats(out->panels() * kPanelColumns);
    for (size_t n = 0; n < out->columns; ++n) {
      double sum = bias == nullptr ? 0 : static_cast<double>(bias[n]);
      for (size_t k = 0; k < statistics.depth; ++k) {
        sum += static_cast<double>(weight[n * statistics.depth + k]) * static_cast<double>(statistics.mean[c][k]);
      }
      out->bias[c].As<float>()[n] = static_cast<float>(sum);
    }
  }
}

}  // namespace

QuantisedLinear PackQuantised(const float* weight, const float* bias, size_t columns, size_t depth,
                              const LinearStatistics& statistics, const Rounding& rounding) {
  assert(statistics.depth == depth);
  TransposedWeights work = Transpose(weight, columns, depth);
  QuantisedLinear out;
  out.columns = columns;
  out.depth = work.depth;
  out.block = MixBlockWidth(work.depth);
  const std::vector<float> smoothing = Smoothing(work, columns, statistics);
  SmoothAndMix(&work, smoothing, out.block);
  const std::vector<float> moments = MixedMoments(statistics, smoothing, out.depth, out.block);
  const std::vector<float> scale = ClippedScales(work, moments);
  if (rounding.kernels != nullptr) {
    RoundByGptq(*rounding.kernels, moments, scale, rounding.damping, &work);
  } else {
    RoundToNearest(scale, &work);
  }
  PackCodes(work, scale, &out);
  PackInputs(statistics, smoothing, &out);
  PackBias(weight, bias, statistics, &out);
  return out;
}

}  // namespace sutra::cpu
