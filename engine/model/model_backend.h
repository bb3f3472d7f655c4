// The seam between the engine and a model: token ids in, vectors out.
// Implementations: backend_torch.cc (libtorch, CPU or CUDA) and backend_fake.cc (a deterministic function of ids and
// model name, for tests and lane benchmarks). An implementation is used by one worker thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/model/model_info.h"
#include "engine/tokenizer/tokenizer.h"
#include "shm/base/status.h"

namespace sutra {

// Packed rows: text i has ids[offsets[i] .. offsets[i + 1]). No padding anywhere.
struct TokenBatch {
  std::span<const int32_t> ids;
  std::span<const int32_t> offsets;  // texts + 1 entries, first 0, last ids.size()
  uint32_t texts() const { return offsets.empty() ? 0 : static_cast<uint32_t>(offsets.size() - 1); }
};

class ModelBackend {
 public:
  virtual ~ModelBackend() = default;
  virtual const ModelInfo& info() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;

  // Computes one vector a text and writes info().width fp32 floats to outputs[i]: pooled, never normalised (the engine
  // normalises once and keeps the norm, so that normalised and raw answers come from one cached entry). Every written
  // value is finite; otherwise the whole batch fails with kModelError and nothing written may be used.
  // REQUIRES: each text has 1..tokens_max ids, all within the vocabulary.
  virtual Status Embed(const TokenBatch& batch, std::span<float* const> outputs) = 0;
};

struct TorchOptions {
  std::string model_dir;    // Hugging Face / sentence-transformers layout
  std::string precision;    // "auto" (bf16 where the CPU multiplies it natively, else fp32), "fp32" or "bf16"
  std::string device;       // "cpu" or "cuda"
  int threads = 1;          // intra-op threads
};

// Both fail with a message that names the file, the likely cause and the fix.
Result<std::unique_ptr<ModelBackend>> MakeTorchBackend(const TorchOptions& options);
Result<std::unique_ptr<ModelBackend>> MakeFakeBackend(const std::string& name, uint32_t width);

}  // namespace sutra
