// The layers, and how a chunk's rows are arranged for them.
#include "engine/cpu/int8/int8_pass.h"

#include <algorithm>
#include <cassert>
#include <utility>
#include <vector>

#include "engine/cpu/pass_steps.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {
namespace {

bool IsShort(const ChunkOfTexts& chunk, size_t text) { return chunk.tokens(text) <= kTwoTermTokensMax; }

// A chunk with its short texts behind the others, so that rows of two terms are neighbours. Every member of a team
// arranges for itself, and the same.
class Arrangement {
 public:
  explicit Arrangement(const ChunkOfTexts& chunk) : chunk_(chunk), two_term_begin_(chunk.rows()) {
    size_t short_texts = 0;
    for (size_t text = 0; text < chunk.texts(); ++text) short_texts += IsShort(chunk, text) ? 1 : 0;
    short_begin_ = chunk.texts() - short_texts;
    if (short_texts == 0) return;
    if (short_texts == chunk.texts()) {
      two_term_begin_ = 0;
      return;
    }
    offsets_.push_back(0);
    for (const bool short_ones : {false, true}) {
      if (short_ones) two_term_begin_ = ids_.size();
      for (size_t text = 0; text < chunk.texts(); ++text) {
        if (IsShort(chunk, text) != short_ones) continue;
        const int32_t* ids = chunk.ids + chunk.row(text);
        ids_.insert(ids_.end(), ids, ids + chunk.tokens(text));
        offsets_.push_back(static_cast<int32_t>(ids_.size()));
        outputs_.push_back(chunk.outputs[text]);
      }
    }
    chunk_ = {ids_.data(), offsets_, outputs_};
  }
  Arrangement(const Arrangement&) = delete;
  Arrangement& operator=(const Arrangement&) = delete;

  const ChunkOfTexts& chunk() const { return chunk_; }
  size_t two_term_begin() const { return two_term_begin_; }  // a row
  size_t short_begin() const { return short_begin_; }        // a text

 private:
  std::vector<int32_t> ids_;
  std::vector<int32_t> offsets_;
  std::vector<float*> outputs_;
  ChunkOfTexts chunk_;
  size_t two_term_begin_;
  size_t short_begin_;
};

// Memory for rows of up to some depth, and a view of it for one product.
struct RowsMemory {
  uint8_t* values;
  uint8_t* remainders;
  float* scale;

  QuantisedRows View(size_t depth, size_t block, size_t two_term_begin) const {
    return {values, remainders, depth, scale, depth / block, two_term_begin};
  }
};

QuantisedRows RowsFrom(QuantisedRows rows, size_t begin) {
  rows.values += begin * rows.stride;
  rows.remainders += begin * rows.stride;
  rows.scale += begin * rows.blocks;
  rows.two_term_begin -= std::min(rows.two_term_begin, begin);
  return rows;
}

QuantisedRows BlockOf(QuantisedRows rows, size_t index, size_t block) {
  rows.values += index * block;
  rows.remainders += index * block;
  rows.scale += index;
  return rows;
}

Quantisation BlockOf(Quantisation how, size_t index) {
  how.inverse_smooth += index * how.block;
  for (const float*& shift : how.shift) shift += index * how.block;
  how.depth = how.block;
  return how;
}

// Bytes of RowsMemory for `rows` rows; a multiple of 64, as all its parts are.
size_t ValueBytes(size_t rows, size_t depth) { return RoundUp((rows + kRowPadding) * depth, 64); }
size_t ScaleBytes(size_t rows, size_t depth) { return RoundUp(rows * (depth / 64) * sizeof(float), 64); }
size_t RowsBytes(size_t rows, size_t depth) { return 2 * ValueBytes(rows, depth) + ScaleBytes(rows, depth); }

RowsMemory RowsMemoryAt(char* memory, size_t rows, size_t depth) {
  auto* values = static_cast<uint8_t*>(static_cast<void*>(memory));
  auto* remainders = values + ValueBytes(rows, depth);
  void* scale = remainders + ValueBytes(rows, depth);
  return {values, remainders, static_cast<float*>(scale)};
}

const QuantisedLinear& Linear(const QuantisedLayer& layer, LinearRole role) { return layer[static_cast<size_t>(role)]; }

// The product of blocks [block_begin, block_end) of a linear's inputs; rows are at the first of them.
Int8GemmCall Product(const QuantisedLinear& linear, size_t block_begin, size_t block_end) {
  const size_t width = linear.panels() * kPanelColumns;
  Int8GemmCall call;
  call.b = linear.weights.As<int8_t>() + block_begin * linear.block * kPanelColumns;
  call.b_panel_stride = linear.depth * kPanelColumns;
  call.depth = (block_end - block_begin) * linear.block;
  call.block = linear.block;
  call.columns = linear.columns;
  call.scale = linear.scale.As<float>();
  call.offsets = linear.offsets.As<int32_t>() + block_begin * width;
  call.offsets_stride = width;
  for (size_t c = 0; c < kRowClasses && block_begin == 0; ++c) call.bias[c] = linear.bias[c].As<float>();
  return call;
}

Int8GemmCall Whole(const QuantisedLinear& linear) { return Product(linear, 0, linear.depth / linear.block); }

// So that the first `panels` of what comes next are fetched while this is computed.
Int8GemmCall Before(Int8GemmCall call, const Int8GemmCall& next, size_t panels) {
  call.next = {next.b, panels, next.depth * kPanelColumns, next.b_panel_stride};
  return call;
}

// The product with its first panels left out, so that c begins with the column of panel `first`.
Int8GemmCall FromPanel(Int8GemmCall call, size_t first) {
  const size_t column = first * kPanelColumns;
  call.b += first * call.b_panel_stride;
  call.columns -= column;
  call.scale += column;
  call.offsets += column;
  for (const float*& bias : call.bias) bias += column;
  return call;
}

}  // namespace

// One chunk on its way.
struct Int8Pass::Job {
  const ChunkOfTexts& chunk;
  const Workspace& workspace;
  size_t rows;
  size_t two_term_begin;
  uint8_t* classes;   // [rows]
  RowsMemory inputs;  // of the products that read what a norm or attention wrote
  RowsMemory inner;   // of the feed-forward's second product
  RowsKept kept = RowsKept::kAll;

  QuantisedRows InputsOf(const QuantisedLinear& linear) const {
    return inputs.View(linear.depth, linear.block, two_term_begin);
  }
};

Int8Pass::Int8Pass(std::shared_ptr<const QuantisedModel> model, const KernelTable& kernels)
    : model_(std::move(model)), kernels_(kernels) {
  assert(kernels_.int8 != nullptr);
  assert(model_->rest->element == kernels_.element);
  assert(model_->layers.size() == model_->rest->layers.size());
  for (const QuantisedLayer& layer : model_->layers) {
    for (const LinearRole role : {LinearRole::kQkv, LinearRole::kAttentionOut, LinearRole::kFfnIn}) {
      input_depth_ = std::max(input_depth_, Linear(layer, role).depth);
    }
    inner_depth_ = std::max(inner_depth_, Linear(layer, LinearRole::kFfnOut).depth);
    assert(Linear(layer, LinearRole::kFfnIn).panels() * kPanelColumns == Linear(layer, LinearRole::kFfnOut).depth);
  }
}

size_t Int8Pass::steps() const { return 2 + model_->layers.size() * 9; }

Workspace Int8Pass::MakeWorkspace(size_t rows_max) const {
  const PackedModel& rest = *model_->rest;
  const Widths& widths = rest.widths;
  const size_t rows = rows_max + kRowPadding;
  const size_t bytes = ElementBytes(kernels_.element);
  Workspace workspace;
  workspace.x = AlignedBuffer(rows * widths.hidden_row * sizeof(float));
  workspace.elements = AlignedBuffer(rows * std::max({widths.hidden_row, widths.context_row, input_depth_}) * bytes);
  workspace.qkv = AlignedBuffer(rows * widths.qkv_row * bytes);
  workspace.inner = AlignedBuffer(rows * std::max(widths.inner_row, inner_depth_) * bytes);
  workspace.scratch = AlignedBuffer(AttentionScratchBytes(rest.spec.tokens_max, widths.head));
  workspace.quantised =
      AlignedBuffer(RowsBytes(rows_max, input_depth_) + RowsBytes(rows_max, inner_depth_) + RoundUp(rows_max, 64));
  return workspace;
}

void Int8Pass::Multiply(const Job& job, Int8GemmCall call, const QuantisedRows& rows, GemmOutput output, void* c,
                        size_t c_stride, size_t panel_begin, size_t panel_end) const {
  call.a = rows;
  call.rows = job.rows;
  call.classes = job.classes;
  call.panel_begin = panel_begin;
  call.panel_end = panel_end;
  call.output = output;
  call.c = c;
  call.c_stride = c_stride;
  call.curve = &model_->rest->curve;
  kernels_.int8->gemm(call);
}

void Int8Pass::Quantise(const Job& job, const void* elements, size_t stride, const Quantisation& how,
                        const QuantisedRows& rows, size_t begin, size_t end) const {
  QuantiseCall call;
  call.x = static_cast<const char*>(elements) + begin * stride * ElementBytes(kernels_.element);
  call.x_stride = stride;
  call.rows = end - begin;
  call.classes = job.classes + begin;
  call.how = how;
  call.out = RowsFrom(rows, begin);
  kernels_.int8->quantise(call);
}

void Int8Pass::Normalize(const Job& job, const PackedNorm& norm, const QuantisedLinear& reader, size_t begin,
                         size_t end) const {
  const Widths& widths = model_->rest->widths;
  NormalizeQuantiseCall call;
  call.norm.x = job.workspace.x.As<float>() + begin * widths.hidden_row;
  call.norm.rows = end - begin;
  call.norm.width = widths.hidden;
  call.norm.stride = widths.hidden_row;
  call.norm.epsilon = model_->rest->spec.norm_epsilon;
  call.norm.gain = norm.gain.data();
  call.norm.shift = norm.shift.data();
  call.classes = job.classes + begin;
  call.how = reader.how();
  call.out = RowsFrom(job.InputsOf(reader), begin);
  kernels_.int8->normalize_quantise(call);
}

void Int8Pass::RunAttention(size_t index, const Job& job, const Job& after, Steps& steps) const {
  const PackedModel& rest = *model_->rest;
  const Widths& widths = rest.widths;
  const QuantisedLinear& qkv = Linear(model_->layers[index], LinearRole::kQkv);
  const QuantisedLinear& out = Linear(model_->layers[index], LinearRole::kAttentionOut);
  const QuantisedLinear& ffn_in = Linear(model_->layers[index], LinearRole::kFfnIn);
  const size_t ffn_in_panels = Linear(model_->layers[index], LinearRole::kFfnOut).block / kPanelColumns;
  // Of a team each member reads other panels of the next product; where they begin is all that is known.
  const auto ahead = [&](size_t panels) { return steps.shared() ? 1 : panels; };
  steps.Step(qkv.panels(), [&](size_t begin, size_t end) {
    Multiply(job, Before(Whole(qkv), Whole(out), ahead(out.panels())), job.InputsOf(qkv), GemmOutput::kElement,
             job.workspace.qkv.data(), widths.qkv_row, begin, end);
  });
  steps.Step(job.chunk.texts() * widths.heads, [&](size_t begin, size_t end) {
    AttendPairs(kernels_, widths, job.chunk, begin, end, job.workspace, steps.scratch(), after.kept);
  });
  if (after.kept == RowsKept::kFirstOfEachText) {
    steps.Step(1, [&](size_t, size_t) {
      KeepFirstRows(widths, job.chunk, job.workspace.x.As<float>());
      std::fill_n(after.classes, after.rows, uint8_t{0});
    });
  }
  steps.Step(after.rows, [&](size_t begin, size_t end) {
    Quantise(after, job.workspace.elements.data(), widths.context_row, out.how(), after.InputsOf(out), begin, end);
  });
  steps.Step(out.panels(), [&](size_t begin, size_t end) {
    Multiply(after, Before(Whole(out), Whole(ffn_in), ahead(ffn_in_panels)), after.InputsOf(out), GemmOutput::kAddToF32,
             job.workspace.x.data(), widths.hidden_row, begin, end);
  });
}

void Int8Pass::RunFeedForward(size_t index, const Job& job, Steps& steps) const {
  const Widths& widths = model_->rest->widths;
  const QuantisedLinear& in = Linear(model_->layers[index], LinearRole::kFfnIn);
  const QuantisedLinear& out = Linear(model_->layers[index], LinearRole::kFfnOut);
  const size_t blocks = out.depth / out.block;
  void* inner = job.workspace.inner.data();
  // Block by block into the residual stream, in both cases: how a chunk is divided must not change a sum.
  if (steps.shared()) {
    const QuantisedRows rows = job.inner.View(out.depth, out.block, job.two_term_begin);
    steps.Step(in.panels(), [&](size_t begin, size_t end) {
      Multiply(job, Whole(in), job.InputsOf(in), GemmOutput::kElementActivated, inner, out.depth, begin, end);
    });
    steps.Step(job.rows,
               [&](size_t begin, size_t end) { Quantise(job, inner, out.depth, out.how(), rows, begin, end); });
    steps.Step(out.panels(), [&](size_t begin, size_t end) {
      for (size_t block = 0; block < blocks; ++block) {
        Multiply(job, Product(out, block, block + 1), BlockOf(rows, block, out.block), GemmOutput::kAddToF32,
                 job.workspace.x.data(), widths.hidden_row, begin, end);
      }
    });
    return;
  }
  // One block of the inner width at a time, so that its activations are consumed while they are in L2.
  const QuantisedRows rows = job.inner.View(out.block, out.block, job.two_term_begin);
  const size_t block_panels = out.block / kPanelColumns;
  const Int8GemmCall expand = Whole(in);
  const bool last_layer = index + 1 == model_->layers.size();
  const Int8GemmCall after = last_layer ? Int8GemmCall() : Whole(Linear(model_->layers[index + 1], LinearRole::kQkv));
  for (size_t block = 0; block < blocks; ++block) {
    const Int8GemmCall contract = Product(out, block, block + 1);
    Multiply(job, Before(FromPanel(expand, block * block_panels), contract, out.panels()), job.InputsOf(in),
             GemmOutput::kElementActivated, inner, out.block, 0, block_panels);
    Quantise(job, inner, out.block, BlockOf(out.how(), block), rows, 0, job.rows);
    const bool last = block + 1 == blocks;
    const Int8GemmCall next = last ? after : FromPanel(expand, (block + 1) * block_panels);
    const size_t next_panels = last ? DivideRoundUp(after.columns, kPanelColumns) : block_panels;
    Multiply(job, Before(contract, next, next_panels), rows, GemmOutput::kAddToF32, job.workspace.x.data(),
             widths.hidden_row, 0, out.panels());
  }
}

void Int8Pass::Run(const ChunkOfTexts& given, const Workspace& workspace, Steps& steps) const {
  const PackedModel& rest = *model_->rest;
  const Arrangement arranged(given);
  const ChunkOfTexts& chunk = arranged.chunk();
  const size_t rows = chunk.rows();
  char* memory = workspace.quantised.As<char>();
  char* inner = memory + RowsBytes(rows, input_depth_);
  void* classes = inner + RowsBytes(rows, inner_depth_);
  const Job job = {chunk,
                   workspace,
                   rows,
                   arranged.two_term_begin(),
                   static_cast<uint8_t*>(classes),
                   RowsMemoryAt(memory, rows, input_depth_),
                   RowsMemoryAt(inner, rows, inner_depth_)};
  steps.Step(chunk.texts(), [&](size_t begin, size_t end) {
    EmbedTexts(kernels_, rest, chunk, begin, end, workspace.x.As<float>());
    std::fill(job.classes + chunk.row(begin), job.classes + chunk.row(end), uint8_t{1});
    for (size_t text = begin; text < end; ++text) job.classes[chunk.row(text)] = 0;
    Normalize(job, rest.embedding_norm, Linear(model_->layers.front(), LinearRole::kQkv), chunk.row(begin),
              chunk.row(end));
  });
  // CLS pooling reads the first row of each text, so after the keys and values of the last layer no other is needed.
  Job pooled = job;
  if (rest.spec.pooling == Pooling::kCls) {
    pooled.kept = RowsKept::kFirstOfEachText;
    pooled.rows = chunk.texts();
    pooled.two_term_begin = arranged.short_begin();
  }
  const size_t layers = model_->layers.size();
  for (size_t index = 0; index < layers; ++index) {
    const Job& after = index + 1 < layers ? job : pooled;
    RunAttention(index, job, after, steps);
    steps.Step(after.rows, [&](size_t begin, size_t end) {
      Normalize(after, rest.layers[index].attention_norm, Linear(model_->layers[index], LinearRole::kFfnIn), begin,
                end);
    });
    RunFeedForward(index, after, steps);
    steps.Step(after.rows, [&](size_t begin, size_t end) {
      const PackedNorm& norm = rest.layers[index].ffn_norm;
      if (index + 1 < layers) {
        Normalize(job, norm, Linear(model_->layers[index + 1], LinearRole::kQkv), begin, end);
      } else {
        NormalizeRows(kernels_, rest, norm, workspace, begin, end);
      }
    });
  }
  if (steps.leads()) PoolTexts(kernels_, rest, chunk, workspace.x.As<float>(), pooled.kept);
}

}  // namespace sutra::cpu
