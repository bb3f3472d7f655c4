// Watched passes over chunks of texts.
#include "engine/cpu/int8/calibration.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <new>
#include <utility>

#include "engine/cpu/int8/progress_line.h"
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

size_t RoundedDepthMax(const PackedModel& model) {
  size_t depth = 0;
  for (size_t role = 0; role < kLinearRoles; ++role) {
    depth = std::max(depth, InputDepth(model, static_cast<LinearRole>(role)));
  }
  return RoundUp(depth, kPanelColumns);
}

// Texts that are computed at once: numbers [begin, end).
struct Chunk {
  size_t begin, end;
};

std::vector<Chunk> CutIntoChunks(const TokenTexts& texts, size_t rows_max) {
  std::vector<Chunk> chunks;
  for (size_t begin = 0; begin < texts.size();) {
    size_t end = begin + 1;
    while (end < texts.size() && static_cast<size_t>(texts.offsets[end + 1] - texts.offsets[begin]) <= rows_max) ++end;
    chunks.push_back({begin, end});
    begin = end;
  }
  return chunks;
}

// The sums of one product, to which chunks are added in their order: a float sum depends on it.
struct OrderedMoments {
  explicit OrderedMoments(size_t depth) : moments(depth) {}

  // A chunk's turn comes, because whoever has one before it is computing it.
  void AwaitTurn(uint32_t chunk) const {
    // Acquire: the sums so far; pairs with the release in EndTurn.
    for (uint32_t now = added.load(std::memory_order_acquire); now != chunk;
         now = added.load(std::memory_order_acquire)) {
      added.wait(now, std::memory_order_acquire);
    }
  }
  void EndTurn() {
    added.fetch_add(1, std::memory_order_release);
    added.notify_all();
  }

  InputMoments moments;
  std::atomic<uint32_t> added{0};  // chunks
};

// All members compute chunks, each a whole one, and add what its products read when the chunk's turn comes. While one
// adds to the sums of a product, others are at other products, so they seldom wait.
class Gathering {
 public:
  Gathering(const std::shared_ptr<const PackedModel>& model, const KernelTable& kernels, const TokenTexts& texts,
            size_t layer_begin, size_t layer_end)
      : model_(model),
        kernels_(kernels),
        texts_(texts),
        layer_begin_(layer_begin),
        depth_max_(RoundedDepthMax(*model)),
        inner_depth_(InputDepth(*model, LinearRole::kFfnOut)) {
    for (size_t i = 0; i < texts.size(); ++i) {
      rows_max_ = std::max(rows_max_, static_cast<size_t>(texts.offsets[i + 1] - texts.offsets[i]));
    }
    chunks_ = CutIntoChunks(texts, rows_max_);
    for (size_t layer = layer_begin; layer < layer_end; ++layer) {
      for (size_t role = 0; role < kLinearRoles; ++role) {
        sums_.push_back(std::make_unique<OrderedMoments>(InputDepth(*model, static_cast<LinearRole>(role))));
      }
    }
  }

  std::vector<LayerMoments> Run(WorkTeam* team) {
    std::vector<std::unique_ptr<Member>> members;
    for (int i = 0; i < team->threads(); ++i) members.push_back(std::make_unique<Member>(*this));
    std::atomic<size_t> next{0};
    team->Run([&](int index) {
      kernels_.prepare_thread();
      // Relaxed: the exchange itself claims the chunk; the end of the run publishes the sums.
      for (size_t i = next.fetch_add(1, std::memory_order_relaxed); i < chunks_.size();
           i = next.fetch_add(1, std::memory_order_relaxed)) {
        members[static_cast<size_t>(index)]->Run(i);
        progress_.Say(i + 1, chunks_.size());
      }
      kernels_.release_thread();
    });
    if (out_of_memory_.load(std::memory_order_relaxed)) throw std::bad_alloc();
    std::vector<LayerMoments> layers;
    for (size_t i = 0; i < sums_.size(); i += kLinearRoles) {
      layers.push_back({std::move(sums_[i]->moments), std::move(sums_[i + 1]->moments),
                        std::move(sums_[i + 2]->moments), std::move(sums_[i + 3]->moments)});
    }
    return layers;
  }

 private:
  static_assert(kLinearRoles == 4);

  // One thread's, with all the memory that it needs.
  class Member {
   public:
    explicit Member(Gathering& gathering)
        : of_(gathering),
          inner_(of_.rows_max_ * of_.depth_max_ * sizeof(float)),
          scratch_(of_.rows_max_ * of_.depth_max_ * sizeof(float)),
          gram_(of_.kernels_, of_.rows_max_, of_.depth_max_),
          pass_(of_.model_, of_.kernels_,
                [this](const ChunkOfTexts& chunk, const LinearInput& input) { Take(chunk, input); }),
          workspace_(pass_.MakeWorkspace(of_.rows_max_)),
          vectors_(of_.rows_max_ * of_.model_->spec.hidden) {
      for (size_t i = 0; i < of_.rows_max_; ++i) outputs_.push_back(vectors_.data() + i * of_.model_->spec.hidden);
    }

    void Run(size_t index) {
      index_ = static_cast<uint32_t>(index);
      const Chunk& texts = of_.chunks_[index];
      ChunkOfTexts chunk;
      chunk.offsets = std::span(of_.texts_.offsets).subspan(texts.begin, texts.end - texts.begin + 1);
      chunk.ids = of_.texts_.ids.data() + chunk.offsets.front();
      chunk.outputs = std::span(outputs_).first(texts.end - texts.begin);
      Steps steps(workspace_.scratch.data());
      pass_.Run(chunk, workspace_, steps);
    }

   private:
    void Take(const ChunkOfTexts& chunk, const LinearInput& input) {
      const size_t product = (input.layer - of_.layer_begin_) * kLinearRoles + static_cast<size_t>(input.role);
      if (input.layer < of_.layer_begin_ || product >= of_.sums_.size()) return;
      const auto* rows = static_cast<const float*>(input.rows);
      size_t stride = input.stride;
      if (input.role == LinearRole::kFfnOut) {
        // The inner width comes in slices; H needs all of it.
        for (size_t r = 0; r < chunk.rows(); ++r) {
          std::copy_n(rows + r * stride, input.columns, inner_.As<float>() + r * of_.depth_max_ + input.column_begin);
        }
        if (input.column_begin + input.columns < of_.inner_depth_) return;
        rows = inner_.As<float>();
        stride = of_.depth_max_;
      }
      OrderedMoments& sums = *of_.sums_[product];
      sums.AwaitTurn(index_);
      try {
        sums.moments.Add(chunk, rows, stride, scratch_.As<float>(), &gram_);
      } catch (const std::bad_alloc&) {  // must neither leave a helper's thread nor keep others waiting
        of_.out_of_memory_.store(true, std::memory_order_relaxed);
      }
      sums.EndTurn();
    }

    Gathering& of_;
    uint32_t index_ = 0;
    AlignedBuffer inner_;  // [rows_max][depth_max]
    AlignedBuffer scratch_;
    Gram gram_;
    const FloatPass pass_;
    const Workspace workspace_;
    std::vector<float> vectors_;
    std::vector<float*> outputs_;
  };

  const std::shared_ptr<const PackedModel>& model_;
  const KernelTable& kernels_;
  const TokenTexts& texts_;
  const size_t layer_begin_;
  const size_t depth_max_;
  const size_t inner_depth_;
  size_t rows_max_ = kRowsAtOnce;
  std::vector<Chunk> chunks_;
  std::vector<std::unique_ptr<OrderedMoments>> sums_;  // [layer][role]
  std::atomic<bool> out_of_memory_{false};
  ProgressLine progress_{"parts of the calibration texts are read"};
};

}  // namespace

std::vector<LayerMoments> GatherMoments(const std::shared_ptr<const PackedModel>& model, const KernelTable& kernels,
                                        const TokenTexts& texts, size_t layer_begin, size_t layer_end, WorkTeam* team) {
  assert(model->element == Element::kF32 && layer_begin < layer_end && layer_end <= model->layers.size());
  return Gathering(model, kernels, texts, layer_begin, layer_end).Run(team);
}

}  // namespace sutra::cpu
