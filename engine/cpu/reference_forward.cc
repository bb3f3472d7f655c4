// Post-norm transformer encoder (Vaswani et al. 2017; BERT, Devlin et al. 2018). Rows are tokens, one after another.
#include "engine/cpu/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sutra::cpu {
namespace {

using Rows = std::vector<float>;  // [tokens][width]

// Sixteen partial sums, so that a compiler may use vectors of any width.
float Dot(const float* a, const float* b, size_t count) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (; i < count; ++i) sum += a[i] * b[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

// In place where the tensor holds floats.
class Floats {
 public:
  explicit Floats(const TensorView& tensor) : in_place_(tensor.Floats()) {
    if (in_place_ == nullptr) converted_ = ToFloats(tensor);
  }
  const float* data() const { return in_place_ != nullptr ? in_place_ : converted_.data(); }

 private:
  const float* const in_place_;
  std::vector<float> converted_;
};

Rows Linear(const Rows& x, const LinearTensors& linear) {
  const size_t out = linear.weight->shape[0];
  const size_t in = linear.weight->shape[1];
  const size_t tokens = x.size() / in;
  const Floats weight(*linear.weight);
  const Floats bias(*linear.bias);
  Rows y(tokens * out);
  for (size_t n = 0; n < out; ++n) {
    for (size_t t = 0; t < tokens; ++t) {
      y[t * out + n] = Dot(x.data() + t * in, weight.data() + n * in, in) + bias.data()[n];
    }
  }
  return y;
}

void Normalize(Rows* x, size_t width, const NormTensors& norm, float epsilon) {
  const Floats gain(*norm.gain);
  const Floats shift(*norm.shift);
  for (auto row = x->begin(); row != x->end(); row += static_cast<std::ptrdiff_t>(width)) {
    double mean = 0;
    double variance = 0;
    for (size_t i = 0; i < width; ++i) mean += static_cast<double>(row[i]) / static_cast<double>(width);
    for (size_t i = 0; i < width; ++i) {
      const double difference = static_cast<double>(row[i]) - mean;
      variance += difference * difference / static_cast<double>(width);
    }
    const double factor = 1 / std::sqrt(variance + static_cast<double>(epsilon));
    for (size_t i = 0; i < width; ++i) {
      const auto unit = static_cast<float>((static_cast<double>(row[i]) - mean) * factor);
      row[i] = unit * gain.data()[i] + shift.data()[i];
    }
  }
}

Rows Attend(const EncoderSpec& spec, const Rows& query, const Rows& key, const Rows& value) {
  const size_t tokens = query.size() / spec.hidden;
  const size_t head_width = spec.head_width();
  const float scale = 1 / std::sqrt(static_cast<float>(head_width));
  Rows context(query.size());
  std::vector<float> weights(tokens);
  for (size_t head = 0; head < spec.heads; ++head) {
    for (size_t q = 0; q < tokens; ++q) {
      const auto at = [&](const Rows& rows, size_t token) {
        return rows.data() + token * spec.hidden + head * head_width;
      };
      for (size_t k = 0; k < tokens; ++k) weights[k] = Dot(at(query, q), at(key, k), head_width) * scale;
      const float top = *std::max_element(weights.begin(), weights.end());
      float total = 0;
      for (float& weight : weights) total += weight = std::exp(weight - top);
      float* out = context.data() + q * spec.hidden + head * head_width;
      for (size_t k = 0; k < tokens; ++k) {
        for (size_t i = 0; i < head_width; ++i) out[i] += weights[k] / total * at(value, k)[i];
      }
    }
  }
  return context;
}

float Activate(Activation activation, float value) {
  const auto x = static_cast<double>(value);
  if (activation == Activation::kGeluErf) return static_cast<float>(0.5 * x * (1 + std::erf(x / std::numbers::sqrt2)));
  const double inner = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return static_cast<float>(0.5 * x * (1 + std::tanh(inner)));
}

void Add(Rows* x, const Rows& y) { std::transform(x->begin(), x->end(), y.begin(), x->begin(), std::plus<>()); }

Rows Embed(const EncoderSpec& spec, const EncoderWeights& weights, std::span<const int32_t> ids) {
  const Floats words(*weights.words);
  const Floats positions(*weights.positions);
  const Floats segments(*weights.segments);
  Rows x(ids.size() * spec.hidden);
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t i = 0; i < spec.hidden; ++i) {
      x[t * spec.hidden + i] = words.data()[static_cast<size_t>(ids[t]) * spec.hidden + i] +
                               positions.data()[t * spec.hidden + i] + segments.data()[i];
    }
  }
  return x;
}

}  // namespace

std::vector<float> ReferenceForward(const EncoderSpec& spec, const EncoderWeights& weights,
                                    std::span<const int32_t> ids) {
  Rows x = Embed(spec, weights, ids);
  Normalize(&x, spec.hidden, weights.embedding_norm, spec.norm_epsilon);
  for (const LayerTensors& layer : weights.layers) {
    const Rows context = Attend(spec, Linear(x, layer.query), Linear(x, layer.key), Linear(x, layer.value));
    Add(&x, Linear(context, layer.attention_out));
    Normalize(&x, spec.hidden, layer.attention_norm, spec.norm_epsilon);
    Rows inner = Linear(x, layer.ffn_in);
    for (float& value : inner) value = Activate(spec.activation, value);
    Add(&x, Linear(inner, layer.ffn_out));
    Normalize(&x, spec.hidden, layer.ffn_norm, spec.norm_epsilon);
  }
  std::vector<float> pooled(x.begin(), x.begin() + spec.hidden);
  if (spec.pooling == Pooling::kCls) return pooled;
  const size_t tokens = ids.size();
  for (size_t t = 1; t < tokens; ++t) {
    for (size_t i = 0; i < spec.hidden; ++i) pooled[i] += x[t * spec.hidden + i];
  }
  for (float& value : pooled) value /= static_cast<float>(tokens);
  return pooled;
}

}  // namespace sutra::cpu
