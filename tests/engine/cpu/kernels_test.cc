// The products of every kernel set this CPU can run, with their activations, against plain arithmetic in double over
// the same rounded operands.
#include "engine/cpu/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "engine/cpu/activation_curve.h"
#include "engine/cpu/kernel_trial.h"
#include "engine/cpu/packed_model.h"
#include "shm/base/numbers.h"
#include "tests/engine/cpu/kernel_tables.h"

namespace sutra::cpu {
namespace {

// By erfc, which keeps its digits for large negative x.
double Gelu(double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }
double GeluTanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

// Densely around zero, and up to the largest finite float on both sides.
std::vector<float> ActivationInputs() {
  std::vector<float> inputs = {0.0F, std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()};
  for (float x = -8.0F; x <= 8.0F; x += 1.0F / 128) inputs.push_back(x);
  for (double exponent = -20; exponent < 128; exponent += 0.125) {
    inputs.push_back(static_cast<float>(std::exp2(exponent)));
    inputs.push_back(static_cast<float>(-std::exp2(exponent)));
  }
  return inputs;
}

double StatedError(Element element, double x) {
  return (element == Element::kF32 ? 2e-6 : 1.5e-4) + std::abs(x) * 0x1p-24;
}

// One product of random numbers, its columns from panel `panel_begin` on; what is not of this call stays as it was.
class ProductKernels : public CpuKernels {
 protected:
  static constexpr double kBefore = 100.0;

  void Compare(size_t columns, size_t depth, size_t panel_begin, const std::vector<size_t>& row_counts) {
    const ActivationCurve curve = MakeActivationCurve(Activation::kGeluErf);
    std::vector<float> weight(columns * depth);
    std::vector<float> bias(columns);
    for (float& value : weight) value = static_cast<float>(Normal() / 8);
    for (float& value : bias) value = static_cast<float>(Normal());
    const PackedLinear packed = PackLinear(weight.data(), bias.data(), columns, depth, table_->element);
    const size_t a_stride = RoundUp(depth, kPanelColumns) + kHeadColumns;
    const size_t c_stride = RoundUp(columns, kPanelColumns) + kHeadColumns;
    for (const size_t rows : row_counts) {
      Elements a(table_->element, rows * a_stride);
      for (size_t i = 0; i < rows * a_stride; ++i) a.Set(i, Normal());  // in the padding too: its weights are zero
      std::vector<double> sums(rows * columns);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t n = panel_begin * kPanelColumns; n < columns; ++n) {
          double sum = static_cast<double>(bias[n]);
          for (size_t k = 0; k < depth; ++k) {
            sum += a.values[r * a_stride + k] * AsElement(table_->element, static_cast<double>(weight[n * depth + k]));
          }
          sums[r * columns + n] = sum;
        }
      }
      for (const GemmOutput output : {GemmOutput::kElement, GemmOutput::kElementActivated, GemmOutput::kAddToF32}) {
        Elements c(output == GemmOutput::kAddToF32 ? Element::kF32 : table_->element, rows * c_stride);
        for (size_t i = 0; i < rows * c_stride; ++i) c.Set(i, kBefore);
        GemmCall call;
        call.a = a.memory.data();
        call.a_stride = a_stride;
        call.rows = rows;
        call.b = packed.weights.data();
        call.depth = packed.depth;
        call.panel_begin = panel_begin;
        call.panel_end = packed.panels();
        call.bias = packed.bias.As<float>();
        call.output = output;
        call.c = c.memory.data();
        call.c_stride = c_stride;
        call.curve = &curve;
        table_->gemm(call);
        const double before = output == GemmOutput::kAddToF32 ? kBefore : 0.0;
        for (size_t r = 0; r < rows; ++r) {
          for (size_t n = 0; n < c_stride; ++n) {
            const double got = c.Get(r * c_stride + n);
            if (n < panel_begin * kPanelColumns || n >= packed.columns) {
              ASSERT_EQ(got, kBefore) << "column " << n << " is not of this call";
            } else if (n >= columns) {
              ASSERT_EQ(got, before) << "column " << n << " is padding";
            } else {
              const double sum = sums[r * columns + n];
              const double right = before + (output == GemmOutput::kElementActivated ? Gelu(sum) : sum);
              const double tolerance = output == GemmOutput::kAddToF32 ? 1e-4 : Rounding() * (1 + std::abs(right));
              ASSERT_NEAR(got, right, tolerance) << table_->name << " rows " << rows << " row " << r;
            }
          }
        }
      }
    }
  }
};

TEST_P(ProductKernels, EveryRowCountMatches) {
  std::vector<size_t> rows(40);
  std::iota(rows.begin(), rows.end(), 1);
  Compare(192, 128, 1, rows);  // threads share a product by panels
}

TEST_P(ProductKernels, EveryWidthAndDepthMatches) {
  for (const size_t columns : {1, 25, 64, 100, 312}) {
    for (const size_t depth : {1, 25, 100, 312}) Compare(columns, depth, 0, {1, 2, 7, 33});
  }
  Compare(70, 1000, 0, {5});
}

// Massive activations of some models reach thousands: where the exact value is zero, nothing may remain.
TEST_P(ProductKernels, ActivationKeepsItsStatedErrorUpToTheLargestNumber) {
  const std::vector<float> inputs = ActivationInputs();
  constexpr size_t kDepth = 64;
  const size_t columns = (inputs.size() + 63) / 64 * 64;
  std::vector<float> bias = inputs;  // the product is zero, so that a sum is its bias
  bias.resize(columns);
  const PackedLinear packed =
      PackLinear(std::vector<float>(columns * kDepth).data(), bias.data(), columns, kDepth, table_->element);
  const Elements a(table_->element, kDepth);
  for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
    const ActivationCurve curve = MakeActivationCurve(activation);
    const Elements c(table_->element, columns);
    GemmCall call;
    call.a = a.memory.data();
    call.a_stride = kDepth;
    call.rows = 1;
    call.b = packed.weights.data();
    call.depth = kDepth;
    call.panel_end = columns / 64;
    call.bias = packed.bias.As<float>();
    call.output = GemmOutput::kElementActivated;
    call.c = c.memory.data();
    call.c_stride = columns;
    call.curve = &curve;
    table_->gemm(call);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto x = static_cast<double>(inputs[i]);
      const double right = activation == Activation::kGeluErf ? Gelu(x) : GeluTanh(x);
      const double stored = is_f32() ? 0.0 : std::abs(right) / 256;  // the rounding to bf16
      if (!is_f32() && std::abs(right) > 0x1.fep127) continue;       // rounds to infinity
      ASSERT_LE(std::abs(c.Get(i) - right), StatedError(table_->element, x) + stored)
          << table_->name << " at " << x << ": " << c.Get(i) << ", right is " << right;
    }
  }
}

TEST_P(ProductKernels, StartCheckAcceptsTheSet) { EXPECT_TRUE(KernelsComputeCorrectly(*table_)); }

INSTANTIATE_TEST_SUITE_P(EverySet, ProductKernels, testing::ValuesIn(KernelTables()), KernelTableName);

// The canary of the check at load: a set that computes one column wrongly must not be used.
TEST(KernelsComputeCorrectly, RefusesAWrongSet) {
  static const KernelTable* good = PortableKernels(Element::kF32);
  KernelTable wrong = *good;
  wrong.gemm = [](const GemmCall& call) {
    good->gemm(call);
    static_cast<float*>(call.c)[5 * call.c_stride + 17] += 0.01F;
  };
  EXPECT_TRUE(KernelsComputeCorrectly(*good));
  EXPECT_FALSE(KernelsComputeCorrectly(wrong));
}

TEST(ActivationCurve, IsExactlyOneHalfInItsLastSegmentAndNearlySoAtThePolynomialsLimit) {
  for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
    const ActivationCurve curve = MakeActivationCurve(activation);
    const float s = curve.limit * curve.limit * curve.scale - 1.0F;
    const float fused = std::fma(curve.limit * curve.limit, curve.scale, -1.0F);
    float poly = curve.coefficients[0];
    float fused_poly = curve.coefficients[0];
    for (int i = 1; i < ActivationCurve::kCoefficients; ++i) {
      poly = poly * s + curve.coefficients[i];
      fused_poly = std::fma(fused_poly, fused, curve.coefficients[i]);
    }
    EXPECT_LE(std::abs(0.5F - curve.limit * poly), 0x1p-26F);
    EXPECT_LE(std::abs(std::fma(-curve.limit, fused_poly, 0.5F)), 0x1p-26F);
    constexpr int kLast = ActivationCurve::kSegments - 1;
    EXPECT_EQ(curve.segments[0][kLast], 0.5F);
    EXPECT_EQ(curve.segments[1][kLast], 0.0F);
    EXPECT_EQ(curve.segments[2][kLast], 0.0F);
  }
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(ToBf16(1.0F), 0x3f80);
  EXPECT_EQ(ToBf16(std::bit_cast<float>(0x3f808000U)), 0x3f80);
  EXPECT_EQ(ToBf16(std::bit_cast<float>(0x3f818000U)), 0x3f82);
  EXPECT_EQ(ToBf16(std::bit_cast<float>(0x3f808001U)), 0x3f81);
  EXPECT_EQ(ToBf16(INFINITY), 0x7f80);
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(static_cast<uint32_t>(ToBf16(std::bit_cast<float>(0x7f800001U))) << 16)));
}

}  // namespace
}  // namespace sutra::cpu
