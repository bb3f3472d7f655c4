// How the portable kernels read and write elements, and the activation curve.
// Thread rule: stateless. Include from the portable kernels only.
#pragma once

#include <cstring>

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

// How elements are read and written: floats as they are, bfloat16 widened and rounded to nearest even.
struct F32Element {
  using T = float;
  static constexpr Element kElement = Element::kF32;
  static float Load(T value) { return value; }
  static T Store(float value) { return value; }
};

struct Bf16Element {
  using T = uint16_t;
  static constexpr Element kElement = Element::kBf16;
  static float Load(T value) {
    const uint32_t bits = static_cast<uint32_t>(value) << 16;
    float widened;
    std::memcpy(&widened, &bits, sizeof(widened));
    return widened;
  }
  static T Store(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (value != value) return static_cast<T>((bits >> 16) | 0x40U);
    return static_cast<T>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
  }
};

template <class E>
float Activate(const ActivationCurve& curve, float x) {
  if constexpr (E::kElement == Element::kBf16) {
    constexpr float kLast = kRoundToBits + ActivationCurve::kSegments - 1;
    const float u = x < 0 ? -x : x;
    const float place = u * curve.segments_per_unit + kRoundToBits;
    const float segment = place < kLast ? place : kLast;
    uint32_t bits;
    std::memcpy(&bits, &segment, sizeof(bits));
    const size_t i = bits % ActivationCurve::kSegments;
    return x * 0.5F + u * (curve.segments[0][i] + u * (curve.segments[1][i] + u * curve.segments[2][i]));
  }
  const float c = x > curve.limit ? curve.limit : x < -curve.limit ? -curve.limit : x;
  const float s = c * c * curve.scale - 1.0F;
  float poly = curve.coefficients[0];
  for (int i = 1; i < ActivationCurve::kCoefficients; ++i) poly = poly * s + curve.coefficients[i];
  return x * (0.5F + c * poly);
}

}  // namespace sutra::cpu
