// The seam inside the executor: one chunk of whole texts through all layers, from ids to pooled vectors. CpuEncoder
// cuts batches into chunks and hands them to members of its team; a pass knows the arithmetic. Implementations:
// FloatPass (fp32 and bf16 products), Int8Pass (u8 x s8 products).
//
// Thread rule: immutable; any number of threads may run chunks at once, each with a workspace of its own, or together
// one chunk with one workspace (Steps).
#pragma once

#include <cstdint>
#include <span>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/kernels/kernels.h"
#include "engine/cpu/steps.h"
#include "engine/model/encoder_spec.h"

namespace sutra::cpu {

// Whole texts, packed: text i has ids[offsets[i] - offsets[0] .. offsets[i + 1] - offsets[0]) and writes `hidden`
// floats to outputs[i].
struct ChunkOfTexts {
  const int32_t* ids = nullptr;
  std::span<const int32_t> offsets;
  std::span<float* const> outputs;

  size_t texts() const { return offsets.size() - 1; }
  size_t row(size_t text) const { return static_cast<size_t>(offsets[text] - offsets[0]); }
  size_t tokens(size_t text) const { return static_cast<size_t>(offsets[text + 1] - offsets[text]); }
  size_t rows() const { return row(texts()); }
};

// The buffers of one chunk; a pass uses those that it needs.
struct Workspace {
  AlignedBuffer x;          // fp32 residual stream
  AlignedBuffer elements;   // what the next product reads
  AlignedBuffer qkv;        // queries, keys and values
  AlignedBuffer inner;      // the feed-forward's inner activations; may be the same buffer as qkv
  AlignedBuffer scratch;    // attention, of one member
  AlignedBuffer quantised;  // Int8Pass: what products read, with scales behind it
};

class ForwardPass {
 public:
  virtual ~ForwardPass() = default;
  virtual const EncoderSpec& spec() const = 0;
  virtual const KernelTable& kernels() const = 0;
  virtual size_t steps() const = 0;  // calls of Steps::Step in one chunk
  virtual Workspace MakeWorkspace(size_t rows_max) const = 0;
  // REQUIRES: chunk.rows() <= the workspace's rows_max, and the kernels' thread state is prepared.
  virtual void Run(const ChunkOfTexts& chunk, const Workspace& workspace, Steps& steps) const = 0;
};

}  // namespace sutra::cpu
