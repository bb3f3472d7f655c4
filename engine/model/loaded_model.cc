// Loads a model directory.
#include "engine/model/loaded_model.h"

#include <filesystem>
#include <future>
#include <utility>

#include "engine/model/json_file.h"
#include "engine/model/prompt_tokenizer.h"
#include "engine/tokenizer/wordpiece.h"

namespace sutra {
namespace {

// Weights in a form that is not read here: what it is, and how to get the one that is.
Status ExplainMissingWeights(const ModelConfig& config) {
  const auto exists = [&config](const char* name) {
    return std::filesystem::exists(config.transformer_dir + "/" + name);
  };
  const auto convert = [&config](const char* arguments) {
    return "; save them once as one model.safetensors: python3 -c \"from transformers import AutoModel; "
           "AutoModel.from_pretrained('" +
           config.transformer_dir + "').save_pretrained('" + config.transformer_dir + "'" + arguments + ")\"";
  };
  if (exists("model.safetensors.index.json")) {
    return ModelFileError(
        config.transformer_dir + "/model.safetensors.index.json",
        "the weights are split into several files, which is not supported" + convert(", max_shard_size='1TB'"));
  }
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"}) {
    if (!exists(name)) continue;
    return ModelFileError(config.transformer_dir + "/" + name,
                          "the weights are in a format that is not read here (it can run code)" +
                              convert(", max_shard_size='1TB', safe_serialization=True"));
  }
  return Status();
}

Result<EncoderWeights> LoadWeights(const ModelConfig& config) {
  Result<std::shared_ptr<SafetensorsFile>> file = SafetensorsFile::Open(config.weights_path);
  if (!file.ok()) {
    if (Status status = ExplainMissingWeights(config); file.status().os_error() == ENOENT && !status.ok())
      return status;
    return file.status();
  }
  return config.family->find_weights(file.value(), config.spec);
}

Result<std::unique_ptr<WordPieceTokenizer>> ReadTokenizer(const ModelConfig& config) {
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = WordPieceTokenizer::FromFiles(config.tokenizer_files);
  if (!tokenizer.ok() || (*tokenizer)->vocab_size() <= config.spec.vocabulary) return tokenizer;
  return Status(StatusCode::kModelError,
                "the tokenizer in " + config.transformer_dir + " has ids up to " +
                    std::to_string((*tokenizer)->vocab_size() - 1) + ", but config.json gives the model only " +
                    std::to_string(config.spec.vocabulary) + " words; the files belong to different models");
}

std::unique_ptr<Tokenizer> WithPrompt(const ModelConfig& config, std::unique_ptr<Tokenizer> tokenizer) {
  if (config.prompt.empty()) return tokenizer;
  return std::make_unique<PromptTokenizer>(config.prompt, std::move(tokenizer));
}

}  // namespace

Result<LoadedModel> LoadModel(const std::string& model_dir) {
  Result<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  Result<EncoderWeights> weights = LoadWeights(*config);
  if (!weights.ok()) return weights.status();
  // Hashing takes longest, so the tokenizer is loaded meanwhile.
  std::future<Result<std::string>> digest = std::async(std::launch::async, [&weights] { return Digest(*weights); });
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = ReadTokenizer(*config);
  Result<std::string> weights_digest = digest.get();
  if (!tokenizer.ok()) return tokenizer.status();
  if (!weights_digest.ok()) return weights_digest.status();
  weights->digest = std::move(weights_digest).value();
  config->tokenizer_files = {};
  LoadedModel model{.config = std::move(config).value(),
                    .weights = std::move(weights).value(),
                    .tokenizer = nullptr,
                    .vocabulary_digest = (*tokenizer)->vocabulary_digest(),
                    .tokenizer_settings = (*tokenizer)->Settings()};
  model.tokenizer = WithPrompt(model.config, std::move(tokenizer).value());
  return model;
}

Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const ModelConfig& config) {
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = ReadTokenizer(config);
  if (!tokenizer.ok()) return tokenizer.status();
  return WithPrompt(config, std::move(tokenizer).value());
}

}  // namespace sutra
