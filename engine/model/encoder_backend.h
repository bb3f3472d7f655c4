// A ModelBackend made of a loaded model and an encoder that computes it, from whichever executor. It cuts vectors where
// the model's truncate_dim says so, which executors know nothing of.
// Thread rule: as ModelBackend, one worker thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/encoder.h"
#include "engine/model/loaded_model.h"

namespace sutra {

class EncoderBackend final : public ModelBackend {
 public:
  // Makes an encoder for the same weights that is at least as exact.
  using MakeFallback = std::function<Result<std::unique_ptr<Encoder>>()>;
  // How long a fallback is kept after its last batch (and dropped before the first batch after that), and how long
  // after a failure to make one the next attempt waits: loading takes as long as a start, and memory for fp32 weights.
  static constexpr uint64_t kFallbackIdleNs = 60'000'000'000;

  // Computes the identity and one short text, so that a model that cannot compute fails here, not at the first request.
  // `precision` is "fp32", "bf16" or "int8", `device` "cpu" or "cuda:N". `fallback`, if there is one, is called when a
  // batch fails, and what it makes computes that batch again.
  static Result<std::unique_ptr<EncoderBackend>> Make(LoadedModel model, std::unique_ptr<Encoder> encoder,
                                                      const std::string& precision, const std::string& device,
                                                      MakeFallback fallback = {});

  // The same model for another worker: tokenizer and settings are shared. `encoder` computes as this one's does.
  std::unique_ptr<ModelBackend> ForAnotherWorker(std::unique_ptr<Encoder> encoder, MakeFallback fallback) const;

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  size_t round_tokens() const override { return encoder_->round_tokens(); }
  std::span<const uint32_t> cpus() const override { return encoder_->cpus(); }
  Status Embed(const TokenBatch& batch, std::span<float* const> outputs) override;
  uint64_t retries() const override { return retries_; }

 private:
  EncoderBackend() = default;
  Status Check(const TokenBatch& batch, size_t outputs) const;
  // Computes with `encoder` and checks what it wrote.
  Status EmbedWith(Encoder& encoder, const TokenBatch& batch, std::span<float* const> outputs);
  Status EncodeAndCut(Encoder& encoder, const TokenBatch& batch, std::span<float* const> outputs);
  Status Retry(const TokenBatch& batch, std::span<float* const> outputs, Status failed);

  ModelInfo info_;
  uint32_t vocabulary_ = 0;
  uint32_t hidden_ = 0;           // what the encoder computes; at least info_.width
  bool cut_unit_vector_ = false;  // Normalize comes before the cut
  std::vector<float> whole_;      // vectors of the hidden width, before they are cut
  std::vector<float*> whole_outputs_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<Encoder> encoder_;

  MakeFallback make_fallback_;
  std::unique_ptr<Encoder> fallback_;  // only for a while after it was needed
  uint64_t fallback_until_ns_ = 0;     // what is known of it (made, or cannot be made) holds until then
  uint64_t retries_ = 0;
};

}  // namespace sutra
