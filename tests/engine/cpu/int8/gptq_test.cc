// GPTQ against rounding to nearest, in the error that it is to lessen, and its factorisation against its product.
#include "engine/cpu/int8/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/features.h"
#include "engine/cpu/int8/gram.h"

namespace sutra::cpu {
namespace {

std::vector<const KernelTable*> Tables() {
  std::vector<const KernelTable*> tables = {PortableKernels(Element::kF32)};
  if (DetectFeatures().avx512 && Avx512Kernels() != nullptr) tables.push_back(Avx512Kernels());
  return tables;
}

class Gptq : public testing::Test {
 protected:
  std::vector<float> Normals(size_t count) {
    std::vector<float> out(count);
    for (float& value : out) value = normal_(random_);
    return out;
  }

  // The mean of d d^T over rows whose columns vary together.
  std::vector<float> Moments(size_t depth, size_t rows) {
    std::vector<float> sum(depth * depth);
    const std::vector<float> common = Normals(depth);
    for (size_t r = 0; r < rows; ++r) {
      std::vector<float> row = Normals(depth);
      const float amount = 3 * normal_(random_);
      for (size_t k = 0; k < depth; ++k) row[k] += amount * common[k];
      for (size_t k = 0; k < depth; ++k) {
        for (size_t j = 0; j < depth; ++j) sum[k * depth + j] += row[k] * row[j] / static_cast<float>(rows);
      }
    }
    return sum;
  }

  TransposedWeights Weights(size_t depth, size_t width) {
    return {.depth = depth, .width = width, .values = Normals(depth * width)};
  }

  std::mt19937 random_{11};
  std::normal_distribution<float> normal_;
};

std::vector<float> Scales(const TransposedWeights& weights, float levels) {
  std::vector<float> scale(weights.width);
  for (size_t k = 0; k < weights.depth; ++k) {
    for (size_t n = 0; n < weights.width; ++n) {
      scale[n] = std::max(scale[n], std::abs(weights.row(k)[n]) / levels);
    }
  }
  return scale;
}

// (w - q)^T (H + damping) (w - q) of one output channel.
double Error(const TransposedWeights& weights, const TransposedWeights& codes, const std::vector<float>& scale,
             const std::vector<float>& moments, float damping, size_t n) {
  const size_t depth = weights.depth;
  double trace = 0;
  for (size_t k = 0; k < depth; ++k) trace += static_cast<double>(moments[k * depth + k]);
  std::vector<double> error(depth);
  for (size_t k = 0; k < depth; ++k) {
    error[k] = static_cast<double>(weights.row(k)[n]) - static_cast<double>(codes.row(k)[n] * scale[n]);
  }
  double sum = 0;
  for (size_t k = 0; k < depth; ++k) {
    sum += error[k] * error[k] * static_cast<double>(damping) * trace / static_cast<double>(depth);
    for (size_t j = 0; j < depth; ++j) sum += error[k] * error[j] * static_cast<double>(moments[k * depth + j]);
  }
  return sum;
}

TEST_F(Gptq, IsNeverWorseThanRoundingToNearestAndMuchBetterOnTheWhole) {
  for (const KernelTable* kernels : Tables()) {
    for (const size_t depth : {64, 192, 320}) {
      for (const float levels : {7.0F, 127.0F}) {
        constexpr size_t kWidth = 64;
        constexpr float kDamping = 0.05F;
        const std::vector<float> moments = Moments(depth, 3 * depth);
        const TransposedWeights weights = Weights(depth, kWidth);
        const std::vector<float> scale = Scales(weights, levels);
        TransposedWeights nearest = weights;
        RoundToNearest(scale, &nearest);
        TransposedWeights codes = weights;
        RoundByGptq(*kernels, moments, scale, kDamping, &codes);
        double sum = 0;
        double sum_nearest = 0;
        for (size_t n = 0; n < kWidth; ++n) {
          const double error = Error(weights, codes, scale, moments, kDamping, n);
          const double error_nearest = Error(weights, nearest, scale, moments, kDamping, n);
          EXPECT_LE(error, error_nearest * 1.001) << "output " << n;
          sum += error;
          sum_nearest += error_nearest;
        }
        EXPECT_LT(sum, 0.6 * sum_nearest) << kernels->name << ", depth " << depth << ", " << levels << " levels";
        for (const float code : codes.values) {
          EXPECT_EQ(code, std::nearbyint(code));
          EXPECT_LE(std::abs(code), 127);
        }
      }
    }
  }
}

// Chooses the codes of two inputs by hand: the last one first, the other one with the error that is left.
TEST_F(Gptq, CarriesTheErrorOfTheStrongerInputToTheWeakerOne) {
  constexpr size_t kDepth = 64;
  std::vector<float> moments(kDepth * kDepth);
  for (size_t k = 0; k < kDepth; ++k) moments[k * kDepth + k] = 1e-3F;
  moments[0] = 4;                       // input 0: rounded first
  moments[1] = moments[kDepth] = 1.8F;  // goes together with input 1
  moments[kDepth + 1] = 1;
  TransposedWeights weights{.depth = kDepth, .width = 64, .values = std::vector<float>(kDepth * 64)};
  weights.row(0)[0] = 10.4F;
  weights.row(1)[0] = 5.1F;
  RoundByGptq(*PortableKernels(Element::kF32), moments, std::vector<float>(64, 1.0F), 0, &weights);
  EXPECT_EQ(weights.row(0)[0], 10);
  EXPECT_EQ(weights.row(1)[0], 6) << "5.1 + 0.4 * 1.8 / 1 = 5.82";
}

TEST_F(Gptq, SingularMomentsAreRoundedToNearest) {
  const TransposedWeights weights = Weights(64, 64);
  const std::vector<float> scale = Scales(weights, 127);
  TransposedWeights nearest = weights;
  RoundToNearest(scale, &nearest);
  TransposedWeights codes = weights;
  RoundByGptq(*PortableKernels(Element::kF32), std::vector<float>(64 * 64), scale, 0.05F, &codes);
  EXPECT_EQ(codes.values, nearest.values);
}

TEST_F(Gptq, FactorTimesItselfIsTheMatrix) {
  for (const KernelTable* kernels : Tables()) {
    for (const size_t depth : {64, 128, 384}) {
      const std::vector<float> moments = Moments(depth, 2 * depth);
      AlignedBuffer h((depth + kRowPadding) * depth * sizeof(float));
      std::copy(moments.begin(), moments.end(), h.As<float>());
      ASSERT_TRUE(Cholesky(*kernels, depth, h.As<float>()));
      for (size_t i = 0; i < depth; i += 7) {
        for (size_t j = i; j < depth; j += 5) {
          double sum = 0;
          for (size_t k = 0; k <= i; ++k) {
            sum +=
                static_cast<double>(h.As<float>()[k * depth + i]) * static_cast<double>(h.As<float>()[k * depth + j]);
          }
          ASSERT_NEAR(sum, static_cast<double>(moments[i * depth + j]), 1e-3) << kernels->name << i << "," << j;
        }
      }
    }
  }
}

TEST_F(Gptq, SumsOfColumnProductsMatchPlainLoops) {
  for (const KernelTable* kernels : Tables()) {
    constexpr size_t kRows = 37;
    constexpr size_t kWidth = 192;
    const std::vector<float> d = Normals(kRows * kWidth);
    Gram gram(*kernels, 40, 256);
    gram.Load(d.data(), kWidth, kRows, kWidth, -1);
    AlignedBuffer c(kWidth * kWidth * sizeof(float));
    for (size_t panel = 0; panel < gram.panels(); ++panel) gram.Add(panel, c.As<float>(), kWidth);
    for (size_t i = 0; i < kWidth; ++i) {
      for (size_t j = i; j < kWidth; ++j) {
        double sum = 0;
        for (size_t r = 0; r < kRows; ++r) {
          sum -= static_cast<double>(d[r * kWidth + i]) * static_cast<double>(d[r * kWidth + j]);
        }
        ASSERT_NEAR(static_cast<double>(c.As<float>()[i * kWidth + j]), sum, 1e-4) << kernels->name;
      }
    }
  }
}

}  // namespace
}  // namespace sutra::cpu
