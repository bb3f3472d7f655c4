// A ModelBackend made of a loaded model and an encoder that computes it, from whichever executor. It cuts vectors where
// the model's truncate_dim says so, which executors know nothing of.
// Thread rule: as ModelBackend, one worker thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/encoder.h"
#include "engine/model/loaded_model.h"

namespace sutra {

class EncoderBackend final : public ModelBackend {
 public:
  // Computes the identity and one short text, so that a model that cannot compute fails here, not at the first request.
  // `precision` is "fp32", "bf16" or "int8", `device` "cpu" or "cuda:N".
  static Result<std::unique_ptr<ModelBackend>> Make(LoadedModel model, std::unique_ptr<Encoder> encoder,
                                                    const std::string& precision, const std::string& device);

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  Status Embed(const TokenBatch& batch, std::span<float* const> outputs) override;

 private:
  EncoderBackend() = default;
  Status Check(const TokenBatch& batch, size_t outputs) const;
  Status EncodeAndCut(const TokenBatch& batch, std::span<float* const> outputs);

  ModelInfo info_;
  uint32_t vocabulary_ = 0;
  uint32_t hidden_ = 0;           // what the encoder computes; at least info_.width
  bool cut_unit_vector_ = false;  // Normalize comes before the cut
  std::vector<float> whole_;      // vectors of the hidden width, before they are cut
  std::vector<float*> whole_outputs_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Encoder> encoder_;
};

}  // namespace sutra
