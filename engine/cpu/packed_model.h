// An encoder's weights in the layout the CPU kernels read: column panels, query/key/value fused, the query scaled.
// Thread rule: immutable after PackModel; encoders of several workers share one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/kernels.h"
#include "engine/cpu/widths.h"
#include "engine/model/encoder_spec.h"
#include "engine/model/encoder_weights.h"

namespace sutra::cpu {

// What int8 replaces is not worth packing: of kAllButProducts, products have their shapes, and no weights.
enum class PackedParts : uint8_t { kAll, kAllButProducts };

struct PackedLinear {
  size_t columns = 0;  // padded to whole panels, as the depth: what is added is zero
  size_t depth = 0;
  AlignedBuffer weights;  // [panel][depth / per_unit][64][per_unit] elements; none with PackedParts::kAllButProducts
  AlignedBuffer bias;     // fp32 [columns]
  size_t panels() const { return columns / kPanelColumns; }
};

struct PackedNorm {  // padded to whole panels with zeros
  std::vector<float> gain;
  std::vector<float> shift;
};

struct PackedLayer {
  PackedLinear qkv;
  PackedLinear attention_out;
  PackedNorm attention_norm;
  PackedLinear ffn_in;
  std::vector<PackedLinear> ffn_out;  // by slices of the inner width; only the first has the bias
  PackedNorm ffn_norm;
};

// Of the weights as they were read, only the table of words is kept, in memory of its own; all else is packed.
struct PackedModel {
  EncoderSpec spec;
  Widths widths;
  Element element = Element::kF32;
  PackedParts parts = PackedParts::kAll;
  std::string weights_digest;
  const float* words = nullptr;            // [vocabulary][hidden], in one of the next two
  std::shared_ptr<const std::byte> table;  // the tensor's own memory, where it holds floats
  std::vector<float> converted;
  std::vector<float> positions;  // with the first type row added
  PackedNorm embedding_norm;
  std::vector<PackedLayer> layers;
  size_t slice_width = 0;  // of the feed-forward's inner width
  ActivationCurve curve;
};

// Encoders of one process for the same weights, specification, element and parts share one copy, so that each worker
// costs only its buffers and not another 20 MiB.
std::shared_ptr<const PackedModel> SharedPackedModel(const EncoderSpec& spec, const EncoderWeights& weights,
                                                     Element element, PackedParts parts = PackedParts::kAll);

// Packs row-major floats [columns][depth] into panels, padded; exposed for tests and benches.
PackedLinear PackLinear(const float* weight, const float* bias, size_t columns, size_t depth, Element element);

// Rounds to nearest even, as the hardware does.
uint16_t ToBf16(float value);

}  // namespace sutra::cpu
