// The forward pass with fp32 or bf16 products.
// Thread rule: as ForwardPass. A watched pass (calibration, tests) calls the watcher on the thread that runs a chunk.
#pragma once

#include <functional>
#include <memory>

#include "engine/cpu/forward_pass.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/pass_steps.h"

namespace sutra::cpu {

// The four products of a layer; feed-forward in and out are those of the inner width.
enum class LinearRole : uint8_t { kQkv, kAttentionOut, kFfnIn, kFfnOut };
inline constexpr size_t kLinearRoles = 4;

// What a product is about to read: the first of them belongs to the first token of chunk's first text.
struct LinearInput {
  size_t layer = 0;
  LinearRole role = LinearRole::kQkv;
  const void* rows = nullptr;  // elements
  size_t stride = 0;
  size_t column_begin = 0;  // of the product's inputs: kFfnOut comes in slices of the inner width
  size_t columns = 0;
};

class FloatPass final : public ForwardPass {
 public:
  using Watcher = std::function<void(const ChunkOfTexts&, const LinearInput&)>;

  FloatPass(std::shared_ptr<const PackedModel> model, const KernelTable& kernels) : FloatPass(model, kernels, {}) {}
  // REQUIRES of a watched pass: unshared steps.
  FloatPass(std::shared_ptr<const PackedModel> model, const KernelTable& kernels, Watcher watcher);

  const EncoderSpec& spec() const override { return model_->spec; }
  const KernelTable& kernels() const override { return kernels_; }
  size_t steps() const override;
  Workspace MakeWorkspace(size_t rows_max) const override;
  void Run(const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const override;

 private:
  RowsKept KeptAfter(size_t layer) const;
  void RunLayer(size_t index, const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const;
  void Multiply(const PackedLinear& linear, GemmCall call) const;
  void Watch(const ChunkOfTexts& chunk, const LinearInput& input) const;

  std::shared_ptr<const PackedModel> model_;
  const KernelTable& kernels_;
  const Watcher watcher_;
};

}  // namespace sutra::cpu
