// An encoder on CPU kernels: packed rows, no padding, buffers allocated once.
//
// Thread rule: used by one worker thread at a time; it owns a team of helpers for the threads beyond that one.
// Invariants:
// - A batch is cut into chunks of whole texts, about kernels.chunk_tokens tokens each; a chunk goes through all layers
//   while its activations are in L2. Memory is bounded by the chunk, not by the batch.
// - A text's vector does not depend on the other texts of its batch (each row of a product is computed the same way,
//   whatever its neighbours are).
// - With several threads, members draw whole chunks; a batch too small or too uneven for that is computed chunk by
//   chunk with every step divided by columns, so that a single short text becomes faster too.
#pragma once

#include <memory>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/packed_model.h"
#include "engine/cpu/work_team.h"
#include "engine/model/encoder.h"

namespace sutra::cpu {

class CpuEncoder final : public Encoder {
 public:
  // REQUIRES Supports(kernels, model->spec) and 1 <= threads <= kThreadsMax.
  CpuEncoder(std::shared_ptr<const PackedModel> model, const KernelTable& kernels, int threads);

  const char* name() const override { return kernels_.name; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override;

 private:
  // One member's buffers: rows_max_ tokens plus padding.
  struct Workspace {
    AlignedBuffer x;         // fp32 residual stream
    AlignedBuffer elements;  // what the next product reads
    AlignedBuffer qkv;
    AlignedBuffer inner;    // the feed-forward's inner activations
    AlignedBuffer scratch;  // attention
  };
  struct Chunk {
    uint32_t text_begin = 0;
    uint32_t text_end = 0;
  };
  class Solo;
  class Shared;

  bool CutIntoChunks(const TokenBatch& batch, size_t tokens_per_chunk);
  template <class Steps>
  void RunChunk(const TokenBatch& batch, const Chunk& chunk, const Workspace& workspace, Steps& steps,
                std::span<float* const> outputs) const;
  template <class Steps>
  void RunLayer(const PackedLayer& layer, std::span<const int32_t> offsets, size_t rows, const Workspace& workspace,
                Steps& steps) const;
  void Attend(std::span<const int32_t> offsets, size_t begin, size_t end, const Workspace& workspace,
              void* scratch) const;
  void Multiply(const PackedLinear& linear, const void* a, size_t a_stride, size_t rows, size_t panel_begin,
                size_t panel_end, GemmOutput output, void* c, size_t c_stride) const;
  void Normalize(const PackedNorm& norm, const Workspace& workspace, size_t begin, size_t end) const;
  void Pool(const float* x, std::span<const int32_t> offsets, std::span<float* const> outputs) const;
  size_t StepsInChunk() const;

  std::shared_ptr<const PackedModel> model_;
  const KernelTable& kernels_;
  WorkTeam team_;
  SharedSteps shared_steps_;
  size_t rows_max_ = 0;
  std::vector<Workspace> workspaces_;
  std::vector<Chunk> chunks_;
};

}  // namespace sutra::cpu
