// The int8 kernels as plain C++: the definition of every rounding, and what runs where there is no faster set.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/kernels/portable_elements.h"

namespace sutra::cpu {
namespace {

constexpr size_t kBlockMax = 384;
constexpr float kInverseSteps = 1.0F / 255;

// Fused where the definition says so: a compiler must not choose.
float Fused(float a, float b, float c) { return std::fma(a, b, c); }

// M of MixBlockWidth's comment, on one block.
void Mix(float* t, size_t block) {
  const size_t vectors = block / kMixLanes;
  size_t span = vectors;
  if (vectors == 24) {
    span = 8;
    for (size_t i = 0; i < 8 * kMixLanes; ++i) {
      const float sum = (t[i] + t[i + 8 * kMixLanes]) + t[i + 16 * kMixLanes];
      for (size_t third = 0; third < 3; ++third) {
        float& value = t[i + third * 8 * kMixLanes];
        value = Fused(-2.0F / 3, sum, value);
      }
    }
  }
  for (size_t h = 1; h < span; h *= 2) {
    for (size_t i = 0; i < vectors; ++i) {
      if ((i & h) != 0) continue;
      for (size_t lane = 0; lane < kMixLanes; ++lane) {
        float& first = t[i * kMixLanes + lane];
        float& second = t[(i + h) * kMixLanes + lane];
        const float sum = first + second;
        second = first - second;
        first = sum;
      }
    }
  }
}

uint8_t Saturated(float value) { return static_cast<uint8_t>(std::min(std::max(std::nearbyint(value), 0.0F), 255.0F)); }

void StoreBlock(const float* t, size_t row, size_t index, size_t block, const QuantisedRows& out) {
  float largest = kQuantisedRangeMin;
  bool finite = true;
  for (size_t i = 0; i < block; ++i) {
    largest = std::max(largest, std::abs(t[i]));
    finite = finite && std::isfinite(t[i]);
  }
  float& scale = out.scale[row * out.blocks + index];
  uint8_t* values = out.values + row * out.stride + index * block;
  uint8_t* remainders = row >= out.two_term_begin ? out.remainders + row * out.stride + index * block : nullptr;
  if (!finite) {
    scale = std::numeric_limits<float>::quiet_NaN();
    std::fill_n(values, block, uint8_t{0});
    if (remainders != nullptr) std::fill_n(remainders, block, uint8_t{0});
    return;
  }
  scale = largest * (1.0F / kInt8Levels);
  const float inverse = 1.0F / scale;
  for (size_t i = 0; i < block; ++i) {
    const float level = Fused(t[i], inverse, kInt8ZeroPoint);
    values[i] = Saturated(level);
    if (remainders == nullptr) continue;
    remainders[i] = Saturated(Fused(level - static_cast<float>(values[i]), 255.0F, kInt8ZeroPoint));
  }
}

// x(i) is the input of column i.
template <class Input>
void QuantiseRow(const Quantisation& how, size_t row, uint8_t row_class, const QuantisedRows& out, const Input& x) {
  const float* shift = how.shift[row_class];
  float t[kBlockMax];
  for (size_t begin = 0; begin < how.depth; begin += how.block) {
    for (size_t i = 0; i < how.block; ++i) t[i] = Fused(x(begin + i), how.inverse_smooth[begin + i], shift[begin + i]);
    Mix(t, how.block);
    StoreBlock(t, row, begin / how.block, how.block, out);
  }
}

template <class E>
void Quantise(const QuantiseCall& call) {
  for (size_t row = 0; row < call.rows; ++row) {
    const auto* x = static_cast<const typename E::T*>(call.x) + row * call.x_stride;
    QuantiseRow(call.how, row, call.classes[row], call.out, [x](size_t i) { return E::Load(x[i]); });
  }
}

void NormalizeQuantise(const NormalizeQuantiseCall& call) {
  const NormalizeCall& norm = call.norm;
  const auto width = static_cast<float>(norm.width);
  for (size_t row = 0; row < norm.rows; ++row) {
    float* x = norm.x + row * norm.stride;
    float sum = 0;
    for (size_t i = 0; i < norm.width; ++i) sum += x[i];
    const float mean = sum / width;
    float square = 0;
    for (size_t i = 0; i < norm.width; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0F / std::sqrt(square / width + norm.epsilon);
    for (size_t i = 0; i < norm.width; ++i) x[i] = (x[i] - mean) * factor * norm.gain[i] + norm.shift[i];
    QuantiseRow(call.how, row, call.classes[row], call.out,
                [&norm, x](size_t i) { return i < norm.width ? x[i] : 0.0F; });
  }
}

void Multiply(const uint8_t* a, const int8_t* b, size_t block, const int32_t* offsets, int32_t (&sums)[kPanelColumns]) {
  std::copy_n(offsets, kPanelColumns, sums);
  for (size_t k = 0; k < block; k += 4) {
    const int8_t* line = b + k * kPanelColumns;
    for (size_t n = 0; n < kPanelColumns; ++n) {
      for (size_t i = 0; i < 4; ++i) sums[n] += a[k + i] * line[n * 4 + i];
    }
  }
}

template <class E>
void StoreRow(const Int8GemmCall& call, size_t row, size_t column, const float* y) {
  for (size_t n = 0; n < kPanelColumns && column + n < call.columns; ++n) {
    const size_t at = row * call.c_stride + column + n;
    switch (call.output) {
      case GemmOutput::kAddToF32: static_cast<float*>(call.c)[at] += y[n]; break;
      case GemmOutput::kElementActivated:
        static_cast<typename E::T*>(call.c)[at] = E::Store(Activate<E>(*call.curve, y[n]));
        break;
      case GemmOutput::kElement: static_cast<typename E::T*>(call.c)[at] = E::Store(y[n]); break;
    }
  }
}

template <class E>
void MultiplyRow(const Int8GemmCall& call, size_t row, size_t panel) {
  const size_t column = panel * kPanelColumns;
  const float* bias = call.bias[call.classes[row]];
  float y[kPanelColumns];
  for (size_t n = 0; n < kPanelColumns; ++n) y[n] = bias != nullptr ? bias[column + n] : 0.0F;
  for (size_t begin = 0; begin < call.depth; begin += call.block) {
    const size_t index = begin / call.block;
    const int8_t* b = call.b + panel * call.b_panel_stride + begin * kPanelColumns;
    const int32_t* offsets = call.offsets + index * call.offsets_stride + column;
    const float scale = call.a.scale[row * call.a.blocks + index];
    int32_t sums[kPanelColumns];
    Multiply(call.a.values + row * call.a.stride + begin, b, call.block, offsets, sums);
    float products[kPanelColumns];
    for (size_t n = 0; n < kPanelColumns; ++n) products[n] = static_cast<float>(sums[n]) * scale;
    if (row >= call.a.two_term_begin) {
      const float fine_scale = scale * kInverseSteps;
      Multiply(call.a.remainders + row * call.a.stride + begin, b, call.block, offsets, sums);
      for (size_t n = 0; n < kPanelColumns; ++n) {
        products[n] = Fused(static_cast<float>(sums[n]), fine_scale, products[n]);
      }
    }
    for (size_t n = 0; n < kPanelColumns; ++n) y[n] = Fused(products[n], call.scale[column + n], y[n]);
  }
  StoreRow<E>(call, row, column, y);
}

template <class E>
void Gemm(const Int8GemmCall& call) {
  for (size_t panel = call.panel_begin; panel < call.panel_end; ++panel) {
    for (size_t row = 0; row < call.rows; ++row) MultiplyRow<E>(call, row, panel);
  }
}

}  // namespace

const Int8Kernels* PortableInt8Kernels(Element element) {
  static constexpr Int8Kernels kF32 = {Quantise<F32Element>, NormalizeQuantise, Gemm<F32Element>};
  static constexpr Int8Kernels kBf16 = {Quantise<Bf16Element>, NormalizeQuantise, Gemm<Bf16Element>};
  return element == Element::kF32 ? &kF32 : &kBf16;
}

}  // namespace sutra::cpu
