// Embedding, attention, norms and pooling, as calls of a kernel table.
#include "engine/cpu/pass_steps.h"

#include <algorithm>

namespace sutra::cpu {

void EmbedTexts(const KernelTable& kernels, const PackedModel& model, const ChunkOfTexts& chunk, size_t begin,
                size_t end, float* x) {
  for (size_t text = begin; text < end; ++text) {
    EmbedCall call;
    call.ids = chunk.ids + chunk.row(text);
    call.tokens = chunk.tokens(text);
    call.width = model.widths.hidden;
    call.words = model.words;
    call.positions = model.positions.data();
    call.x = x + chunk.row(text) * model.widths.hidden_row;
    call.x_stride = model.widths.hidden_row;
    kernels.embed(call);
  }
}

void AttendPairs(const KernelTable& kernels, const Widths& widths, const ChunkOfTexts& chunk, size_t begin, size_t end,
                 const Workspace& workspace, void* scratch, RowsKept kept) {
  const size_t bytes = ElementBytes(kernels.element);
  const size_t heads = widths.heads;
  for (size_t text = begin / heads; text * heads < end; ++text) {
    AttentionCall call;
    call.qkv = workspace.qkv.As<char>() + chunk.row(text) * widths.qkv_row * bytes;
    call.qkv_stride = widths.qkv_row;
    call.tokens = chunk.tokens(text);
    call.width = widths.context;
    call.head_width = widths.head;
    call.head_begin = std::max(begin, text * heads) - text * heads;
    call.head_end = std::min(end, (text + 1) * heads) - text * heads;
    const bool first_only = kept == RowsKept::kFirstOfEachText;
    call.queries = first_only ? 1 : 0;
    call.context = workspace.elements.As<char>() + (first_only ? text : chunk.row(text)) * widths.context_row * bytes;
    call.context_stride = widths.context_row;
    call.scratch = scratch;
    kernels.attention(call);
  }
}

// In ascending order: a text's number is at most its first row's, so no row is overwritten before it was moved.
void KeepFirstRows(const Widths& widths, const ChunkOfTexts& chunk, float* x) {
  for (size_t text = 1; text < chunk.texts(); ++text) {
    if (chunk.row(text) == text) continue;
    std::copy_n(x + chunk.row(text) * widths.hidden_row, widths.hidden, x + text * widths.hidden_row);
  }
}

void NormalizeRows(const KernelTable& kernels, const PackedModel& model, const PackedNorm& norm,
                   const Workspace& workspace, size_t begin, size_t end) {
  NormalizeCall call;
  call.width = model.widths.hidden;
  call.stride = model.widths.hidden_row;
  call.x = workspace.x.As<float>() + begin * call.stride;
  call.rows = end - begin;
  call.epsilon = model.spec.norm_epsilon;
  call.gain = norm.gain.data();
  call.shift = norm.shift.data();
  call.elements = workspace.elements.As<char>() + begin * call.stride * ElementBytes(kernels.element);
  kernels.normalize(call);
}

void PoolTexts(const KernelTable& kernels, const PackedModel& model, const ChunkOfTexts& chunk, const float* x,
               RowsKept kept) {
  for (size_t text = 0; text < chunk.texts(); ++text) {
    MeanCall call;
    call.x = x + (kept == RowsKept::kFirstOfEachText ? text : chunk.row(text)) * model.widths.hidden_row;
    call.rows = model.spec.pooling == Pooling::kMean ? chunk.tokens(text) : 1;
    call.width = model.widths.hidden;
    call.stride = model.widths.hidden_row;
    call.out = chunk.outputs[text];
    kernels.mean(call);
  }
}

}  // namespace sutra::cpu
