#include "bench/kernel_parts.h"

#include <algorithm>
#include <random>

#include "bench/register_peak.h"
#include "engine/cpu/activation_curve.h"
#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/widths.h"

namespace sutra::bench {
namespace {

constexpr int kCalls = 15;

class Parts {
 public:
  explicit Parts(const cpu::KernelTable& kernels) : kernels_(kernels) { kernels_.prepare_thread(); }
  ~Parts() { kernels_.release_thread(); }
  Parts(const Parts&) = delete;

  // Elements of the set's type, or fp32; spare rows included.
  AlignedBuffer Random(size_t rows, size_t width, bool elements) {
    AlignedBuffer buffer((rows + cpu::kRowPadding) * width * sizeof(float));
    for (size_t i = 0; i < rows * width; ++i) {
      if (elements && kernels_.element == cpu::Element::kBf16) {
        buffer.As<uint16_t>()[i] = cpu::ToBf16(normal_(random_));
      } else {
        buffer.As<float>()[i] = normal_(random_);
      }
    }
    return buffer;
  }

  // Seconds of one product.
  double Product(size_t rows, size_t columns, size_t depth, cpu::GemmOutput output, const cpu::ActivationCurve* curve) {
    std::vector<float> weight(columns * depth), bias(columns, 0.1F);
    // Small enough that a residual to which every call adds stays finite.
    std::generate(weight.begin(), weight.end(), [&] { return normal_(random_) / 32; });
    const cpu::PackedLinear packed = cpu::PackLinear(weight.data(), bias.data(), columns, depth, kernels_.element);
    const AlignedBuffer a = Random(rows, depth, true);
    const AlignedBuffer c = Random(rows, columns, output != cpu::GemmOutput::kAddToF32);
    const cpu::GemmCall call = {.a = a.data(),
                                .a_stride = depth,
                                .rows = rows,
                                .b = packed.weights.data(),
                                .depth = depth,
                                .panel_begin = 0,
                                .panel_end = packed.panels(),
                                .bias = packed.bias.As<float>(),
                                .output = output,
                                .c = c.data(),
                                .c_stride = columns,
                                .curve = curve};
    return BestSeconds([&] { kernels_.gemm(call); });
  }

  double Attention(size_t texts, size_t tokens, const cpu::Widths& widths) {
    const size_t width = widths.context;
    const AlignedBuffer qkv = Random(texts * tokens, 3 * width, true);
    const AlignedBuffer context = Random(texts * tokens, width, true);
    const AlignedBuffer scratch(cpu::AttentionScratchBytes(tokens, widths.head));
    const size_t bytes = cpu::ElementBytes(kernels_.element);
    return BestSeconds([&] {
      for (size_t text = 0; text < texts; ++text) {
        kernels_.attention({.qkv = qkv.As<char>() + text * tokens * 3 * width * bytes,
                            .qkv_stride = 3 * width,
                            .tokens = tokens,
                            .width = width,
                            .head_width = widths.head,
                            .head_begin = 0,
                            .head_end = widths.heads,
                            .context = context.As<char>() + text * tokens * width * bytes,
                            .context_stride = width,
                            .scratch = scratch.data()});
      }
    });
  }

  double Normalize(size_t rows, size_t width) {
    const AlignedBuffer x = Random(rows, width, false);
    const AlignedBuffer elements = Random(rows, width, true);
    const std::vector<float> gain(width, 1.0F), shift(width, 0.1F);
    return BestSeconds([&] {
      kernels_.normalize({.x = x.As<float>(),
                          .rows = rows,
                          .width = width,
                          .stride = width,
                          .epsilon = 1e-12F,
                          .gain = gain.data(),
                          .shift = shift.data(),
                          .elements = elements.data()});
    });
  }

 private:
  const cpu::KernelTable& kernels_;
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
};

}  // namespace

double BestSeconds(const std::function<void()>& call) {
  double best = 1e9;
  call();
  for (int i = 0; i < kCalls; ++i) {
    const double start = ThreadSeconds();
    call();
    best = std::min(best, ThreadSeconds() - start);
  }
  return best;
}

std::vector<PartRate> MeasureParts(const cpu::KernelTable& kernels, const EncoderSpec& spec) {
  Parts parts(kernels);
  const size_t rows = kernels.chunk_tokens;
  const cpu::Widths widths = cpu::WidthsOf(spec);
  const size_t hidden = widths.hidden_padded;
  const size_t inner = widths.inner;
  const size_t context = widths.context;
  const cpu::ActivationCurve curve = cpu::MakeActivationCurve(spec.activation);
  const auto rate = [](double arithmetic, double seconds) { return arithmetic / std::max(seconds, 1e-9) / 1e9; };
  const auto product = [&](size_t columns, size_t depth, cpu::GemmOutput output) {
    return parts.Product(rows, columns, depth, output, &curve);
  };
  const auto arithmetic = [&](size_t columns, size_t depth) {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(depth);
  };
  const double plain = product(inner, hidden, cpu::GemmOutput::kElement);
  const double activated = product(inner, hidden, cpu::GemmOutput::kElementActivated);
  std::vector<PartRate> rates = {
      {"qkv", rate(arithmetic(3 * context, hidden), product(3 * context, hidden, cpu::GemmOutput::kElement))},
      {"attention_out", rate(arithmetic(hidden, context), product(hidden, context, cpu::GemmOutput::kAddToF32))},
      {"ffn_in", rate(arithmetic(inner, hidden), plain)},
      {"ffn_in_activated", rate(arithmetic(inner, hidden), activated)},
      {"ffn_out", rate(arithmetic(hidden, inner), product(hidden, inner, cpu::GemmOutput::kAddToF32))}};
  // Of a value. fp32: c * c * scale - 1, the polynomial, c * R, x * (1/2 + f); bf16: place, parabola, x / 2 + |x| f.
  const double curve_arithmetic =
      kernels.element == cpu::Element::kF32 ? 2.0 * cpu::ActivationCurve::kCoefficients + 6 : 9;
  const double values = static_cast<double>(rows * inner);
  if (activated > 1.01 * plain)
    rates.push_back({"activation", rate(values * curve_arithmetic, activated - plain), true});
  for (const size_t tokens : {size_t{32}, size_t{128}}) {
    const size_t texts = std::max<size_t>(rows / tokens, 1);
    // Two products of tokens x tokens x head width for each head.
    const double all = 2 * 2.0 * static_cast<double>(texts * tokens * tokens) * static_cast<double>(context);
    rates.push_back({"attention_" + std::to_string(tokens), rate(all, parts.Attention(texts, tokens, widths))});
  }
  // Of a value: its sum, its squared distance from the mean, (x - mean) * r, * gain + shift.
  rates.push_back({"norm", rate(8.0 * static_cast<double>(rows * hidden), parts.Normalize(rows, hidden)), true});
  return rates;
}

double PackedProductRate(const cpu::KernelTable& kernels) {
  Parts parts(kernels);
  return 2.0 * 512 * 1536 * 384 / parts.Product(512, 1536, 384, cpu::GemmOutput::kElement, nullptr) / 1e9;
}

}  // namespace sutra::bench
