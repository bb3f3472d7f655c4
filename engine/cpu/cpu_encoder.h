// An encoder on CPU kernels: packed rows, no padding, buffers allocated once.
//
// Thread rule: used by one worker thread at a time; it owns a team of helpers for the threads beyond that one.
// Invariants:
// - A batch is dealt into chunks of whole texts, at most about chunk_tokens() tokens each; a chunk goes through all
//   layers at once. Memory is bounded by the chunk, not by the batch.
// - A text's vector does not depend on the other texts of its batch (each row of a product is computed the same way,
//   whatever its neighbours are).
// - With several threads, members draw whole chunks, of which there are as many for each, equally large; a batch too
//   small or too uneven for that is computed chunk by chunk with every step divided by columns, so that a single short
//   text becomes faster too.
#pragma once

#include <memory>
#include <vector>

#include "engine/cpu/cache_sizes.h"
#include "engine/cpu/forward_pass.h"
#include "engine/cpu/work_team.h"
#include "engine/model/encoder.h"

namespace sutra::cpu {

// Tokens of a chunk: few enough that its activations fit into L2 and a quarter of the core's share of L3 (the rest is
// for weights), within what the kernels ask for.
size_t ChunkTokens(const KernelTable& kernels, const EncoderSpec& spec, const CacheSizes& caches);

class CpuEncoder final : public Encoder {
 public:
  // `cpus`: where its helpers stay, and should its worker (core_groups.h). REQUIRES 1 <= threads <= kThreadsMax.
  CpuEncoder(std::shared_ptr<const ForwardPass> pass, int threads, std::vector<uint32_t> cpus = {});

  const char* name() const override { return pass_->kernels().name; }
  // One chunk for each thread.
  size_t round_tokens() const override { return chunk_tokens_ * static_cast<size_t>(team_.threads()); }
  std::span<const uint32_t> cpus() const override { return cpus_; }
  Status Encode(const TokenBatch& batch, std::span<float* const> outputs) override;

 private:
  struct Chunk {
    size_t tokens = 0;
    uint32_t text_begin = 0;
    uint32_t text_end = 0;
  };

  size_t Deal(const TokenBatch& batch, size_t chunks);
  void DealToFit(const TokenBatch& batch, size_t chunks);
  void Gather(const TokenBatch& batch, std::span<float* const> outputs);
  void RunApart();
  void RunTogether();
  void Run(const Chunk& chunk, const Workspace& workspace, Steps& steps) const;

  std::shared_ptr<const ForwardPass> pass_;
  const size_t chunk_tokens_;
  const size_t rows_max_;  // of a chunk: dealt out equally they are a little larger than asked for
  const std::vector<uint32_t> cpus_;
  WorkTeam team_;
  SharedSteps shared_steps_;
  std::vector<Workspace> workspaces_;  // one per member

  // Of the batch; kept, so that a batch allocates nothing in the steady state.
  std::vector<Chunk> chunks_;
  std::vector<uint32_t> longest_first_;  // texts
  std::vector<uint32_t> chunk_of_;       // each text
  std::vector<uint32_t> heap_;           // chunks, the one with the fewest tokens in front
  std::vector<int32_t> ids_;             // the texts in the order of their chunks, like the next two
  std::vector<int32_t> offsets_;
  std::vector<float*> outputs_;
};

}  // namespace sutra::cpu
