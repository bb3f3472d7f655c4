// Every kernel set this CPU can run, against plain arithmetic in double over the same rounded operands.
#include "engine/cpu/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>

#include "engine/cpu/activation_curve.h"
#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/features.h"
#include "engine/cpu/kernel_trial.h"
#include "engine/cpu/packed_model.h"
#include "tests/engine/cpu/amx_emulation.h"

namespace sutra::cpu {
namespace {

std::vector<const KernelTable*> Tables() {
  const Features& features = DetectFeatures();
  std::vector<const KernelTable*> tables;
  const auto add = [&](bool present, const KernelTable* table) {
    if (present && table != nullptr) tables.push_back(table);
  };
  add(true, PortableKernels(Element::kF32));
  add(true, PortableKernels(Element::kBf16));
  add(features.avx2, Avx2Kernels());
  add(features.avx512, Avx512Kernels());
  add(features.avx512_bf16, Avx512Bf16Kernels());
  add(features.avx512_bf16, EmulatedAmxKernels());
  add(features.amx_bf16, AmxKernels());
  return tables;
}

// A matrix held as elements, with the exact values the kernel sees.
struct Elements {
  Elements(Element kind, size_t count)
      : element(kind), memory((count + 64 * 1024) * sizeof(float)), values(count, 0.0) {}
  void Set(size_t i, double value) {
    const auto rounded = static_cast<float>(value);
    if (element == Element::kF32) {
      memory.As<float>()[i] = rounded;
      values[i] = static_cast<double>(rounded);
    } else {
      memory.As<uint16_t>()[i] = ToBf16(rounded);
      values[i] = Get(i);
    }
  }
  double Get(size_t i) const {
    if (element == Element::kF32) return static_cast<double>(memory.As<float>()[i]);
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(memory.As<uint16_t>()[i]) << 16));
  }
  Element element;
  AlignedBuffer memory;
  std::vector<double> values;
};

class CpuKernels : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (GetParam() >= Tables().size()) GTEST_SKIP() << "this CPU has no such kernel set";
    table_ = Tables()[GetParam()];
    SCOPED_TRACE(table_->name);
    table_->prepare_thread();
  }
  void TearDown() override {
    if (table_ != nullptr) table_->release_thread();
  }
  bool is_f32() const { return table_->element == Element::kF32; }
  // Of a result stored as an element.
  double Rounding() const { return is_f32() ? 1e-5 : 1.0 / 128; }
  double Normal() { return normal_(random_); }

  const KernelTable* table_ = nullptr;
  std::mt19937 random_{3};
  std::normal_distribution<double> normal_;
};

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
  return (element == Element::kF32 ? 2e-6 : 3e-4) + std::abs(x) * 0x1p-24;
}

TEST_P(CpuKernels, ProductsMatchForEveryRowCountAndOutput) {
  constexpr size_t kColumns = 192;
  constexpr size_t kDepth = 128;
  const ActivationCurve curve = MakeActivationCurve(Activation::kGeluErf, table_->element);
  std::vector<float> weight(kColumns * kDepth);
  std::vector<float> bias(kColumns);
  for (float& value : weight) value = static_cast<float>(Normal() / 8);
  for (float& value : bias) value = static_cast<float>(Normal());
  const PackedLinear packed = PackLinear(weight.data(), bias.data(), kColumns, kDepth, table_->element);
  for (size_t rows = 1; rows <= 40; ++rows) {
    Elements a(table_->element, rows * kDepth);
    for (size_t i = 0; i < rows * kDepth; ++i) a.Set(i, Normal());
    for (const GemmOutput output : {GemmOutput::kElement, GemmOutput::kElementActivated, GemmOutput::kAddToF32}) {
      Elements c(output == GemmOutput::kAddToF32 ? Element::kF32 : table_->element, rows * kColumns);
      for (size_t i = 0; i < rows * kColumns; ++i) c.Set(i, 100.0);
      GemmCall call;
      call.a = a.memory.data();
      call.a_stride = kDepth;
      call.rows = rows;
      call.b = packed.weights.data();
      call.depth = kDepth;
      call.columns = kColumns;
      call.panel_begin = 1;  // columns 64 to 127 only: threads share a product by panels
      call.panel_end = 2;
      call.bias = packed.bias.As<float>();
      call.output = output;
      call.c = c.memory.data();
      call.c_stride = kColumns;
      call.curve = &curve;
      table_->gemm(call);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t n = 0; n < kColumns; ++n) {
          if (n < 64 || n >= 128) {
            ASSERT_EQ(c.Get(r * kColumns + n), 100.0) << "column " << n << " is not of this call";
            continue;
          }
          double sum = static_cast<double>(bias[n]);
          for (size_t k = 0; k < kDepth; ++k) {
            const float w = weight[n * kDepth + k];
            sum += a.values[r * kDepth + k] *
                   (is_f32() ? static_cast<double>(w)
                             : static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(ToBf16(w)) << 16)));
          }
          if (output == GemmOutput::kElementActivated) sum = Gelu(sum);
          if (output == GemmOutput::kAddToF32) sum += 100.0;
          const double tolerance = output == GemmOutput::kAddToF32 ? 1e-4 : Rounding() * (1 + std::abs(sum));
          ASSERT_NEAR(c.Get(r * kColumns + n), sum, tolerance) << table_->name << " rows " << rows << " row " << r;
        }
      }
    }
  }
}

// Massive activations of some models reach thousands: where the exact value is zero, nothing may remain.
TEST_P(CpuKernels, ActivationKeepsItsStatedErrorUpToTheLargestNumber) {
  const std::vector<float> inputs = ActivationInputs();
  constexpr size_t kDepth = 64;
  const size_t columns = (inputs.size() + 63) / 64 * 64;
  std::vector<float> bias = inputs;  // the product is zero, so that a sum is its bias
  bias.resize(columns);
  const PackedLinear packed =
      PackLinear(std::vector<float>(columns * kDepth).data(), bias.data(), columns, kDepth, table_->element);
  const Elements a(table_->element, kDepth);
  for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
    const ActivationCurve curve = MakeActivationCurve(activation, table_->element);
    const Elements c(table_->element, columns);
    GemmCall call;
    call.a = a.memory.data();
    call.a_stride = kDepth;
    call.rows = 1;
    call.b = packed.weights.data();
    call.depth = kDepth;
    call.columns = columns;
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

TEST_P(CpuKernels, AttentionMatchesForEveryLength) {
  for (const size_t head_width : {size_t{32}, size_t{64}}) {
    const size_t hidden = 2 * head_width;
    AlignedBuffer scratch(AttentionScratchBytes(256, head_width));
    std::vector<size_t> lengths = {100, 127, 165, 255, 256};
    for (size_t length = 1; length <= 70; ++length) lengths.push_back(length);
    for (const size_t tokens : lengths) {
      Elements qkv(table_->element, tokens * 3 * hidden);
      for (size_t i = 0; i < tokens * 3 * hidden; ++i) qkv.Set(i, Normal() * (i % (3 * hidden) < hidden ? 0.5 : 1.0));
      Elements context(table_->element, tokens * hidden);
      AttentionCall call{.qkv = qkv.memory.data(),
                         .qkv_stride = 3 * hidden,
                         .tokens = tokens,
                         .width = hidden,
                         .head_width = head_width,
                         .head_begin = 0,
                         .head_end = 2,
                         .context = context.memory.data(),
                         .context_stride = hidden,
                         .scratch = scratch.data()};
      table_->attention(call);
      const auto at = [&](size_t token, size_t part, size_t column) {
        return qkv.values[token * 3 * hidden + part * hidden + column];
      };
      for (size_t head = 0; head < 2; ++head) {
        for (size_t query = 0; query < tokens; query += 1 + tokens / 16) {
          std::vector<double> weights(tokens);
          double total = 0;
          for (size_t key = 0; key < tokens; ++key) {
            double score = 0;
            for (size_t i = head * head_width; i < (head + 1) * head_width; ++i)
              score += at(query, 0, i) * at(key, 1, i);
            weights[key] = std::exp2(score);
            total += weights[key];
          }
          for (size_t i = head * head_width; i < (head + 1) * head_width; ++i) {
            double value = 0;
            for (size_t key = 0; key < tokens; ++key) value += weights[key] / total * at(key, 2, i);
            ASSERT_NEAR(context.Get(query * hidden + i), value, is_f32() ? 2e-5 : 3e-2)
                << table_->name << " length " << tokens << " head width " << head_width;
          }
        }
      }
    }
  }
}

TEST_P(CpuKernels, AttentionSurvivesExtremeScores) {
  constexpr size_t kTokens = 20;
  constexpr size_t kHidden = 32;
  Elements qkv(table_->element, kTokens * 3 * kHidden);
  for (size_t i = 0; i < kTokens * 3 * kHidden; ++i)
    qkv.Set(i, i % (3 * kHidden) < 2 * kHidden ? 200.0 * Normal() : 1.0);
  Elements context(table_->element, kTokens * kHidden);
  AlignedBuffer scratch(AttentionScratchBytes(kTokens, kHidden));
  AttentionCall call{.qkv = qkv.memory.data(),
                     .qkv_stride = 3 * kHidden,
                     .tokens = kTokens,
                     .width = kHidden,
                     .head_width = kHidden,
                     .head_begin = 0,
                     .head_end = 1,
                     .context = context.memory.data(),
                     .context_stride = kHidden,
                     .scratch = scratch.data()};
  table_->attention(call);
  for (size_t i = 0; i < kTokens * kHidden; ++i) EXPECT_NEAR(context.Get(i), 1.0, Rounding());  // a mean of ones
}

TEST_P(CpuKernels, NormsEmbeddingAndMeanMatch) {
  constexpr size_t kWidth = 384;
  constexpr size_t kRows = 7;
  AlignedBuffer x(kRows * kWidth * sizeof(float));
  std::vector<float> words(10 * kWidth);
  std::vector<float> positions(kRows * kWidth);
  for (float& value : words) value = static_cast<float>(Normal());
  for (float& value : positions) value = static_cast<float>(Normal() * 3 + 1);
  const std::vector<int32_t> ids = {3, 0, 9, 9, 1, 2, 5};
  table_->embed({.ids = ids.data(),
                 .tokens = kRows,
                 .width = kWidth,
                 .words = words.data(),
                 .positions = positions.data(),
                 .x = x.As<float>(),
                 .x_stride = kWidth});
  std::vector<float> gain(kWidth);
  std::vector<float> shift(kWidth);
  for (float& value : gain) value = static_cast<float>(Normal());
  for (float& value : shift) value = static_cast<float>(Normal());
  Elements elements(table_->element, kRows * kWidth);
  table_->normalize({.x = x.As<float>(),
                     .rows = kRows,
                     .width = kWidth,
                     .stride = kWidth,
                     .epsilon = 1e-5F,
                     .gain = gain.data(),
                     .shift = shift.data(),
                     .elements = elements.memory.data()});
  std::vector<double> means(kWidth, 0.0);
  for (size_t r = 0; r < kRows; ++r) {
    std::vector<double> row(kWidth);
    double mean = 0;
    double variance = 0;
    for (size_t i = 0; i < kWidth; ++i) {
      row[i] = static_cast<double>(words[static_cast<size_t>(ids[r]) * kWidth + i] + positions[r * kWidth + i]);
      mean += row[i] / kWidth;
    }
    for (const double value : row) variance += (value - mean) * (value - mean) / kWidth;
    for (size_t i = 0; i < kWidth; ++i) {
      const double expected =
          (row[i] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(gain[i]) + static_cast<double>(shift[i]);
      ASSERT_NEAR(static_cast<double>(x.As<float>()[r * kWidth + i]), expected, 2e-5);
      ASSERT_NEAR(elements.Get(r * kWidth + i), expected, Rounding() * (1 + std::abs(expected)));
      means[i] += expected / kRows;
    }
  }
  std::vector<float> out(kWidth);
  table_->mean({.x = x.As<float>(), .rows = kRows, .width = kWidth, .stride = kWidth, .out = out.data()});
  for (size_t i = 0; i < kWidth; ++i) ASSERT_NEAR(static_cast<double>(out[i]), means[i], 2e-5);
}

TEST_P(CpuKernels, StartCheckAcceptsTheSet) { EXPECT_TRUE(KernelsComputeCorrectly(*table_)); }

INSTANTIATE_TEST_SUITE_P(EverySet, CpuKernels, testing::Range<size_t>(0, 7),
                         [](const testing::TestParamInfo<size_t>& param) {
                           const auto tables = Tables();
                           return param.param < tables.size() ? std::string(tables[param.param]->name)
                                                              : "absent" + std::to_string(param.param);
                         });

// Widths that are not multiples of anything: the last panel is cut, an odd depth ends in half a unit, nothing beyond
// the columns is written.
TEST(PortableKernels, ProductsTakeEveryWidthAndDepth) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const Element element : {Element::kF32, Element::kBf16}) {
    for (const size_t columns : {size_t{1}, size_t{24}, size_t{63}, size_t{65}, size_t{200}}) {
      for (const size_t depth : {size_t{1}, size_t{7}, size_t{40}, size_t{129}}) {
        constexpr size_t kRows = 6;
        std::vector<float> weight(columns * depth);
        std::vector<float> bias(columns);
        for (float& value : weight) value = normal(random);
        for (float& value : bias) value = normal(random);
        const PackedLinear packed = PackLinear(weight.data(), bias.data(), columns, depth, element);
        Elements a(element, kRows * depth);
        for (size_t i = 0; i < kRows * depth; ++i) a.Set(i, static_cast<double>(normal(random)));
        Elements c(Element::kF32, kRows * columns + 64);
        for (size_t i = 0; i < c.values.size(); ++i) c.Set(i, i < kRows * columns ? 0.0 : 7.0);
        PortableKernels(element)->gemm({.a = a.memory.data(),
                                        .a_stride = depth,
                                        .rows = kRows,
                                        .b = packed.weights.data(),
                                        .depth = depth,
                                        .columns = columns,
                                        .panel_begin = 0,
                                        .panel_end = packed.panels(),
                                        .bias = packed.bias.As<float>(),
                                        .output = GemmOutput::kAddToF32,
                                        .c = c.memory.data(),
                                        .c_stride = columns});
        for (size_t r = 0; r < kRows; ++r) {
          for (size_t n = 0; n < columns; ++n) {
            auto sum = static_cast<double>(bias[n]);
            for (size_t k = 0; k < depth; ++k) {
              const float w = weight[n * depth + k];
              const float rounded =
                  element == Element::kF32 ? w : std::bit_cast<float>(static_cast<uint32_t>(ToBf16(w)) << 16);
              sum += a.values[r * depth + k] * static_cast<double>(rounded);
            }
            ASSERT_NEAR(c.Get(r * columns + n), sum, 1e-3) << columns << " columns, depth " << depth;
          }
        }
        for (size_t i = kRows * columns; i < c.values.size(); ++i) ASSERT_EQ(c.Get(i), 7.0);
      }
    }
  }
}

TEST(Supports, FastSetsTakeWholePanelsAndTwoHeadWidthsOnly) {
  const EncoderSpec good = {.hidden = 384, .heads = 12, .intermediate = 1536};
  EncoderSpec odd_width = good;
  odd_width.intermediate = 100;
  EncoderSpec odd_head = good;
  odd_head.heads = 4;
  KernelTable fast = *PortableKernels(Element::kF32);
  fast.any_shape = false;
  EXPECT_TRUE(Supports(fast, good));
  EXPECT_FALSE(Supports(fast, odd_width));
  EXPECT_FALSE(Supports(fast, odd_head));
  EXPECT_TRUE(Supports(*PortableKernels(Element::kF32), odd_width));
  EXPECT_TRUE(Supports(*PortableKernels(Element::kBf16), odd_head));
}

TEST(ActivationCurve, IsExactlyOneHalfAtItsLimitForBf16AndNearlySoForFp32) {
  for (const Activation activation : {Activation::kGeluErf, Activation::kGeluTanh}) {
    for (const Element element : {Element::kF32, Element::kBf16}) {
      const ActivationCurve curve = MakeActivationCurve(activation, element);
      const float s = curve.limit * curve.limit * curve.scale - 1.0F;
      const float fused = std::fma(curve.limit * curve.limit, curve.scale, -1.0F);
      float poly = curve.coefficients[0];
      float fused_poly = curve.coefficients[0];
      for (int i = 1; i < curve.count; ++i) {
        poly = poly * s + curve.coefficients[i];
        fused_poly = std::fma(fused_poly, fused, curve.coefficients[i]);
      }
      const float allowed = element == Element::kBf16 ? 0.0F : 0x1p-26F;
      EXPECT_LE(std::abs(0.5F - curve.limit * poly), allowed);
      EXPECT_LE(std::abs(std::fma(-curve.limit, fused_poly, 0.5F)), allowed);
    }
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
