// A quantised product, computed from the bytes that kernels read, against the product it stands for.
#include "engine/cpu/int8/quantised_linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "engine/cpu/int8/mixing.h"

namespace sutra::cpu {
namespace {

struct Shape {
  size_t columns;
  size_t depth;
};
constexpr Shape kShapes[] = {{64, 64},   {192, 64}, {64, 128},   {128, 320}, {384, 384},
                             {64, 1536}, {70, 100}, {1152, 384}, {30, 200},  {64, 1000}};

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  std::vector<float> Normals(size_t count, float factor = 1) {
    std::vector<float> out(count);
    for (float& value : out) value = factor * Normal();
    return out;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// Inputs whose channels differ widely in size and have a mean of their own per class.
LinearStatistics SomeStatistics(size_t depth, Random& random) {
  LinearStatistics statistics;
  statistics.depth = depth;
  for (auto& mean : statistics.mean) mean = random.Normals(depth, 3);
  statistics.moments.resize(depth * depth);
  for (size_t k = 0; k < depth; ++k) statistics.moments[k * depth + k] = std::exp(2 * random.Normal());
  return statistics;
}

// t of int8_kernels.h: what is quantised, of padded inputs.
std::vector<float> Mixed(const QuantisedLinear& linear, const std::vector<float>& x, size_t row_class) {
  std::vector<float> t(linear.depth);
  const Quantisation how = linear.how();
  for (size_t k = 0; k < linear.depth; ++k) {
    t[k] = (k < x.size() ? x[k] : 7.0F) * how.inverse_smooth[k] + how.shift[row_class][k];
  }
  Mix(t.data(), linear.depth, linear.block);
  return t;
}

int8_t Code(const QuantisedLinear& linear, size_t n, size_t k) {
  const size_t unit = (n / 64 * linear.depth / 4 + k / 4) * 64 + n % 64;
  return linear.weights.As<int8_t>()[unit * 4 + k % 4];
}

double Product(const QuantisedLinear& linear, const std::vector<float>& t, size_t n, size_t row_class) {
  double sum = 0;
  for (size_t k = 0; k < linear.depth; ++k) sum += static_cast<double>(t[k]) * Code(linear, n, k);
  return sum * static_cast<double>(linear.scale.As<float>()[n]) +
         static_cast<double>(linear.bias[row_class].As<float>()[n]);
}

TEST(QuantisedLinear, IsTheProductOfTheInputsButForTheRoundingOfWeights) {
  Random random(1);
  for (const Shape& shape : kShapes) {
    const LinearStatistics statistics = SomeStatistics(shape.depth, random);
    const std::vector<float> weight = random.Normals(shape.columns * shape.depth, 0.05F);
    const std::vector<float> bias = random.Normals(shape.columns);
    const QuantisedLinear linear = PackQuantised(weight.data(), bias.data(), shape.columns, shape.depth, statistics);
    for (size_t row_class = 0; row_class < kRowClasses; ++row_class) {
      std::vector<float> x(shape.depth);
      for (size_t k = 0; k < x.size(); ++k) {
        x[k] = statistics.mean[row_class][k] + std::sqrt(statistics.moments[k * shape.depth + k]) * random.Normal();
      }
      const std::vector<float> t = Mixed(linear, x, row_class);
      double error = 0;
      double energy = 0;
      for (size_t n = 0; n < shape.columns; ++n) {
        double expected = static_cast<double>(bias[n]);
        double reference = expected;
        for (size_t k = 0; k < shape.depth; ++k) {
          const auto w = static_cast<double>(weight[n * shape.depth + k]);
          expected += w * static_cast<double>(x[k]);
          reference += w * static_cast<double>(statistics.mean[row_class][k]);
        }
        error += std::pow(Product(linear, t, n, row_class) - expected, 2);
        energy += std::pow(expected - reference, 2);
      }
      // 8 bits over +-3 standard deviations and a little: a step of 1/40, an error of 1/40/sqrt(12).
      EXPECT_LT(std::sqrt(error / energy), 0.012) << shape.columns << " x " << shape.depth;
    }
  }
}

TEST(QuantisedLinear, TheMeanOfAClassIsComputedWithoutAnyRounding) {
  Random random(2);
  const LinearStatistics statistics = SomeStatistics(384, random);
  const std::vector<float> weight = random.Normals(64 * 384, 0.05F);
  const QuantisedLinear linear = PackQuantised(weight.data(), nullptr, 64, 384, statistics);
  for (size_t row_class = 0; row_class < kRowClasses; ++row_class) {
    for (const float value : Mixed(linear, statistics.mean[row_class], row_class)) EXPECT_NEAR(value, 0, 1e-4);
    for (size_t n = 0; n < 64; ++n) {
      double expected = 0;
      for (size_t k = 0; k < 384; ++k) {
        expected += static_cast<double>(weight[n * 384 + k]) * static_cast<double>(statistics.mean[row_class][k]);
      }
      EXPECT_NEAR(static_cast<double>(linear.bias[row_class].As<float>()[n]), expected, 1e-4);
    }
  }
}

TEST(QuantisedLinear, OffsetsTakeTheZeroPointOfTheCodesOfABlockAway) {
  Random random(3);
  const LinearStatistics statistics = SomeStatistics(768, random);
  const std::vector<float> weight = random.Normals(100 * 768, 0.05F);
  const QuantisedLinear linear = PackQuantised(weight.data(), nullptr, 100, 768, statistics);
  ASSERT_EQ(linear.block, 384U);
  for (size_t block = 0; block < 2; ++block) {
    for (size_t n = 0; n < 128; ++n) {
      int sum = 0;
      for (size_t k = 0; k < 384; ++k) sum += Code(linear, n, block * 384 + k);
      EXPECT_EQ(linear.offsets.As<int32_t>()[block * 128 + n], -128 * sum);
      if (n < 100) continue;
      EXPECT_EQ(linear.scale.As<float>()[n], 0) << "beyond the columns";
    }
  }
}

TEST(QuantisedLinear, InputsBehindTheDepthCountForNothing) {
  Random random(4);
  const LinearStatistics statistics = SomeStatistics(100, random);
  const std::vector<float> weight = random.Normals(64 * 100);
  const QuantisedLinear linear = PackQuantised(weight.data(), nullptr, 64, 100, statistics);
  ASSERT_EQ(linear.depth, 128U);
  for (size_t k = 100; k < 128; ++k) {
    EXPECT_EQ(linear.how().inverse_smooth[k], 0);
    EXPECT_EQ(linear.how().shift[0][k], 0);
    EXPECT_EQ(linear.how().shift[1][k], 0);
  }
}

}  // namespace
}  // namespace sutra::cpu
