// The forward pass over packed rows, on one thread or divided among the members of a team.
#include "engine/cpu/cpu_encoder.h"

#include <algorithm>
#include <cmath>

#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

// A step has more parts than the team has members, so that a late or slowed-down member takes fewer of them.
constexpr size_t kPartsPerMember = 3;

// Chunks no larger than this share of an even split keep all members busy until the end.
constexpr double kUnevenMax = 1.3;

}  // namespace

// Runs every step as a whole, on the calling thread.
class CpuEncoder::Solo {
 public:
  explicit Solo(void* scratch) : scratch_(scratch) {}
  static constexpr bool kShared = false;
  void* scratch() const { return scratch_; }
  bool leads() const { return true; }
  template <typename Work>
  void Step(size_t count, const Work& work) {
    work(0, count);
  }

 private:
  void* scratch_;
};

// Runs every step in parts, which all members of the team draw.
class CpuEncoder::Shared {
 public:
  Shared(SharedSteps& steps, size_t parts, bool leads, void* scratch)
      : steps_(steps), parts_(parts), leads_(leads), scratch_(scratch) {}
  static constexpr bool kShared = true;
  void* scratch() const { return scratch_; }
  bool leads() const { return leads_; }
  template <typename Work>
  void Step(size_t count, const Work& work) {
    steps_.Step(next_++, count, parts_, work);
  }

 private:
  SharedSteps& steps_;
  size_t parts_;
  bool leads_;
  void* scratch_;
  size_t next_ = 0;
};

CpuEncoder::CpuEncoder(std::shared_ptr<const PackedModel> model, const KernelTable& kernels, int threads)
    : model_(std::move(model)), kernels_(kernels), team_(std::max(threads, 1)) {
  assert(model_->element == kernels_.element);
  const EncoderSpec& spec = model_->spec;
  assert(Supports(kernels_, spec));
  rows_max_ = std::max<size_t>(kernels_.chunk_tokens, spec.tokens_max);
  const size_t rows = rows_max_ + kRowPadding;
  const size_t bytes = ElementBytes(kernels_.element);
  for (int member = 0; member < team_.threads(); ++member) {
    Workspace workspace;
    workspace.x = AlignedBuffer(rows * spec.hidden * sizeof(float));
    workspace.elements = AlignedBuffer(rows * spec.hidden * bytes);
    workspace.qkv = AlignedBuffer(rows * 3 * spec.hidden * bytes);
    workspace.inner = AlignedBuffer(rows * spec.intermediate * bytes);
    workspace.scratch = AlignedBuffer(AttentionScratchBytes(spec.tokens_max, spec.head_width()));
    workspaces_.push_back(std::move(workspace));
  }
}

Status CpuEncoder::Encode(const TokenBatch& batch, std::span<float* const> outputs) {
  const size_t members = static_cast<size_t>(team_.threads());
  const size_t tokens = batch.ids.size();
  const size_t even = std::min(rows_max_, std::max<size_t>(1, DivideRoundUp(tokens, members)));
  const bool balanced = CutIntoChunks(batch, std::min(kernels_.chunk_tokens, even));
  if (members == 1 || (chunks_.size() >= members && balanced)) {
    std::atomic<size_t> next{0};
    team_.Run([&](int member) {
      kernels_.prepare_thread();
      const Workspace& workspace = workspaces_[static_cast<size_t>(member)];
      Solo steps(workspace.scratch.data());
      // Relaxed: the exchange itself claims the chunk; the end of the team's run publishes the outputs.
      for (size_t i = next.fetch_add(1, std::memory_order_relaxed); i < chunks_.size();
           i = next.fetch_add(1, std::memory_order_relaxed)) {
        RunChunk(batch, chunks_[i], workspace, steps, outputs);
      }
      kernels_.release_thread();
    });
  } else {
    (void)CutIntoChunks(batch, kernels_.chunk_tokens);
    for (const Chunk& chunk : chunks_) {
      shared_steps_.Reset(StepsInChunk());
      team_.Run([&](int member) {
        kernels_.prepare_thread();
        Shared steps(shared_steps_, members * kPartsPerMember, member == 0,
                     workspaces_[static_cast<size_t>(member)].scratch.data());
        RunChunk(batch, chunk, workspaces_[0], steps, outputs);
        kernels_.release_thread();
      });
    }
  }
  return Status();
}

// Puts whole texts, in order, into chunks until each is full. False if a chunk is much larger than asked for.
bool CpuEncoder::CutIntoChunks(const TokenBatch& batch, size_t tokens_per_chunk) {
  chunks_.clear();
  size_t largest = 0;
  for (uint32_t text = 0; text < batch.texts();) {
    Chunk chunk{text, text + 1};
    const int32_t begin = batch.offsets[text];
    while (chunk.text_end < batch.texts() &&
           static_cast<size_t>(batch.offsets[chunk.text_end + 1] - begin) <= tokens_per_chunk) {
      ++chunk.text_end;
    }
    largest = std::max(largest, static_cast<size_t>(batch.offsets[chunk.text_end] - begin));
    chunks_.push_back(chunk);
    text = chunk.text_end;
  }
  return static_cast<double>(largest) <= kUnevenMax * static_cast<double>(tokens_per_chunk);
}

size_t CpuEncoder::StepsInChunk() const { return 1 + model_->layers.size() * 7; }

void CpuEncoder::Multiply(const PackedLinear& linear, const void* a, size_t a_stride, size_t rows, size_t panel_begin,
                          size_t panel_end, GemmOutput output, void* c, size_t c_stride) const {
  GemmCall call;
  call.a = a;
  call.a_stride = a_stride;
  call.rows = rows;
  call.b = linear.weights.data();
  call.depth = linear.depth;
  call.columns = linear.columns;
  call.panel_begin = panel_begin;
  call.panel_end = panel_end;
  call.bias = linear.bias.As<float>();
  call.output = output;
  call.c = c;
  call.c_stride = c_stride;
  call.curve = &model_->curve;
  kernels_.gemm(call);
}

void CpuEncoder::Normalize(const PackedNorm& norm, const Workspace& workspace, size_t begin, size_t end) const {
  NormalizeCall call;
  call.width = model_->spec.hidden;
  call.x = workspace.x.As<float>() + begin * call.width;
  call.rows = end - begin;
  call.epsilon = model_->spec.norm_epsilon;
  call.gain = norm.gain.data();
  call.shift = norm.shift.data();
  call.elements = workspace.elements.As<char>() + begin * call.width * ElementBytes(kernels_.element);
  kernels_.normalize(call);
}

// Computes the pairs (text, head) with numbers [begin, end); the heads of one text are neighbours.
void CpuEncoder::Attend(std::span<const int32_t> offsets, size_t begin, size_t end, const Workspace& workspace,
                        void* scratch) const {
  const size_t heads = model_->spec.heads;
  const size_t hidden = model_->spec.hidden;
  const size_t bytes = ElementBytes(kernels_.element);
  for (size_t text = begin / heads; text * heads < end; ++text) {
    const auto row = static_cast<size_t>(offsets[text] - offsets[0]);
    AttentionCall call;
    call.qkv = workspace.qkv.As<char>() + row * 3 * hidden * bytes;
    call.tokens = static_cast<size_t>(offsets[text + 1] - offsets[text]);
    call.hidden = hidden;
    call.head_width = hidden / heads;
    call.head_begin = std::max(begin, text * heads) - text * heads;
    call.head_end = std::min(end, (text + 1) * heads) - text * heads;
    call.context = workspace.elements.As<char>() + row * hidden * bytes;
    call.scratch = scratch;
    kernels_.attention(call);
  }
}

template <class Steps>
void CpuEncoder::RunLayer(const PackedLayer& layer, std::span<const int32_t> offsets, size_t rows,
                          const Workspace& workspace, Steps& steps) const {
  const size_t hidden = model_->spec.hidden;
  const size_t inner = model_->spec.intermediate;
  const size_t slice = model_->slice_width;
  const size_t bytes = ElementBytes(kernels_.element);
  void* elements = workspace.elements.data();
  char* inner_elements = workspace.inner.As<char>();

  steps.Step(layer.qkv.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.qkv, elements, hidden, rows, begin, end, GemmOutput::kElement, workspace.qkv.data(), 3 * hidden);
  });
  steps.Step((offsets.size() - 1) * model_->spec.heads,
             [&](size_t begin, size_t end) { Attend(offsets, begin, end, workspace, steps.scratch()); });
  steps.Step(layer.attention_out.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.attention_out, elements, hidden, rows, begin, end, GemmOutput::kAddToF32, workspace.x.data(),
             hidden);
  });
  steps.Step(rows, [&](size_t begin, size_t end) { Normalize(layer.attention_norm, workspace, begin, end); });

  const auto expand = [&](size_t begin, size_t end) {
    Multiply(layer.ffn_in, elements, hidden, rows, begin, end, GemmOutput::kElementActivated, inner_elements, inner);
  };
  const auto contract = [&](size_t index, size_t begin, size_t end) {
    Multiply(layer.ffn_out[index], inner_elements + index * slice * bytes, inner, rows, begin, end,
             GemmOutput::kAddToF32, workspace.x.data(), hidden);
  };
  if constexpr (Steps::kShared) {
    steps.Step(layer.ffn_in.panels(), expand);
    steps.Step(layer.ffn_out[0].panels(), [&](size_t begin, size_t end) {
      for (size_t index = 0; index < layer.ffn_out.size(); ++index) contract(index, begin, end);
    });
  } else {
    // Slice by slice, so that the inner activations are consumed while they are still in L2.
    const size_t slice_panels = layer.ffn_in.panels() / layer.ffn_out.size();
    for (size_t index = 0; index < layer.ffn_out.size(); ++index) {
      expand(index * slice_panels, (index + 1) * slice_panels);
      contract(index, 0, layer.ffn_out[index].panels());
    }
  }
  steps.Step(rows, [&](size_t begin, size_t end) { Normalize(layer.ffn_norm, workspace, begin, end); });
}

template <class Steps>
void CpuEncoder::RunChunk(const TokenBatch& batch, const Chunk& chunk, const Workspace& workspace, Steps& steps,
                          std::span<float* const> outputs) const {
  const size_t hidden = model_->spec.hidden;
  const auto offsets = batch.offsets.subspan(chunk.text_begin, chunk.text_end - chunk.text_begin + 1);
  const auto rows = static_cast<size_t>(offsets.back() - offsets.front());
  assert(rows <= rows_max_);
  steps.Step(offsets.size() - 1, [&](size_t begin, size_t end) {
    for (size_t text = begin; text < end; ++text) {
      const auto row = static_cast<size_t>(offsets[text] - offsets[0]);
      EmbedCall call;
      call.ids = batch.ids.data() + offsets[text];
      call.tokens = static_cast<size_t>(offsets[text + 1] - offsets[text]);
      call.width = hidden;
      call.words = model_->words;
      call.positions = model_->positions.data();
      call.x = workspace.x.As<float>() + row * hidden;
      kernels_.embed(call);
      Normalize(model_->embedding_norm, workspace, row, row + call.tokens);
    }
  });
  for (const PackedLayer& layer : model_->layers) RunLayer(layer, offsets, rows, workspace, steps);
  if (steps.leads()) {
    Pool(workspace.x.As<float>(), offsets, outputs.subspan(chunk.text_begin, chunk.text_end - chunk.text_begin));
  }
}

void CpuEncoder::Pool(const float* x, std::span<const int32_t> offsets, std::span<float* const> outputs) const {
  const size_t hidden = model_->spec.hidden;
  for (size_t text = 0; text + 1 < offsets.size(); ++text) {
    const float* first = x + static_cast<size_t>(offsets[text] - offsets[0]) * hidden;
    const auto rows = static_cast<size_t>(offsets[text + 1] - offsets[text]);
    kernels_.mean(first, model_->spec.pooling == Pooling::kMean ? rows : 1, hidden, outputs[text]);
  }
}

}  // namespace sutra::cpu
