// Every int8 kernel set this CPU can run: against double arithmetic over the same quantised operands, and bit for bit
// against the portable one, which is the definition.
#include "engine/cpu/kernels/int8_kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>

#include "engine/cpu/activation_curve.h"
#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/features.h"
#include "engine/cpu/packed_model.h"
#include "tests/engine/cpu/amx_emulation.h"
#include "tests/engine/cpu/kernels/int8_operands.h"
#include "tests/kit/by_build.h"

namespace sutra::cpu {
namespace {

std::vector<const KernelTable*> Tables() {
  const Features& features = DetectFeatures();
  std::vector<const KernelTable*> tables = {PortableKernels(Element::kF32), PortableKernels(Element::kBf16)};
  const auto add = [&](bool present, const KernelTable* table) {
    if (present && table != nullptr) tables.push_back(table);
  };
  add(features.avx_vnni, AvxVnniKernels());
  add(features.avx512_vnni, Avx512VnniKernels());
  add(features.avx512_vnni && features.avx512_bf16, Avx512VnniBf16Kernels());
  add(features.avx512_vnni && features.avx512_bf16, EmulatedAmxInt8Kernels());
  add(features.amx_int8, AmxInt8Kernels());
  return tables;
}

float Widen(uint16_t half) { return std::bit_cast<float>(static_cast<uint32_t>(half) << 16); }

class Int8Sets : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (GetParam() >= Tables().size()) GTEST_SKIP() << "this CPU has no such kernel set";
    table_ = Tables()[GetParam()];
    table_->prepare_thread();
  }
  void TearDown() override {
    if (table_ != nullptr) table_->release_thread();
  }
  const Int8Kernels& int8() const { return *table_->int8; }
  const Int8Kernels& definition() const { return *PortableInt8Kernels(table_->element); }
  bool is_f32() const { return table_->element == Element::kF32; }
  double Normal() { return normal_(random_); }
  float NormalFloat() { return static_cast<float>(Normal()); }

  // Rounded to the set's elements.
  void SetElement(void* elements, size_t at, float value) const {
    if (is_f32()) {
      static_cast<float*>(elements)[at] = value;
    } else {
      static_cast<uint16_t*>(elements)[at] = ToBf16(value);
    }
  }
  float GetElement(const void* elements, size_t at) const {
    return is_f32() ? static_cast<const float*>(elements)[at] : Widen(static_cast<const uint16_t*>(elements)[at]);
  }

  const KernelTable* table_ = nullptr;
  std::mt19937 random_{7};
  std::normal_distribution<double> normal_;
};

// Whether t lies where q and r say, to half a step: of q for rows of one term, of r for rows of two.
void ExpectRepresents(const QuantisedRows& rows, size_t row, size_t block, const std::vector<double>& t) {
  for (size_t i = 0; i < t.size(); ++i) {
    const auto scale = static_cast<double>(rows.scale[row * rows.blocks + i / block]);
    double value = scale * (rows.values[row * rows.stride + i] - 128.0);
    double step = scale;
    if (row >= rows.two_term_begin) {
      step = scale / 255;
      value += step * (rows.remainders[row * rows.stride + i] - 128.0);
    }
    ASSERT_NEAR(value, t[i], step * 0.51 + 2e-6 * 255 * scale) << "row " << row << " column " << i;
  }
}

constexpr Shape kShapes[] = {{64, 64},   {128, 128}, {256, 256},  {384, 384},  {192, 64},
                             {512, 256}, {768, 384}, {1152, 384}, {1536, 384}, {640, 128}};

TEST_P(Int8Sets, QuantisingRepresentsTheMixedRowToHalfAStepAndIsExactlyTheDefinition) {
  for (const Shape& shape : kShapes) {
    constexpr size_t kRows = 9;
    const size_t stride = shape.depth + 64;
    const Vectors vectors(shape.depth, [&] { return NormalFloat(); });
    const Quantisation how = vectors.how(shape.block);
    AlignedBuffer x((kRows + kRowPadding) * stride * sizeof(float));
    for (size_t i = 0; i < kRows * stride; ++i) SetElement(x.data(), i, NormalFloat() * std::exp2(NormalFloat() * 4));
    std::vector<uint8_t> classes = {0, 1, 1, 0, 1, 1, 1, 0, 1};
    OwnRows mine(kRows, shape.depth, shape.block);
    OwnRows defined(kRows, shape.depth, shape.block);
    mine.view.two_term_begin = defined.view.two_term_begin = 4;
    QuantiseCall call{x.data(), stride, kRows, classes.data(), how, mine.view};
    int8().quantise(call);
    call.out = defined.view;
    definition().quantise(call);
    for (size_t row = 0; row < kRows; ++row) {
      std::vector<float> inputs(shape.depth);
      for (size_t i = 0; i < shape.depth; ++i) inputs[i] = GetElement(x.data(), row * stride + i);
      ExpectRepresents(mine.view, row, shape.block, Mixed(how, classes[row], inputs));
      if (HasFatalFailure()) return;
    }
    // Spare rows, and remainders of rows of one term, are as before the call.
    const size_t bytes = (kRows + kRowPadding) * shape.depth;
    EXPECT_EQ(std::memcmp(mine.view.values, defined.view.values, bytes), 0) << table_->name << " " << shape.depth;
    EXPECT_EQ(std::memcmp(mine.view.remainders, defined.view.remainders, bytes), 0) << table_->name;
    EXPECT_EQ(std::memcmp(mine.view.scale, defined.view.scale, kRows * mine.view.blocks * sizeof(float)), 0);
  }
}

TEST_P(Int8Sets, NormsQuantiseWhatTheyStore) {
  struct Width {
    size_t width;
    size_t depth;
    size_t block;
  };
  for (const Width& shape : {Width{384, 384, 384}, Width{768, 768, 384}, Width{312, 320, 64}, Width{1024, 1024, 256},
                             Width{127, 128, 128}, Width{50, 64, 64}}) {
    constexpr size_t kRows = 7;
    const size_t stride = shape.depth + 16;
    Vectors vectors(shape.depth, [&] { return NormalFloat(); });
    for (size_t i = shape.width; i < shape.depth; ++i) {
      vectors.inverse_smooth[i] = vectors.shift[0][i] = vectors.shift[1][i] = 0;
    }
    AlignedBuffer x(kRows * stride * sizeof(float));
    // What lies behind a row must not matter: a NaN there would show.
    for (size_t i = 0; i < kRows * stride; ++i) {
      x.As<float>()[i] = i % stride < shape.width ? NormalFloat() * 3 + 1 : std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<float> before(x.As<float>(), x.As<float>() + kRows * stride);
    std::vector<float> gain(shape.width);
    std::vector<float> shift(shape.width);
    for (float& value : gain) value = NormalFloat();
    for (float& value : shift) value = NormalFloat();
    const std::vector<uint8_t> classes = {0, 1, 1, 1, 0, 1, 0};
    OwnRows mine(kRows, shape.depth, shape.block);
    mine.view.two_term_begin = 5;
    NormalizeQuantiseCall call;
    call.norm = {x.As<float>(), kRows, shape.width, stride, 1e-5F, gain.data(), shift.data(), nullptr};
    call.classes = classes.data();
    call.how = vectors.how(shape.block);
    call.out = mine.view;
    int8().normalize_quantise(call);
    for (size_t row = 0; row < kRows; ++row) {
      double mean = 0;
      double variance = 0;
      const auto width = static_cast<double>(shape.width);
      for (size_t i = 0; i < shape.width; ++i) mean += static_cast<double>(before[row * stride + i]) / width;
      for (size_t i = 0; i < shape.width; ++i) {
        variance += std::pow(static_cast<double>(before[row * stride + i]) - mean, 2) / width;
      }
      std::vector<float> stored(shape.depth, 0.0F);
      for (size_t i = 0; i < shape.width; ++i) {
        stored[i] = x.As<float>()[row * stride + i];
        const double expected = (static_cast<double>(before[row * stride + i]) - mean) / std::sqrt(variance + 1e-5) *
                                    static_cast<double>(gain[i]) +
                                static_cast<double>(shift[i]);
        ASSERT_NEAR(static_cast<double>(stored[i]), expected, 2e-5) << table_->name;
      }
      for (size_t i = shape.width; i < stride; ++i) ASSERT_TRUE(std::isnan(x.As<float>()[row * stride + i]));
      ExpectRepresents(mine.view, row, shape.block, Mixed(call.how, classes[row], stored));
      if (HasFatalFailure()) return;
    }
  }
}

double Gelu(double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }

TEST_P(Int8Sets, ProductsMatchDoubleArithmeticAndAreExactlyTheDefinition) {
  constexpr size_t kColumns = 192;
  const ActivationCurve curve = MakeActivationCurve(Activation::kGeluErf);
  for (const Shape& shape : kShapes) {
    constexpr size_t kRowsMax = 40;
    Product product(random_, kRowsMax, shape, kColumns);
    const std::vector<double> exact = product.ExactOfPanel(1);
    Int8GemmCall& call = product.call;
    call.curve = &curve;
    call.panel_begin = 1;  // columns 64 to 127 only: threads share a product by panels
    call.panel_end = 2;
    call.c_stride = kColumns;
    for (size_t rows = 1; rows <= kRowsMax; rows += test::ByBuild(1, 13, 13)) {
      call.rows = rows;
      for (const size_t two_term_begin : {kNoTwoTermRow, size_t{0}, rows / 2, rows - 1}) {
        call.a.two_term_begin = two_term_begin;
        for (const GemmOutput output : {GemmOutput::kElement, GemmOutput::kElementActivated, GemmOutput::kAddToF32}) {
          call.output = output;
          const bool adds = output == GemmOutput::kAddToF32;
          AlignedBuffer mine(rows * kColumns * sizeof(float));
          AlignedBuffer defined(rows * kColumns * sizeof(float));
          for (size_t i = 0; adds && i < rows * kColumns; ++i) mine.As<float>()[i] = defined.As<float>()[i] = 100.0F;
          call.c = mine.data();
          int8().gemm(call);
          call.c = defined.data();
          definition().gemm(call);
          if (output != GemmOutput::kElementActivated) {
            ASSERT_EQ(std::memcmp(mine.data(), defined.data(), rows * kColumns * sizeof(float)), 0)
                << table_->name << " rows " << rows << " depth " << shape.depth;
          }
          for (size_t row = 0; row < rows; ++row) {
            for (size_t n = 0; n < kColumns; ++n) {
              const size_t at = row * kColumns + n;
              const auto value = static_cast<double>(adds ? mine.As<float>()[at] : GetElement(mine.data(), at));
              if (n < 64 || n >= 128) {
                ASSERT_EQ(value, adds ? 100.0 : 0.0) << "column " << n << " is not of this call";
                continue;
              }
              const size_t term = row >= two_term_begin ? 1 : 0;
              double sum = exact[(term * kRowsMax + row) * kPanelColumns + n - 64] + (adds ? 100.0 : 0.0);
              if (output == GemmOutput::kElementActivated) sum = Gelu(sum);
              const double rounding = adds || is_f32() ? 1e-5 : 1.0 / 128;
              ASSERT_NEAR(value, sum, rounding * (10 + std::abs(sum))) << table_->name << " row " << row;
            }
          }
        }
      }
    }
  }
}

// A layer's inner product is multiplied block by block, where each block's inputs are still in the cache.
TEST_P(Int8Sets, ProductOfOneBlockReadsOnlyThatBlock) {
  constexpr Shape kShape = {768, 384};
  constexpr size_t kRows = 8;
  Product product(random_, kRows, kShape, 128);
  Int8GemmCall call = product.call;
  call.rows = kRows;
  call.output = GemmOutput::kAddToF32;
  call.c_stride = 128;
  AlignedBuffer parts(kRows * 128 * sizeof(float));
  call.c = parts.data();
  call.depth = kShape.block;
  for (size_t index = 0; index < 2; ++index) {
    int8().gemm(call);
    call.a.values += kShape.block;
    call.a.scale += 1;
    call.b += kShape.block * kPanelColumns;
    call.offsets += call.offsets_stride;
    call.bias[0] = call.bias[1] = nullptr;
  }
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t n = 0; n < 128; ++n) {
      const double sum = product.Exact(row, n, false);
      ASSERT_NEAR(static_cast<double>(parts.As<float>()[row * 128 + n]), sum, 1e-5 * (10 + std::abs(sum)));
    }
  }
}

// Sums of the largest operands do not saturate: 255 * 127 * 384 is far below 2^31, but beyond what 16 bits hold.
TEST_P(Int8Sets, LargestOperandsDoNotSaturate) {
  Product product(random_, 6, {384, 384}, 64);
  std::memset(product.rows.view.values, 255, 6 * 384);
  std::memset(product.b.data(), 127, 64 * 384);
  for (size_t i = 0; i < 6; ++i) product.rows.view.scale[i] = 1;
  std::fill(product.offsets.begin(), product.offsets.end(), 0);
  std::fill(product.scale.begin(), product.scale.end(), 1.0F);
  AlignedBuffer c(6 * 64 * sizeof(float));
  Int8GemmCall call = product.call;
  call.rows = 6;
  call.bias[0] = call.bias[1] = nullptr;
  call.output = GemmOutput::kAddToF32;
  call.c = c.data();
  call.c_stride = 64;
  for (const int sign : {1, -1}) {
    std::memset(product.b.data(), sign * 127, 64 * 384);
    std::memset(c.data(), 0, 6 * 64 * sizeof(float));
    int8().gemm(call);
    for (size_t i = 0; i < 6 * 64; ++i) ASSERT_EQ(c.As<float>()[i], static_cast<float>(sign * 255 * 127 * 384));
  }
}

TEST_P(Int8Sets, RowOfZerosIsRepresentedExactly) {
  for (const size_t block : {size_t{64}, size_t{128}, size_t{256}, size_t{384}}) {
    const std::vector<float> ones(block, 1.0F);
    const std::vector<float> zeros(block, 0.0F);
    const AlignedBuffer x(block * sizeof(float));
    OwnRows rows(1, block, block);
    rows.view.two_term_begin = 0;
    const uint8_t row_class = 1;
    int8().quantise(
        {x.data(), block, 1, &row_class, {block, block, ones.data(), {zeros.data(), zeros.data()}}, rows.view});
    EXPECT_TRUE(std::isfinite(rows.view.scale[0]));
    for (size_t i = 0; i < block; ++i) {
      ASSERT_EQ(rows.view.values[i], 128);
      ASSERT_EQ(rows.view.remainders[i], 128);
    }
  }
}

// An integer cannot be NaN: without the scale's help a broken row would turn into a vector that looks like any other.
TEST_P(Int8Sets, InputThatIsNotFiniteMakesEveryProductOfItsRowNanAndOfNoOther) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const size_t block : {size_t{64}, size_t{128}, size_t{256}, size_t{384}}) {
    const Vectors vectors(block, [&] { return NormalFloat(); });
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), inf, -inf, std::numeric_limits<float>::max()}) {
      for (size_t column = 0; column < block; column += 7) {
        constexpr size_t kRows = 3;
        AlignedBuffer x(kRows * block * sizeof(float));
        for (size_t i = 0; i < kRows * block; ++i) SetElement(x.data(), i, NormalFloat());
        SetElement(x.data(), block + column, bad);
        // The largest finite number overflows only when it is multiplied.
        std::vector<float> large = vectors.inverse_smooth;
        large[column] = 2.0F;
        Product product(random_, kRows, {block, block}, 64);
        const std::vector<uint8_t> classes = {0, 1, 1};
        Quantisation how = vectors.how(block);
        how.inverse_smooth = large.data();
        int8().quantise({x.data(), block, kRows, classes.data(), how, product.rows.view});
        AlignedBuffer c(kRows * 64 * sizeof(float));
        Int8GemmCall call = product.call;
        call.rows = kRows;
        call.output = GemmOutput::kAddToF32;
        call.c = c.data();
        call.c_stride = 64;
        int8().gemm(call);
        for (size_t i = 0; i < kRows * 64; ++i) {
          ASSERT_EQ(std::isfinite(c.As<float>()[i]), i / 64 != 1) << table_->name << " block " << block << " " << bad;
        }
      }
    }
  }
}

TEST_P(Int8Sets, NormOfARowThatIsNotFiniteGivesTheScaleNan) {
  constexpr size_t kWidth = 384;
  const std::vector<float> ones(kWidth, 1.0F);
  const std::vector<float> zeros(kWidth, 0.0F);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), inf, -inf}) {
    for (size_t column = 0; column < kWidth; column += 13) {
      AlignedBuffer x(2 * kWidth * sizeof(float));
      for (size_t i = 0; i < 2 * kWidth; ++i) x.As<float>()[i] = NormalFloat();
      x.As<float>()[column] = bad;
      OwnRows rows(2, kWidth, kWidth);
      const std::vector<uint8_t> classes = {0, 1};
      int8().normalize_quantise({{x.As<float>(), 2, kWidth, kWidth, 1e-12F, ones.data(), zeros.data(), nullptr},
                                 classes.data(),
                                 {kWidth, kWidth, ones.data(), {zeros.data(), zeros.data()}},
                                 rows.view});
      EXPECT_TRUE(std::isnan(rows.view.scale[0])) << table_->name << " " << bad << " at " << column;
      EXPECT_TRUE(std::isfinite(rows.view.scale[1]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EverySet, Int8Sets, testing::Range<size_t>(0, 7),
                         [](const testing::TestParamInfo<size_t>& param) {
                           const auto tables = Tables();
                           return param.param < tables.size() ? std::string(tables[param.param]->name)
                                                              : "absent" + std::to_string(param.param);
                         });

TEST(MixBlockWidth, IsTheWidestThatDividesTheDepth) {
  EXPECT_EQ(MixBlockWidth(384), 384U);
  EXPECT_EQ(MixBlockWidth(1536), 384U);
  EXPECT_EQ(MixBlockWidth(1024), 256U);
  EXPECT_EQ(MixBlockWidth(640), 128U);
  EXPECT_EQ(MixBlockWidth(320), 64U);
}

}  // namespace
}  // namespace sutra::cpu
