// A model's weights rounded to int8 behind a simple calibration, so that tests of the pass need no more than a model.
#pragma once

#include <memory>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/quantised_model.h"
#include "engine/cpu/packed_model.h"
#include "engine/model/loaded_model.h"

namespace sutra::cpu {

// Means and mean squares of a model's inputs over a chunk of texts.
class SimpleStatistics {
 public:
  SimpleStatistics(const LoadedModel& model, const ChunkOfTexts& texts) {
    const EncoderSpec& spec = model.config.spec;
    const Widths widths = WidthsOf(spec);
    const size_t depths[] = {widths.hidden_padded, widths.context, widths.hidden_padded, widths.inner};
    statistics_.resize(spec.layers);
    for (auto& layer : statistics_) {
      for (size_t role = 0; role < kLinearRoles; ++role) {
        const size_t depth = depths[role];
        layer[role] = {
            depth, {std::vector<float>(depth), std::vector<float>(depth)}, std::vector<float>(depth * depth)};
      }
    }
    const KernelTable& kernels = *PortableKernels(Element::kF32);
    const FloatPass pass(SharedPackedModel(spec, model.weights, Element::kF32), kernels,
                         [this](const ChunkOfTexts& chunk, const LinearInput& input) { Add(chunk, input); });
    const Workspace workspace = pass.MakeWorkspace(texts.rows());
    Steps steps(workspace.scratch.data());
    pass.Run(texts, workspace, steps);
  }

  const LinearStatistics& Of(size_t layer, LinearRole role) const {
    return statistics_[layer][static_cast<size_t>(role)];
  }

 private:
  void Add(const ChunkOfTexts& chunk, const LinearInput& input) {
    LinearStatistics& of = statistics_[input.layer][static_cast<size_t>(input.role)];
    const auto firsts = static_cast<float>(chunk.texts());
    const auto others = static_cast<float>(chunk.rows() - chunk.texts());
    for (size_t i = 0; i < input.columns; ++i) {
      const size_t k = input.column_begin + i;
      const auto x = [&](size_t row) { return static_cast<const float*>(input.rows)[row * input.stride + i]; };
      for (const bool squares : {false, true}) {
        for (size_t text = 0; text < chunk.texts(); ++text) {
          for (size_t token = 0; token < chunk.tokens(text); ++token) {
            const size_t row_class = token == 0 ? 0 : 1;
            const float count = row_class == 0 ? firsts : others;
            float& mean = of.mean[row_class][k];
            const float value = x(chunk.row(text) + token);
            if (squares) {
              of.moments[k * of.depth + k] += (value - mean) * (value - mean) / (firsts + others);
            } else {
              mean += value / count;
            }
          }
        }
      }
    }
  }

  std::vector<std::array<LinearStatistics, kLinearRoles>> statistics_;
};

// The fp32 products of one role of a packed layer, beside each other along the depth.
inline std::vector<const PackedLinear*> PackedPartsOf(const PackedLayer& layer, LinearRole role) {
  switch (role) {
    case LinearRole::kQkv: return {&layer.qkv};
    case LinearRole::kAttentionOut: return {&layer.attention_out};
    case LinearRole::kFfnIn: return {&layer.ffn_in};
    case LinearRole::kFfnOut: break;
  }
  std::vector<const PackedLinear*> slices;
  for (const PackedLinear& slice : layer.ffn_out) slices.push_back(&slice);
  return slices;
}

// `rest` has to come from SharedPackedModel with the element that the kernels have.
inline std::shared_ptr<const QuantisedModel> RoundModel(const LoadedModel& model, Element element,
                                                        const ChunkOfTexts& texts) {
  const SimpleStatistics statistics(model, texts);
  const auto exact = SharedPackedModel(model.config.spec, model.weights, Element::kF32);
  auto out = std::make_shared<QuantisedModel>();
  out->rest = SharedPackedModel(model.config.spec, model.weights, element);
  for (size_t index = 0; index < exact->layers.size(); ++index) {
    QuantisedLayer packed;
    for (size_t role = 0; role < kLinearRoles; ++role) {
      const auto parts = PackedPartsOf(exact->layers[index], static_cast<LinearRole>(role));
      const LinearStatistics& inputs = statistics.Of(index, static_cast<LinearRole>(role));
      const size_t columns = parts.front()->columns;
      std::vector<float> weight(columns * inputs.depth);  // row-major
      for (size_t n = 0; n < columns; ++n) {
        float* at = weight.data() + n * inputs.depth;
        for (const PackedLinear* part : parts) {
          const float* from = part->weights.As<float>() + n / kPanelColumns * kPanelColumns * part->depth;
          for (size_t k = 0; k < part->depth; ++k) *at++ = from[k * kPanelColumns + n % kPanelColumns];
        }
      }
      packed[role] = PackQuantised(weight.data(), parts.front()->bias.As<float>(), columns, inputs.depth, inputs);
    }
    out->layers.push_back(std::move(packed));
  }
  return out;
}

}  // namespace sutra::cpu
