// Layers in groups: statistics of a group by one pass, then its products shared out among the threads.
#include "engine/cpu/int8/model_quantiser.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <new>

#include "engine/cpu/int8/calibration.h"
#include "engine/cpu/int8/progress_line.h"

namespace sutra::cpu {
namespace {

// Texts of random ids are one kind of text; a larger share of the mean keeps GPTQ from fitting the weights to it.
constexpr float kDamping = 0.2F;

// The parts of one product's fp32 weights as they lie in panels, beside each other, row-major.
class RowMajor {
 public:
  explicit RowMajor(const std::vector<const PackedLinear*>& parts) : columns_(parts.front()->columns) {
    for (const PackedLinear* part : parts) depth_ += part->depth;
    weight_.resize(columns_ * depth_);
    size_t begin = 0;
    for (const PackedLinear* part : parts) {
      const float* const panels = part->weights.As<float>();
      for (size_t n = 0; n < columns_; ++n) {
        const float* const column = panels + n / kPanelColumns * kPanelColumns * part->depth + n % kPanelColumns;
        for (size_t k = 0; k < part->depth; ++k) weight_[n * depth_ + begin + k] = column[k * kPanelColumns];
      }
      begin += part->depth;
    }
  }
  const float* data() const { return weight_.data(); }
  size_t columns() const { return columns_; }
  size_t depth() const { return depth_; }

 private:
  const size_t columns_;
  size_t depth_ = 0;
  std::vector<float> weight_;
};

std::vector<const PackedLinear*> PartsOf(const PackedLayer& layer, LinearRole role) {
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

bool IsFinite(const LinearStatistics& statistics) {
  double sum = 0;
  for (const float value : statistics.moments) sum += static_cast<double>(value);
  for (const auto& mean : statistics.mean) {
    for (const float value : mean) sum += static_cast<double>(value);
  }
  return std::isfinite(sum);
}

size_t MomentBytesPerLayer(const PackedModel& model) {
  size_t bytes = 0;
  for (size_t role = 0; role < kLinearRoles; ++role) {
    size_t depth = 0;
    for (const PackedLinear* part : PartsOf(model.layers.front(), static_cast<LinearRole>(role))) depth += part->depth;
    bytes += depth * depth * sizeof(float);
  }
  return bytes;
}

// The products of one group of layers, drawn by the members of a team, the largest first.
class GroupJob {
 public:
  GroupJob(const PackedModel& exact, const KernelTable& kernels, size_t layer_begin,
           const std::vector<LayerMoments>& moments, std::vector<QuantisedLayer>* out)
      : exact_(exact), kernels_(kernels), layer_begin_(layer_begin), moments_(moments), out_(*out) {}

  // False: a product read something that is not finite.
  bool Run(WorkTeam* team) {
    team->Run([this](int) {
      kernels_.prepare_thread();
      const size_t count = moments_.size() * kLinearRoles;
      // Relaxed: the exchange itself claims a product; the end of the run publishes the results.
      for (size_t i = next_.fetch_add(1, std::memory_order_relaxed); i < count;
           i = next_.fetch_add(1, std::memory_order_relaxed)) {
        try {
          Quantise(i % moments_.size(), kLinearRoles - 1 - i / moments_.size());
          progress_.Say(layer_begin_ * kLinearRoles + i + 1, exact_.layers.size() * kLinearRoles);
        } catch (const std::bad_alloc&) {  // must not leave a helper's thread
          out_of_memory_.store(true, std::memory_order_relaxed);
        }
      }
      kernels_.release_thread();
    });
    if (out_of_memory_.load(std::memory_order_relaxed)) throw std::bad_alloc();
    return !not_finite_.load(std::memory_order_relaxed);
  }

 private:
  void Quantise(size_t in_group, size_t role) {
    const LinearStatistics statistics = moments_[in_group][role].Finish();
    if (!IsFinite(statistics)) {
      not_finite_.store(true, std::memory_order_relaxed);
      return;
    }
    const size_t layer = layer_begin_ + in_group;
    const std::vector<const PackedLinear*> parts = PartsOf(exact_.layers[layer], static_cast<LinearRole>(role));
    const RowMajor weight(parts);
    out_[layer][role] = PackQuantised(weight.data(), parts.front()->bias.As<float>(), weight.columns(), weight.depth(),
                                      statistics, {.kernels = &kernels_, .damping = kDamping});
  }

  const PackedModel& exact_;
  const KernelTable& kernels_;
  const size_t layer_begin_;
  const std::vector<LayerMoments>& moments_;
  std::vector<QuantisedLayer>& out_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> not_finite_{false};
  std::atomic<bool> out_of_memory_{false};
  ProgressLine progress_{"products are rounded"};
};

}  // namespace

Result<std::vector<QuantisedLayer>> QuantiseLayers(const std::shared_ptr<const PackedModel>& exact,
                                                   const KernelTable& kernels, const TokenTexts& texts, int threads,
                                                   size_t moment_bytes_max) {
  assert(exact->parts == PackedParts::kAll);
  const size_t layers = exact->layers.size();
  const size_t at_once = std::clamp<size_t>(moment_bytes_max / MomentBytesPerLayer(*exact), 1, layers);
  WorkTeam team(threads);
  std::vector<QuantisedLayer> out(layers);
  for (size_t begin = 0; begin < layers; begin += at_once) {
    const size_t end = std::min(layers, begin + at_once);
    const std::vector<LayerMoments> moments = GatherMoments(exact, kernels, texts, begin, end, &team);
    if (!GroupJob(*exact, kernels, begin, moments, &out).Run(&team)) {
      return Status(StatusCode::kModelError,
                    "the model computes values that are not finite even in fp32; its weights may be damaged");
    }
  }
  return out;
}

}  // namespace sutra::cpu
