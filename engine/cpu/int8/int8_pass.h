// The forward pass with int8 products: inputs of every product are quantised row by row (int8_kernels.h), sums and
// residuals stay fp32, attention and activations work on the kernels' elements.
//
// Thread rule: as ForwardPass.
// Invariants:
// - Texts of at most kTwoTermTokensMax tokens are multiplied with two-term rows; that depends on the text alone, so a
//   text's vector does not depend on its batch.
// - An activation that is not finite makes the text's vector not finite.
#pragma once

#include <memory>

#include "engine/cpu/forward_pass.h"
#include "engine/cpu/int8/quantised_model.h"

namespace sutra::cpu {

// Three pieces between the first and the last token: a text of fewer rows has few rounding errors to average. Measured:
// below 5 the smallest cosine against fp32 falls under 0.999.
inline constexpr size_t kTwoTermTokensMax = 5;

class Int8Pass final : public ForwardPass {
 public:
  // REQUIRES kernels.int8 != nullptr, and the model's elements are the kernels'.
  Int8Pass(std::shared_ptr<const QuantisedModel> model, const KernelTable& kernels);

  const EncoderSpec& spec() const override { return model_->rest->spec; }
  const KernelTable& kernels() const override { return kernels_; }
  size_t steps() const override;
  Workspace MakeWorkspace(size_t rows_max) const override;
  void Run(const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const override;

 private:
  struct Job;  // one chunk on its way

  void Multiply(const Job& job, Int8GemmCall call, const QuantisedRows& rows, GemmOutput output, void* c,
                size_t c_stride, size_t panel_begin, size_t panel_end) const;
  void Quantise(const Job& job, const void* elements, size_t stride, const Quantisation& how, const QuantisedRows& rows,
                size_t begin, size_t end) const;
  // The norm of rows [begin, end), quantised for the product that reads it.
  void Normalize(const Job& job, const PackedNorm& norm, const QuantisedLinear& reader, size_t begin, size_t end) const;
  // `after`: the rows that the layer goes on with once attention has read all of them.
  void RunAttention(size_t layer, const Job& job, const Job& after, Steps& steps) const;
  void RunFeedForward(size_t layer, const Job& job, Steps& steps) const;

  std::shared_ptr<const QuantisedModel> model_;
  const KernelTable& kernels_;
  size_t input_depth_ = 0;  // of the deepest product that reads what a norm or attention wrote
  size_t inner_depth_ = 0;
};

}  // namespace sutra::cpu
