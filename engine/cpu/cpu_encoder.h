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

#include "engine/cpu/forward_pass.h"
#include "engine/cpu/work_team.h"
#include "engine/model/encoder.h"

namespace sutra::cpu {

class CpuEncoder final : public Encoder {
 public:
  // REQUIRES 1 <= threads <= kThreadsMax.
  CpuEncoder(std::shared_ptr<const ForwardPass> pass, int threads);

  const char* name() const override { return pass_->kernels().name; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override;

 private:
  struct Chunk {
    uint32_t text_begin = 0;
    uint32_t text_end = 0;
  };

  bool CutIntoChunks(const TokenBatch& batch, size_t tokens_per_chunk);
  void Run(const TokenBatch& batch, const Chunk& chunk, const Workspace& workspace, Steps& steps,
           std::span<float* const> outputs) const;

  std::shared_ptr<const ForwardPass> pass_;
  WorkTeam team_;
  SharedSteps shared_steps_;
  size_t rows_max_ = 0;
  std::vector<Workspace> workspaces_;  // one per member
  std::vector<Chunk> chunks_;
};

}  // namespace sutra::cpu
