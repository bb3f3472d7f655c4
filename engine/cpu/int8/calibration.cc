// A watched pass over chunks of texts.
#include "engine/cpu/int8/calibration.h"

#include <algorithm>
#include <cassert>

#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

constexpr size_t kRowsAtOnce = 512;  // deep enough that adding to H costs little beside the products

size_t InputDepth(const PackedModel& model, LinearRole role) {
  const PackedLayer& layer = model.layers.front();
  switch (role) {
    case LinearRole::kQkv: return layer.qkv.depth;
    case LinearRole::kAttentionOut: return layer.attention_out.depth;
    case LinearRole::kFfnIn: return layer.ffn_in.depth;
    case LinearRole::kFfnOut: break;
  }
  size_t depth = 0;
  for (const PackedLinear& slice : layer.ffn_out) depth += slice.depth;
  return depth;
}

class Gatherer {
 public:
  Gatherer(const PackedModel& model, const KernelTable& kernels, size_t rows_max, size_t layer_begin, size_t layer_end,
           WorkTeam* team)
      : layer_begin_(layer_begin),
        team_(team),
        depth_max_(RoundedDepthMax(model)),
        inner_(rows_max * depth_max_ * sizeof(float)),
        scratch_(rows_max * depth_max_ * sizeof(float)),
        gram_(kernels, rows_max, depth_max_) {
    for (size_t layer = layer_begin; layer < layer_end; ++layer) {
      moments_.push_back({InputMoments(InputDepth(model, LinearRole::kQkv)),
                          InputMoments(InputDepth(model, LinearRole::kAttentionOut)),
                          InputMoments(InputDepth(model, LinearRole::kFfnIn)),
                          InputMoments(InputDepth(model, LinearRole::kFfnOut))});
    }
    inner_depth_ = InputDepth(model, LinearRole::kFfnOut);
  }

  void Take(const ChunkOfTexts& chunk, const LinearInput& input) {
    if (input.layer < layer_begin_ || input.layer >= layer_begin_ + moments_.size()) return;
    const auto* rows = static_cast<const float*>(input.rows);
    size_t stride = input.stride;
    if (input.role == LinearRole::kFfnOut) {
      // The inner width comes in slices; H needs all of it.
      for (size_t r = 0; r < chunk.rows(); ++r) {
        std::copy_n(rows + r * stride, input.columns, inner_.As<float>() + r * depth_max_ + input.column_begin);
      }
      if (input.column_begin + input.columns < inner_depth_) return;
      rows = inner_.As<float>();
      stride = depth_max_;
    }
    InputMoments& moments = moments_[input.layer - layer_begin_][static_cast<size_t>(input.role)];
    moments.Add(chunk, rows, stride, scratch_.As<float>(), &gram_, team_);
  }

  std::vector<LayerMoments> Release() { return std::move(moments_); }

 private:
  static size_t RoundedDepthMax(const PackedModel& model) {
    size_t depth = 0;
    for (size_t role = 0; role < kLinearRoles; ++role) {
      depth = std::max(depth, InputDepth(model, static_cast<LinearRole>(role)));
    }
    return RoundUp(depth, kPanelColumns);
  }

  const size_t layer_begin_;
  WorkTeam* const team_;
  const size_t depth_max_;
  size_t inner_depth_ = 0;
  AlignedBuffer inner_;  // [rows_max][depth_max]
  AlignedBuffer scratch_;
  Gram gram_;
  std::vector<LayerMoments> moments_;
};

}  // namespace

std::vector<LayerMoments> GatherMoments(const std::shared_ptr<const PackedModel>& model, const KernelTable& kernels,
                                        const TokenTexts& texts, size_t layer_begin, size_t layer_end, WorkTeam* team) {
  assert(model->element == Element::kF32 && layer_begin < layer_end && layer_end <= model->layers.size());
  size_t rows_max = kRowsAtOnce;
  for (size_t i = 0; i < texts.size(); ++i) {
    rows_max = std::max(rows_max, static_cast<size_t>(texts.offsets[i + 1] - texts.offsets[i]));
  }
  Gatherer gatherer(*model, kernels, rows_max, layer_begin, layer_end, team);
  const FloatPass pass(model, kernels,
                       [&](const ChunkOfTexts& chunk, const LinearInput& input) { gatherer.Take(chunk, input); });
  const Workspace workspace = pass.MakeWorkspace(rows_max);
  std::vector<float> vectors(rows_max * model->spec.hidden);
  kernels.prepare_thread();
  for (size_t begin = 0; begin < texts.size();) {
    size_t end = begin + 1;
    while (end < texts.size() && static_cast<size_t>(texts.offsets[end + 1] - texts.offsets[begin]) <= rows_max) ++end;
    std::vector<float*> outputs;
    for (size_t i = begin; i < end; ++i) outputs.push_back(vectors.data() + (i - begin) * model->spec.hidden);
    ChunkOfTexts chunk;
    chunk.offsets = std::span(texts.offsets).subspan(begin, end - begin + 1);
    chunk.ids = texts.ids.data() + chunk.offsets.front();
    chunk.outputs = outputs;
    Steps steps(workspace.scratch.data());
    pass.Run(chunk, workspace, steps);
    begin = end;
  }
  kernels.release_thread();
  return gatherer.Release();
}

}  // namespace sutra::cpu
