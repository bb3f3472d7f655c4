#include <random>

#include "bench/kernel_parts.h"
#include "engine/cpu/activation_curve.h"
#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/widths.h"

namespace sutra::bench {
namespace {

// Of a value quantised: scaled and shifted, five additions that mix, two bounds, scaled and shifted again, rounded.
constexpr double kQuantiseArithmetic = 12;
constexpr double kNormArithmetic = 8;

class Int8Parts {
 public:
  Int8Parts(const cpu::KernelTable& kernels, size_t rows) : kernels_(kernels), rows_(rows), classes_(rows, 1) {
    kernels_.prepare_thread();
  }
  ~Int8Parts() { kernels_.release_thread(); }
  Int8Parts(const Int8Parts&) = delete;

  double Product(size_t columns, size_t depth, cpu::GemmOutput output, const cpu::ActivationCurve* curve) {
    const size_t panels = (columns + cpu::kPanelColumns - 1) / cpu::kPanelColumns;
    const size_t padded = panels * cpu::kPanelColumns;
    const Rows a(*this, depth);
    const AlignedBuffer b = Bytes(padded * depth);
    const size_t blocks = depth / cpu::MixBlockWidth(depth);
    // Sums of up to 1e6 become numbers near one, as in a model.
    const std::vector<float> scale(padded, 1e-4F), bias(padded, 0.1F);
    const std::vector<int32_t> offsets(blocks * padded, 1000);
    const AlignedBuffer c((rows_ + cpu::kRowPadding) * padded * sizeof(float));
    const cpu::Int8GemmCall call = {.a = a.view,
                                    .rows = rows_,
                                    .classes = classes_.data(),
                                    .b = b.As<int8_t>(),
                                    .b_panel_stride = depth * cpu::kPanelColumns,
                                    .depth = depth,
                                    .block = cpu::MixBlockWidth(depth),
                                    .columns = columns,
                                    .panel_begin = 0,
                                    .panel_end = panels,
                                    .scale = scale.data(),
                                    .offsets = offsets.data(),
                                    .offsets_stride = padded,
                                    .bias = {bias.data(), bias.data()},
                                    .output = output,
                                    .c = c.data(),
                                    .c_stride = padded,
                                    .curve = curve};
    return BestSeconds([&] { kernels_.int8->gemm(call); });
  }

  double Quantise(size_t depth) {
    const Rows out(*this, depth);
    const AlignedBuffer x = Elements(depth);
    const std::vector<float> smooth(depth, 1.0F), shift(depth, 0.1F);
    const cpu::QuantiseCall call = {.x = x.data(),
                                    .x_stride = depth,
                                    .rows = rows_,
                                    .classes = classes_.data(),
                                    .how = How(depth, smooth, shift),
                                    .out = out.view};
    return BestSeconds([&] { kernels_.int8->quantise(call); });
  }

  double NormalizeQuantise(size_t width) {
    const Rows out(*this, width);
    const AlignedBuffer x((rows_ + cpu::kRowPadding) * width * sizeof(float));
    for (size_t i = 0; i < rows_ * width; ++i) x.As<float>()[i] = normal_(random_);
    const std::vector<float> ones(width, 1.0F), shift(width, 0.1F);
    const cpu::NormalizeQuantiseCall call = {.norm = {.x = x.As<float>(),
                                                      .rows = rows_,
                                                      .width = width,
                                                      .stride = width,
                                                      .epsilon = 1e-12F,
                                                      .gain = ones.data(),
                                                      .shift = shift.data()},
                                             .classes = classes_.data(),
                                             .how = How(width, ones, shift),
                                             .out = out.view};
    return BestSeconds([&] { kernels_.int8->normalize_quantise(call); });
  }

 private:
  // Quantised rows of random values.
  struct Rows {
    Rows(Int8Parts& parts, size_t depth)
        : values(parts.Bytes((parts.rows_ + cpu::kRowPadding) * depth)),
          scale(parts.rows_ * depth / cpu::MixBlockWidth(depth), 0.02F) {
      view.values = values.As<uint8_t>();
      view.stride = depth;
      view.scale = scale.data();
      view.blocks = depth / cpu::MixBlockWidth(depth);
    }
    AlignedBuffer values;
    std::vector<float> scale;
    cpu::QuantisedRows view;
  };

  static cpu::Quantisation How(size_t depth, const std::vector<float>& smooth, const std::vector<float>& shift) {
    cpu::Quantisation how;
    how.depth = depth;
    how.block = cpu::MixBlockWidth(depth);
    how.inverse_smooth = smooth.data();
    how.shift[0] = how.shift[1] = shift.data();
    return how;
  }

  AlignedBuffer Bytes(size_t count) {
    AlignedBuffer buffer(count);
    for (size_t i = 0; i < count; ++i) buffer.As<uint8_t>()[i] = static_cast<uint8_t>(random_() >> 8);
    return buffer;
  }

  AlignedBuffer Elements(size_t width) {
    AlignedBuffer buffer((rows_ + cpu::kRowPadding) * width * sizeof(float));
    for (size_t i = 0; i < rows_ * width; ++i) {
      if (kernels_.element == cpu::Element::kBf16) {
        buffer.As<uint16_t>()[i] = cpu::ToBf16(normal_(random_));
      } else {
        buffer.As<float>()[i] = normal_(random_);
      }
    }
    return buffer;
  }

  const cpu::KernelTable& kernels_;
  const size_t rows_;
  const std::vector<uint8_t> classes_;
  std::mt19937 random_{9};
  std::normal_distribution<float> normal_;
};

double Rate(double arithmetic, double seconds) { return arithmetic / seconds / 1e9; }

}  // namespace

std::vector<PartRate> MeasureInt8Parts(const cpu::KernelTable& kernels, const EncoderSpec& spec) {
  const cpu::Widths widths = cpu::WidthsOf(spec);
  const size_t rows = kernels.chunk_tokens, hidden = widths.hidden_padded, inner = widths.inner;
  Int8Parts parts(kernels, rows);
  const cpu::ActivationCurve curve = cpu::MakeActivationCurve(spec.activation);
  const auto product = [&](size_t columns, size_t depth, cpu::GemmOutput output) {
    return Rate(2.0 * static_cast<double>(rows * columns * depth), parts.Product(columns, depth, output, &curve));
  };
  const auto values = [&](size_t width) { return static_cast<double>(rows * width); };
  return {
      {"qkv", product(3 * widths.context, hidden, cpu::GemmOutput::kElement)},
      {"attention_out", product(hidden, widths.context, cpu::GemmOutput::kAddToF32)},
      {"ffn_in", product(inner, hidden, cpu::GemmOutput::kElement)},
      {"ffn_in_activated", product(inner, hidden, cpu::GemmOutput::kElementActivated)},
      {"ffn_out", product(hidden, inner, cpu::GemmOutput::kAddToF32)},
      {"quantise", Rate(kQuantiseArithmetic * values(inner), parts.Quantise(inner)), true},
      {"norm", Rate((kQuantiseArithmetic + kNormArithmetic) * values(hidden), parts.NormalizeQuantise(hidden)), true}};
}

double PackedInt8ProductRate(const cpu::KernelTable& kernels) {
  return Rate(2.0 * 512 * 1536 * 384, Int8Parts(kernels, 512).Product(1536, 384, cpu::GemmOutput::kElement, nullptr));
}

}  // namespace sutra::bench
