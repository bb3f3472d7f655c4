// A product's weights while they are worked on: transposed, so that every loop runs over neighbouring outputs.
// Thread rule: plain data; the functions are stateless.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace sutra::cpu {

struct TransposedWeights {
  size_t depth = 0;           // inputs; a multiple of 64
  size_t width = 0;           // outputs, padded to whole panels
  std::vector<float> values;  // [depth][width]

  float* row(size_t k) { return values.data() + k * width; }
  const float* row(size_t k) const { return values.data() + k * width; }
};

inline constexpr float kCodeMax = 127;  // of s8; -128 is not used, so that -w has the code -q

// The nearest code, as a float. To integers by adding 1.5 * 2^23, ties to even: exact below 2^22, which no quotient of
// a weight and its scale reaches, and vectorised with no more than SSE2, where std::nearbyint is a call.
inline float NearestCode(float weight, float inverse_scale) {
  constexpr float kShift = 0x1.8p23F;
  const float rounded = (weight * inverse_scale + kShift) - kShift;
  return std::min(std::max(-kCodeMax, rounded), kCodeMax);  // in this order what is not a number becomes a code too
}

// 1 / scale, and 0 for an output channel of zeros.
inline std::vector<float> InverseScales(const std::vector<float>& scale) {
  std::vector<float> inverse(scale.size());
  for (size_t n = 0; n < scale.size(); ++n) inverse[n] = scale[n] > 0 ? 1 / scale[n] : 0;
  return inverse;
}

}  // namespace sutra::cpu
