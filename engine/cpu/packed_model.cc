// Packing weights into panels, and the table of packed models in use.
#include "engine/cpu/packed_model.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <numbers>

#include "engine/cpu/activation_curve.h"
#include "shm/base/mutex.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {

uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

namespace {

constexpr size_t kSliceWidthMax = 512;

// The widest slice of the inner width that keeps a slice of activations in L2 and consists of whole panels.
size_t SliceWidth(size_t inner) {
  size_t best = kPanelColumns;
  for (size_t width = kPanelColumns; width <= kSliceWidthMax; width += kPanelColumns) {
    if (inner % width == 0) best = width;
  }
  return best;
}

// With zeros to whole panels, so that a kernel writes zeros there.
PackedNorm PackNorm(const NormTensors& norm) {
  PackedNorm packed{ToFloats(*norm.gain), ToFloats(*norm.shift)};
  packed.gain.resize(RoundUp(packed.gain.size(), kPanelColumns));
  packed.shift.resize(packed.gain.size());
  return packed;
}

// The tensor's values: in place where they are floats, else converted.
class FloatsOf {
 public:
  explicit FloatsOf(const TensorView& tensor)
      : converted_(tensor.Floats() == nullptr ? ToFloats(tensor) : std::vector<float>()),
        data_(tensor.Floats() == nullptr ? converted_.data() : tensor.Floats()) {}
  const float* data() const { return data_; }

 private:
  const std::vector<float> converted_;
  const float* const data_;
};

// Padded to whole panels.
PackedLinear Shape(size_t columns, size_t depth) {
  PackedLinear shape;
  shape.columns = RoundUp(columns, kPanelColumns);
  shape.depth = RoundUp(depth, kPanelColumns);
  return shape;
}

// The same with weights, all of them zero.
PackedLinear Zeros(size_t columns, size_t depth, Element element) {
  PackedLinear packed = Shape(columns, depth);
  packed.weights = AlignedBuffer(packed.columns * packed.depth * ElementBytes(element));
  return packed;
}

void SetBias(const float* bias, size_t columns, PackedLinear* packed) {
  packed->bias = AlignedBuffer(packed->columns * sizeof(float));
  std::copy_n(bias, columns, packed->bias.As<float>());
}

// Writes the weights of `column` for inputs `begin` to begin + count, times `factor`, to where the kernels read them:
// straight from the tensor's row, a unit of four bytes at a time. With copies in between and a place computed for each
// weight, packing MiniLM took twice as long. REQUIRES: `begin` is even.
void PackColumn(const float* weights, size_t count, float factor, size_t column, size_t begin, Element element,
                PackedLinear* packed) {
  const size_t per_unit = PerUnit(element);
  const size_t first = (column / kPanelColumns * packed->depth + begin) / per_unit * kPanelColumns;
  auto* unit = packed->weights.As<uint32_t>() + first + column % kPanelColumns;
  if (element == Element::kF32) {
    for (size_t k = 0; k < count; ++k) unit[k * kPanelColumns] = std::bit_cast<uint32_t>(weights[k] * factor);
    return;
  }
  for (size_t k = 0; k + 1 < count; k += 2) {
    unit[k / 2 * kPanelColumns] = ToBf16(weights[k] * factor) | uint32_t{ToBf16(weights[k + 1] * factor)} << 16;
  }
  if (count % 2 != 0) unit[count / 2 * kPanelColumns] = ToBf16(weights[count - 1] * factor);
}

PackedLinear Pack(const LinearTensors& linear, Element element, PackedParts parts) {
  if (parts == PackedParts::kAllButProducts) return Shape(linear.weight->shape[0], linear.weight->shape[1]);
  return PackLinear(FloatsOf(*linear.weight).data(), FloatsOf(*linear.bias).data(), linear.weight->shape[0],
                    linear.weight->shape[1], element);
}

// Queries, keys and values beside each other, each head's columns at its padded place.
PackedLinear PackQkv(const LayerTensors& layer, const EncoderSpec& spec, const Widths& widths, Element element,
                     PackedParts parts) {
  const size_t depth = spec.hidden;
  if (parts == PackedParts::kAllButProducts) return Shape(3 * widths.context, depth);
  PackedLinear packed = Zeros(3 * widths.context, depth, element);
  packed.bias = AlignedBuffer(packed.columns * sizeof(float));
  // exp(q k / sqrt(d)) = 2^(q' k): the attention kernel neither scales nor changes the base.
  const auto scale = static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(spec.head_width())));
  const LinearTensors* linears[] = {&layer.query, &layer.key, &layer.value};
  for (size_t part = 0; part < 3; ++part) {
    const FloatsOf weight(*linears[part]->weight);
    const FloatsOf bias(*linears[part]->bias);
    const float factor = part == 0 ? scale : 1.0F;
    for (size_t from = 0; from < spec.hidden; ++from) {
      const size_t column = part * widths.context + from / spec.head_width() * widths.head + from % spec.head_width();
      PackColumn(weight.data() + from * depth, depth, factor, column, 0, element, &packed);
      packed.bias.As<float>()[column] = bias.data()[from] * factor;
    }
  }
  return packed;
}

// Its inputs are the heads, at their padded places.
PackedLinear PackAttentionOut(const LinearTensors& linear, const EncoderSpec& spec, const Widths& widths,
                              Element element, PackedParts parts) {
  if (parts == PackedParts::kAllButProducts) return Shape(spec.hidden, widths.context);
  const FloatsOf weight(*linear.weight);
  PackedLinear packed = Zeros(spec.hidden, widths.context, element);
  const size_t width = spec.head_width();
  for (size_t n = 0; n < spec.hidden; ++n) {
    for (size_t head = 0; head < spec.heads; ++head) {
      PackColumn(weight.data() + (n * spec.heads + head) * width, width, 1, n, head * widths.head, element, &packed);
    }
  }
  SetBias(FloatsOf(*linear.bias).data(), spec.hidden, &packed);
  return packed;
}

// The inner width in slices; it ends within the last one.
std::vector<PackedLinear> PackSlices(const LinearTensors& linear, size_t slice_width, Element element,
                                     PackedParts parts) {
  const size_t columns = linear.weight->shape[0];
  const size_t depth = linear.weight->shape[1];
  std::vector<PackedLinear> slices;
  if (parts == PackedParts::kAllButProducts) {
    for (size_t begin = 0; begin < depth; begin += slice_width) slices.push_back(Shape(columns, slice_width));
    return slices;
  }
  const FloatsOf weight(*linear.weight);
  for (size_t begin = 0; begin < depth; begin += slice_width) {
    PackedLinear packed = Zeros(columns, slice_width, element);
    for (size_t n = 0; n < columns; ++n) {
      PackColumn(weight.data() + n * depth + begin, std::min(slice_width, depth - begin), 1, n, 0, element, &packed);
    }
    if (begin == 0) SetBias(FloatsOf(*linear.bias).data(), columns, &packed);
    slices.push_back(std::move(packed));
  }
  return slices;
}

}  // namespace

size_t AttentionScratchBytes(size_t tokens, size_t head_width) {
  constexpr size_t kQueriesAtOnce = 32;
  const size_t keys = RoundUp(tokens, 32);
  return (keys * (kQueriesAtOnce + 2 * head_width) + 2 * kQueriesAtOnce * head_width) * sizeof(float);
}

PackedLinear PackLinear(const float* weight, const float* bias, size_t columns, size_t depth, Element element) {
  PackedLinear packed = Zeros(columns, depth, element);
  for (size_t n = 0; n < columns; ++n) PackColumn(weight + n * depth, depth, 1, n, 0, element, &packed);
  if (bias != nullptr) SetBias(bias, columns, &packed);
  return packed;
}

namespace {

std::shared_ptr<const PackedModel> PackModel(const EncoderSpec& spec, const EncoderWeights& weights, Element element,
                                             PackedParts parts) {
  auto model = std::make_shared<PackedModel>();
  model->spec = spec;
  model->widths = WidthsOf(spec);
  model->element = element;
  model->parts = parts;
  model->weights_digest = weights.digest;
  model->words = weights.words->Floats();
  if (model->words != nullptr) {
    model->table = weights.words->memory;
  } else {
    model->converted = ToFloats(*weights.words);
    model->words = model->converted.data();
  }
  model->positions = ToFloats(*weights.positions);
  const std::vector<float> segments = ToFloats(*weights.segments);
  for (size_t i = 0; i < model->positions.size(); ++i) model->positions[i] += segments[i % spec.hidden];
  model->embedding_norm = PackNorm(weights.embedding_norm);
  model->slice_width = SliceWidth(model->widths.inner);
  model->curve = MakeActivationCurve(spec.activation);
  for (const LayerTensors& layer : weights.layers) {
    PackedLayer packed;
    packed.qkv = PackQkv(layer, spec, model->widths, element, parts);
    packed.attention_out = PackAttentionOut(layer.attention_out, spec, model->widths, element, parts);
    packed.attention_norm = PackNorm(layer.attention_norm);
    packed.ffn_in = Pack(layer.ffn_in, element, parts);
    packed.ffn_out = PackSlices(layer.ffn_out, model->slice_width, element, parts);
    packed.ffn_norm = PackNorm(layer.ffn_norm);
    model->layers.push_back(std::move(packed));
  }
  return model;
}

class PackedModels {
 public:
  std::shared_ptr<const PackedModel> Get(const EncoderSpec& spec, const EncoderWeights& weights, Element element,
                                         PackedParts parts) {
    const MutexLock lock(mutex_);
    std::erase_if(in_use_, [](const auto& packed) { return packed.expired(); });
    for (const auto& weak : in_use_) {
      std::shared_ptr<const PackedModel> packed = weak.lock();
      if (packed != nullptr && packed->element == element && packed->parts == parts &&
          packed->weights_digest == weights.digest && packed->spec == spec) {
        return packed;
      }
    }
    const BufferArena arena;
    std::shared_ptr<const PackedModel> packed = PackModel(spec, weights, element, parts);
    in_use_.push_back(packed);
    return packed;
  }

 private:
  Mutex mutex_;
  std::vector<std::weak_ptr<const PackedModel>> in_use_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<const PackedModel> SharedPackedModel(const EncoderSpec& spec, const EncoderWeights& weights,
                                                     Element element, PackedParts parts) {
  assert(!weights.digest.empty());  // LoadModel fills it in
  static PackedModels packed_models;
  return packed_models.Get(spec, weights, element, parts);
}

}  // namespace sutra::cpu
