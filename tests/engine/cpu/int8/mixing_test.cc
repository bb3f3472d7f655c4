// M against its definition in int8_kernels.h, written out as a matrix.
#include "engine/cpu/int8/mixing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {
namespace {

constexpr size_t kDepths[] = {64, 128, 192, 256, 320, 384, 512, 768, 1024, 1152, 1536};

// Column k of M, without its factor: M applied to the k-th unit vector.
std::vector<float> Column(size_t k, size_t depth) {
  std::vector<float> x(depth);
  x[k] = 1;
  Mix(x.data(), depth, MixBlockWidth(depth));
  return x;
}

size_t Bits(size_t x) { return static_cast<size_t>(__builtin_popcountll(x)); }

// Entry of the Hadamard matrix in its natural order.
double Sign(size_t row, size_t column) { return Bits(row & column) % 2 == 0 ? 1 : -1; }

// M between vectors a and b of a block of n vectors, without the factor.
double Entry(size_t a, size_t b, size_t n) {
  if (n != 24) return Sign(a, b);
  const double reflected = (a / 8 == b / 8 ? 1.0 : 0.0) - 2.0 / 3;
  return Sign(a % 8, b % 8) * reflected;
}

TEST(Mixing, IsTheMatrixThatTheKernelsStateBetweenVectorsAndNeverBetweenNeighbours) {
  for (const size_t depth : kDepths) {
    const size_t block = MixBlockWidth(depth);
    for (const size_t k : {size_t{0}, size_t{17}, depth / 2, depth - 1}) {
      const std::vector<float> column = Column(k, depth);
      for (size_t i = 0; i < depth; ++i) {
        const bool mixed = i / block == k / block && i % kMixLanes == k % kMixLanes;
        const double expected = mixed ? Entry(i % block / kMixLanes, k % block / kMixLanes, block / kMixLanes) : 0.0;
        ASSERT_NEAR(static_cast<double>(column[i]), expected, 1e-6) << depth << ": " << i << ", " << k;
      }
    }
  }
}

TEST(Mixing, WithItsFactorKeepsLengthsAndAngles) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const size_t depth : kDepths) {
    std::vector<float> x(depth);
    std::vector<float> y(depth);
    for (float& value : x) value = normal(random);
    for (float& value : y) value = normal(random);
    const auto dot = [](const std::vector<float>& a, const std::vector<float>& b) {
      double sum = 0;
      for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      return sum;
    };
    const double before = dot(x, y);
    const double length = dot(x, x);
    const size_t block = MixBlockWidth(depth);
    const double factor = static_cast<double>(MixFactor(block));
    Mix(x.data(), depth, block);
    Mix(y.data(), depth, block);
    EXPECT_NEAR(dot(x, x) * factor * factor, length, 1e-4 * length) << depth;
    EXPECT_NEAR(dot(x, y) * factor * factor, before, 1e-4 * length) << depth;
  }
}

TEST(Mixing, OfAMatrixIsMixingOfEachColumn) {
  constexpr size_t kDepth = 384;
  constexpr size_t kWidth = 5;
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> matrix(kDepth * kWidth);
  for (float& value : matrix) value = normal(random);
  std::vector<float> mixed = matrix;
  Mix(mixed.data(), kDepth, MixBlockWidth(kDepth), kWidth);
  for (size_t n = 0; n < kWidth; ++n) {
    std::vector<float> column(kDepth);
    for (size_t k = 0; k < kDepth; ++k) column[k] = matrix[k * kWidth + n];
    Mix(column.data(), kDepth, MixBlockWidth(kDepth));
    for (size_t k = 0; k < kDepth; ++k) ASSERT_EQ(mixed[k * kWidth + n], column[k]);
  }
}

}  // namespace
}  // namespace sutra::cpu
