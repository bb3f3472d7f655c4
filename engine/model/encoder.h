// The seam below ModelBackend: the arithmetic of one encoder, without tokenizer and identity.
// Implementations: CpuEncoder (our kernels, packed weights) and the ATen encoder of the torch plug-in (any device).
// Thread rule: used by one worker thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/model/model_backend.h"

namespace sutra {

class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual const char* name() const = 0;

  // As those of ModelBackend.
  virtual size_t round_tokens() const { return SIZE_MAX; }
  virtual std::span<const uint32_t> cpus() const { return {}; }

  // Like ModelBackend::Embed; the caller has checked ids and lengths, and checks that the vectors are finite.
  virtual Status Encode(const TokenBatch& batch, std::span<float* const> outputs) = 0;
};

}  // namespace sutra
