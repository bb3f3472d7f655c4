// The seam between the engine and a model: token ids in, vectors out.
// Implementations: EncoderBackend (a model directory, computed by an Encoder) and the fake model (a deterministic
// function of ids and model name, for tests and lane benchmarks). An implementation is used by one worker thread at a
// time; a model that several workers compute has a backend for each.
#pragma once

#include <cstddef>
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

  // What it computes at once: more tokens in one call take as much longer and only keep other texts waiting.
  virtual size_t round_tokens() const { return SIZE_MAX; }

  // The CPUs that its worker's thread should stay on, near its other threads; none: any.
  virtual std::span<const uint32_t> cpus() const { return {}; }

  // Computes one vector per text and writes info().width fp32 floats to outputs[i]: pooled, never normalised (the
  // engine normalises once and keeps the norm, so that normalised and raw answers come from one cached entry). Every
  // written value is finite; otherwise the whole batch fails with kModelError and nothing written may be used.
  // REQUIRES: each text has 1..tokens_max ids, all within the vocabulary.
  virtual Status Embed(const TokenBatch& batch, std::span<float* const> outputs) = 0;

  // Calls of Embed since the start that failed at first and were computed again another way, whatever came of it.
  virtual uint64_t retries() const { return 0; }
};

}  // namespace sutra
