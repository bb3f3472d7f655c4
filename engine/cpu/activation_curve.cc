#include "engine/cpu/activation_curve.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

namespace sutra::cpu {
namespace {

// The odd part f of an activation x * (1/2 + f(x)).
double OddPart(Activation activation, double x) {
  if (activation == Activation::kGeluTanh) {
    return 0.5 * std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x));
  }
  return 0.5 * std::erf(x / std::numbers::sqrt2);
}

// Coefficients of sum(c[j] T_j(s)) as powers of s, lowest first, by T_j = 2 s T_{j-1} - T_{j-2}.
std::vector<double> ChebyshevToPowers(const std::vector<double>& chebyshev) {
  const size_t count = chebyshev.size();
  std::vector<double> powers(count, 0.0);
  std::vector<double> before(count, 0.0);
  std::vector<double> current(count, 0.0);
  before[0] = 1.0;
  current[1] = 1.0;
  powers[0] += chebyshev[0];
  powers[1] += chebyshev[1];
  for (size_t j = 2; j < count; ++j) {
    std::vector<double> next(count, 0.0);
    for (size_t i = 0; i + 1 < count; ++i) next[i + 1] = 2.0 * current[i];
    for (size_t i = 0; i < count; ++i) next[i] -= before[i];
    for (size_t i = 0; i < count; ++i) powers[i] += chebyshev[j] * next[i];
    before = std::exchange(current, std::move(next));
  }
  return powers;
}

void MakePolynomial(Activation activation, ActivationCurve* curve) {
  // Beyond the limit f is constant; the limit is where that costs less than the polynomial's own error. It was chosen
  // among its neighbours because the kernels' rounding there is less than 2^-27, with and without fused products.
  curve->limit = 5.34375F;
  const double limit = static_cast<double>(curve->limit);
  curve->scale = static_cast<float>(2.0 / (limit * limit));

  constexpr size_t kCount = ActivationCurve::kCoefficients;
  std::vector<double> chebyshev(kCount, 0.0);
  for (size_t k = 0; k < kCount; ++k) {
    const double angle = std::numbers::pi * (static_cast<double>(k) + 0.5) / kCount;
    const double x = limit * std::sqrt((std::cos(angle) + 1.0) / 2.0);
    const double value = OddPart(activation, x) / x;
    for (size_t j = 0; j < kCount; ++j) {
      const double weight = (j == 0 ? 1.0 : 2.0) / kCount;
      chebyshev[j] += weight * value * std::cos(static_cast<double>(j) * angle);
    }
  }
  const std::vector<double> powers = ChebyshevToPowers(chebyshev);
  for (size_t i = 0; i < kCount; ++i) curve->coefficients[i] = static_cast<float>(powers[kCount - 1 - i]);
  // f(limit) = 1/2 as the kernels compute it: there the polynomial is the sum of its coefficients, in this order. What
  // is missing would be multiplied by |x| beyond the limit, without a bound.
  float* last = &curve->coefficients[kCount - 1];
  *last = 0.5F / curve->limit - std::accumulate(curve->coefficients, last, 0.0F);
}

// The parabola of each segment goes through f at the three Chebyshev nodes, which is within a twelfth of the best one.
void MakeSegments(Activation activation, ActivationCurve* curve) {
  constexpr int kLast = ActivationCurve::kSegments - 1;
  constexpr double kLimit = 4.0;  // f is 1/2 to within 3.2e-5 from there on
  const double per_unit = (kLast - 0.5) / kLimit;
  curve->segments_per_unit = static_cast<float>(per_unit);
  for (int segment = 0; segment < kLast; ++segment) {
    const double middle = segment / per_unit;
    const double node = std::sqrt(3.0) / 2 * 0.5 / per_unit;
    const double below = OddPart(activation, middle - node);
    const double at = OddPart(activation, middle);
    const double above = OddPart(activation, middle + node);
    const double slope = (above - below) / (2 * node);
    const double bend = (above - 2 * at + below) / (2 * node * node);
    curve->segments[0][segment] = static_cast<float>(at - slope * middle + bend * middle * middle);
    curve->segments[1][segment] = static_cast<float>(slope - 2 * bend * middle);
    curve->segments[2][segment] = static_cast<float>(bend);
  }
  curve->segments[0][kLast] = 0.5F;
}

}  // namespace

ActivationCurve MakeActivationCurve(Activation activation) {
  ActivationCurve curve;
  MakePolynomial(activation, &curve);
  MakeSegments(activation, &curve);
  return curve;
}

}  // namespace sutra::cpu
