// A ModelBackend made of a tokenizer and an encoder, and the loading that every kind of encoder shares. No torch here.
// Thread rule: as ModelBackend, one worker thread at a time.
#pragma once

#include <memory>

#include "engine/model/bert_weights.h"
#include "engine/model/encoder.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/model_config.h"

namespace sutra {

// A model directory, checked: files present, shapes as configured, vocabulary within the embedding table.
struct LoadedModel {
  ModelConfig config;
  BertWeights weights;
  std::unique_ptr<Tokenizer> tokenizer;
};
Result<LoadedModel> LoadModel(const std::string& model_dir);

class EncoderBackend final : public ModelBackend {
 public:
  // Computes the identity and one short text: a model that cannot answer fails here and not at the first request.
  static Result<std::unique_ptr<ModelBackend>> Make(LoadedModel model, std::unique_ptr<Encoder> encoder,
                                                    const std::string& precision, const std::string& device);

  const ModelInfo& info() const override { return info_; }
  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  Status Embed(const TokenBatch& batch, std::span<float* const> outputs) override;

 private:
  EncoderBackend() = default;
  Status Check(const TokenBatch& batch, size_t outputs) const;

  ModelInfo info_;
  uint32_t vocabulary_ = 0;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Encoder> encoder_;
};

// A whole backend on own CPU kernels, for builds without torch. Fails where ChooseKernels finds none for this CPU and
// model.
Result<std::unique_ptr<ModelBackend>> MakeKernelBackend(const TorchOptions& options);

// The encoder on own CPU kernels. Encoders of one process for the same weights share the packed copy.
std::unique_ptr<Encoder> MakeCpuEncoder(const LoadedModel& model, const cpu::KernelTable& kernels, int threads);

}  // namespace sutra
