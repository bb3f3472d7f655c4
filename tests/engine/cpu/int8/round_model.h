// A model's weights rounded to int8 behind a simple calibration, so that tests of the pass need no more than a model.
#pragma once

#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/quantised_model.h"
#include "engine/model/loaded_model.h"

namespace sutra::cpu {

// Means and mean squares of a model's inputs over a chunk of texts.
class SimpleStatistics {
 public:
  SimpleStatistics(const LoadedModel& model, const ChunkOfTexts& texts) {
    const EncoderSpec& spec = model.config.spec;
    statistics_.resize(spec.layers);
    for (auto& layer : statistics_) {
      for (size_t role = 0; role < kLinearRoles; ++role) {
        const size_t depth = role + 1 == kLinearRoles ? spec.intermediate : spec.hidden;
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

// `rest` has to come from SharedPackedModel with the element that the kernels have.
inline std::shared_ptr<const QuantisedModel> RoundModel(const LoadedModel& model, Element element,
                                                        const ChunkOfTexts& texts) {
  const EncoderSpec& spec = model.config.spec;
  const SimpleStatistics statistics(model, texts);
  auto out = std::make_shared<QuantisedModel>();
  out->rest = SharedPackedModel(spec, model.weights, element);
  for (size_t index = 0; index < model.weights.layers.size(); ++index) {
    const LayerTensors& layer = model.weights.layers[index];
    QuantisedLayer packed;
    const auto pack = [&](LinearRole role, const std::vector<float>& weight, const std::vector<float>& bias) {
      const LinearStatistics& inputs = statistics.Of(index, role);
      packed[static_cast<size_t>(role)] = PackQuantised(weight.data(), bias.data(), bias.size(), inputs.depth, inputs);
    };
    std::vector<float> weight;
    std::vector<float> bias;
    const auto scale = static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(spec.head_width())));
    for (const LinearTensors* part : {&layer.query, &layer.key, &layer.value}) {
      for (const float value : ToFloats(*part->weight)) weight.push_back(part == &layer.query ? value * scale : value);
      for (const float value : ToFloats(*part->bias)) bias.push_back(part == &layer.query ? value * scale : value);
    }
    pack(LinearRole::kQkv, weight, bias);
    pack(LinearRole::kAttentionOut, ToFloats(*layer.attention_out.weight), ToFloats(*layer.attention_out.bias));
    pack(LinearRole::kFfnIn, ToFloats(*layer.ffn_in.weight), ToFloats(*layer.ffn_in.bias));
    pack(LinearRole::kFfnOut, ToFloats(*layer.ffn_out.weight), ToFloats(*layer.ffn_out.bias));
    out->layers.push_back(std::move(packed));
  }
  return out;
}

}  // namespace sutra::cpu
