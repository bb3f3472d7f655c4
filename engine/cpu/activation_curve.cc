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

}  // namespace

ActivationCurve MakeActivationCurve(Activation activation, Element element) {
  // Beyond the limit f is constant; the limit is where that costs less than the polynomial's own error. 4 is a power of
  // two, so that the kernels' sums at the limit are exact; the other one was chosen among its neighbours because their
  // rounding there is less than 2^-27, with and without fused products.
  ActivationCurve curve;
  curve.limit = element == Element::kF32 ? 5.34375F : 4.0F;
  curve.count = element == Element::kF32 ? 16 : 9;
  const double limit = static_cast<double>(curve.limit);
  curve.scale = static_cast<float>(2.0 / (limit * limit));

  const auto count = static_cast<size_t>(curve.count);
  std::vector<double> chebyshev(count, 0.0);
  for (size_t k = 0; k < count; ++k) {
    const double angle = std::numbers::pi * (static_cast<double>(k) + 0.5) / static_cast<double>(count);
    const double x = limit * std::sqrt((std::cos(angle) + 1.0) / 2.0);
    const double value = OddPart(activation, x) / x;
    for (size_t j = 0; j < count; ++j) {
      const double weight = (j == 0 ? 1.0 : 2.0) / static_cast<double>(count);
      chebyshev[j] += weight * value * std::cos(static_cast<double>(j) * angle);
    }
  }
  const std::vector<double> powers = ChebyshevToPowers(chebyshev);
  for (size_t i = 0; i < count; ++i) curve.coefficients[i] = static_cast<float>(powers[count - 1 - i]);
  // f(limit) = 1/2 as the kernels compute it: there the polynomial is the sum of its coefficients, in this order. What
  // is missing would be multiplied by |x| beyond the limit, without a bound.
  const float others = std::accumulate(curve.coefficients, curve.coefficients + count - 1, 0.0F);
  curve.coefficients[count - 1] = 0.5F / curve.limit - others;
  return curve;
}

}  // namespace sutra::cpu
