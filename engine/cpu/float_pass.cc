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

// The product with what `call` says of its rows, panels and output.
void FloatPass::Multiply(const PackedLinear& linear, GemmCall call) const {
  call.b = linear.weights.data();
  call.depth = linear.depth;
  call.bias = linear.bias.As<float>();
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

  // Of a team each member reads other panels of the next product.
  const auto ahead = [&](const PackedLinear& linear, size_t begin, size_t end) -> WeightsAhead {
    if (steps.shared()) return {};
    const size_t panel_bytes = linear.depth * kPanelColumns * bytes;
    return {linear.weights.As<char>() + begin * panel_bytes, end - begin, panel_bytes, panel_bytes};
  };
  const auto whole = [&](const PackedLinear& linear) { return ahead(linear, 0, linear.panels()); };

  Watch(chunk, {index, LinearRole::kQkv, elements, widths.hidden_row, 0, layer.qkv.depth});
  steps.Step(layer.qkv.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.qkv, {.a = elements,
                         .a_stride = widths.hidden_row,
                         .rows = chunk.rows(),
                         .next = whole(layer.attention_out),
                         .panel_begin = begin,
                         .panel_end = end,
                         .output = GemmOutput::kElement,
                         .c = workspace.qkv.data(),
                         .c_stride = widths.qkv_row});
  });
  steps.Step(chunk.texts() * widths.heads, [&](size_t begin, size_t end) {
    AttendPairs(kernels_, widths, chunk, begin, end, workspace, steps.scratch(), kept);
  });
  if (kept == RowsKept::kFirstOfEachText) {
    steps.Step(1, [&](size_t, size_t) { KeepFirstRows(widths, chunk, workspace.x.As<float>()); });
  }
  const size_t slice_panels = layer.ffn_in.panels() / layer.ffn_out.size();
  Watch(chunk, {index, LinearRole::kAttentionOut, elements, widths.context_row, 0, layer.attention_out.depth});
  steps.Step(layer.attention_out.panels(), [&](size_t begin, size_t end) {
    Multiply(layer.attention_out, {.a = elements,
                                   .a_stride = widths.context_row,
                                   .rows = rows,
                                   .next = ahead(layer.ffn_in, 0, slice_panels),
                                   .panel_begin = begin,
                                   .panel_end = end,
                                   .output = GemmOutput::kAddToF32,
                                   .c = workspace.x.data(),
                                   .c_stride = widths.hidden_row});
  });
  steps.Step(rows, [&](size_t begin, size_t end) {
    NormalizeRows(kernels_, *model_, layer.attention_norm, workspace, begin, end);
  });

  Watch(chunk, {index, LinearRole::kFfnIn, elements, widths.hidden_row, 0, layer.ffn_in.depth});
  const auto expand = [&](size_t begin, size_t end, const WeightsAhead& next) {
    Multiply(layer.ffn_in, {.a = elements,
                            .a_stride = widths.hidden_row,
                            .rows = rows,
                            .next = next,
                            .panel_begin = begin,
                            .panel_end = end,
                            .output = GemmOutput::kElementActivated,
                            .c = inner,
                            .c_stride = widths.inner_row});
  };
  const auto contract = [&](size_t part, size_t begin, size_t end, const WeightsAhead& next) {
    Multiply(layer.ffn_out[part], {.a = inner + part * slice * bytes,
                                   .a_stride = widths.inner_row,
                                   .rows = rows,
                                   .next = next,
                                   .panel_begin = begin,
                                   .panel_end = end,
                                   .output = GemmOutput::kAddToF32,
                                   .c = workspace.x.data(),
                                   .c_stride = widths.hidden_row});
  };
  if (steps.shared()) {
    steps.Step(layer.ffn_in.panels(), [&](size_t begin, size_t end) { expand(begin, end, {}); });
    steps.Step(layer.ffn_out[0].panels(), [&](size_t begin, size_t end) {
      for (size_t part = 0; part < layer.ffn_out.size(); ++part) contract(part, begin, end, {});
    });
  } else {
    // Slice by slice, so that the inner activations are consumed while they are still in L2.
    const size_t last = layer.ffn_out.size() - 1;
    const WeightsAhead after =
        index + 1 < model_->layers.size() ? whole(model_->layers[index + 1].qkv) : WeightsAhead();
    for (size_t part = 0; part <= last; ++part) {
      expand(part * slice_panels, (part + 1) * slice_panels, whole(layer.ffn_out[part]));
      Watch(chunk, {index, LinearRole::kFfnOut, inner + part * slice * bytes, widths.inner_row, part * slice, slice});
      contract(part, 0, layer.ffn_out[part].panels(),
               part < last ? ahead(layer.ffn_in, (part + 1) * slice_panels, (part + 2) * slice_panels) : after);
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
