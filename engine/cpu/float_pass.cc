// The layers: products of the packed weights between the steps of pass_steps.h.
#include "engine/cpu/float_pass.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "engine/cpu/pass_steps.h"

namespace sutra::cpu {

FloatPass::FloatPass(std::shared_ptr<const PackedModel> model, const KernelTable& kernels, Watcher watcher)
    : model_(std::move(model)), kernels_(kernels), watcher_(std::move(watcher)) {
  assert(model_->element == kernels_.element);
}

size_t FloatPass::steps() const { return 2 + model_->layers.size() * 7; }

// CLS pooling reads the first row of each text, so after the keys and values of the last layer no other row is needed.
// A watcher sees whole chunks.
RowsKept FloatPass::KeptAfter(size_t layer) const {
  const bool first_only = layer + 1 == model_->layers.size() && model_->spec.pooling == Pooling::kCls && !watcher_;
  return first_only ? RowsKept::kFirstOfEachText : RowsKept::kAll;
}

Workspace FloatPass::MakeWorkspace(size_t rows_max) const {
  const EncoderSpec& spec = model_->spec;
  const Widths& widths = model_->widths;
  const size_t rows = rows_max + kRowPadding;
  const size_t bytes = ElementBytes(kernels_.element);
  Workspace workspace;
  workspace.x = AlignedBuffer(rows * widths.hidden_row * sizeof(float));
  workspace.elements = AlignedBuffer(rows * std::max(widths.hidden_row, widths.context_row) * bytes);
  // Queries, keys and values were all read when the inner activations are written, and the other way round: one buffer
  // for both spares 2 MiB per thread with MiniLM. Every panel of it is written before it is read.
  workspace.qkv = AlignedBuffer(rows * std::max(widths.qkv_row, widths.inner_row) * bytes);
  workspace.inner = workspace.qkv;
  workspace.scratch = AlignedBuffer(AttentionScratchBytes(spec.tokens_max, widths.head));
  return workspace;
}

void FloatPass::Multiply(const PackedLinear& linear, const void* a, size_t a_stride, size_t rows, size_t panel_begin,
                         size_t panel_end, GemmOutput output, void* c, size_t c_stride) const {
  GemmCall call;
  call.a = a;
  call.a_stride = a_stride;
  call.rows = rows;
  call.b = linear.weights.data();
  call.depth = linear.depth;
  call.panel_begin = panel_begin;
  call.panel_end = panel_end;
  call.bias = linear.bias.As<float>();
  call.output = output;
  call.c = c;
  call.c_stride = c_stride;
  call.curve = &model_->curve;
  kernels_.gemm(call);
}

void FloatPass::Watch(const ChunkOfTexts& chunk, const LinearInput& input) const {
  if (watcher_) watcher_(chunk, input);
}

void FloatPass::RunLayer(size_t index, const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const {
  const PackedLayer& layer = model_->layers[index];
  const Widths& widths = model_->widths;
  const size_t slice = model_->slice_width;
  const size_t bytes = ElementBytes(kernels_.element);
  const RowsKept kept = KeptAfter(index);
  const size_t rows = kept == RowsKept::kAll ? chunk.rows() : chunk.texts();  // but for the first product
  void* elements = workspace.elements.data();
  char* inner = workspace.inner.As<char>();

  Watch(chunk, {index, LinearRole::kQkv, elements, widths.hidden_row, 0, layer.qkv.depth});
  steps.Step(layer.qkv.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.qkv, elements, widths.hidden_row, chunk.rows(), begin, end, GemmOutput::kElement,
             workspace.qkv.data(), widths.qkv_row);
  });
  steps.Step(chunk.texts() * widths.heads, [&](size_t begin, size_t end) {
    AttendPairs(kernels_, widths, chunk, begin, end, workspace, steps.scratch(), kept);
  });
  if (kept == RowsKept::kFirstOfEachText) {
    steps.Step(1, [&](size_t, size_t) { KeepFirstRows(widths, chunk, workspace.x.As<float>()); });
  }
  Watch(chunk, {index, LinearRole::kAttentionOut, elements, widths.context_row, 0, layer.attention_out.depth});
  steps.Step(layer.attention_out.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.attention_out, elements, widths.context_row, rows, begin, end, GemmOutput::kAddToF32,
             workspace.x.data(), widths.hidden_row);
  });
  steps.Step(rows, [&](size_t begin, size_t end) {
    NormalizeRows(kernels_, *model_, layer.attention_norm, workspace, begin, end);
  });

  Watch(chunk, {index, LinearRole::kFfnIn, elements, widths.hidden_row, 0, layer.ffn_in.depth});
  const auto expand = [&](size_t begin, size_t end) {
    Multiply(layer.ffn_in, elements, widths.hidden_row, rows, begin, end, GemmOutput::kElementActivated, inner,
             widths.inner_row);
  };
  const auto contract = [&](size_t part, size_t begin, size_t end) {
    Multiply(layer.ffn_out[part], inner + part * slice * bytes, widths.inner_row, rows, begin, end,
             GemmOutput::kAddToF32, workspace.x.data(), widths.hidden_row);
  };
  if (steps.shared()) {
    steps.Step(layer.ffn_in.panels(), expand);
    steps.Step(layer.ffn_out[0].panels(), [&](size_t begin, size_t end) {
      for (size_t part = 0; part < layer.ffn_out.size(); ++part) contract(part, begin, end);
    });
  } else {
    // Slice by slice, so that the inner activations are consumed while they are still in L2.
    const size_t slice_panels = layer.ffn_in.panels() / layer.ffn_out.size();
    for (size_t part = 0; part < layer.ffn_out.size(); ++part) {
      expand(part * slice_panels, (part + 1) * slice_panels);
      Watch(chunk, {index, LinearRole::kFfnOut, inner + part * slice * bytes, widths.inner_row, part * slice, slice});
      contract(part, 0, layer.ffn_out[part].panels());
    }
  }
  steps.Step(
      rows, [&](size_t begin, size_t end) { NormalizeRows(kernels_, *model_, layer.ffn_norm, workspace, begin, end); });
}

void FloatPass::Run(const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const {
  assert(!steps.shared() || !watcher_);
  steps.Step(chunk.texts(), [&](size_t begin, size_t end) {
    EmbedTexts(kernels_, *model_, chunk, begin, end, workspace.x.As<float>());
    NormalizeRows(kernels_, *model_, model_->embedding_norm, workspace, chunk.row(begin), chunk.row(end));
  });
  for (size_t index = 0; index < model_->layers.size(); ++index) RunLayer(index, chunk, workspace, steps);
  const RowsKept kept = model_->layers.empty() ? RowsKept::kAll : KeptAfter(model_->layers.size() - 1);
  if (steps.leads()) PoolTexts(kernels_, *model_, chunk, workspace.x.As<float>(), kept);
}

}  // namespace sutra::cpu
