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

Result<EncoderWeights> FindWeights(const ModelConfig& config) {
  Result<std::shared_ptr<SafetensorsFile>> file = SafetensorsFile::Open(config.weights_path);
  if (!file.ok()) {
    if (Status status = ExplainMissingWeights(config); file.status().os_error() == ENOENT && !status.ok())
      return status;
    return file.status();
  }
  return config.family->find_weights(file.value(), config.spec);
}

std::unique_ptr<Tokenizer> WithPrompt(const ModelConfig& config, std::unique_ptr<Tokenizer> tokenizer) {
  if (config.prompt.empty()) return tokenizer;
  return std::make_unique<PromptTokenizer>(config.prompt, std::move(tokenizer));
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> MakeTokenizer(const ModelConfig& config) {
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = WordPieceTokenizer::FromFiles(config.tokenizer_files);
  if (!tokenizer.ok()) return tokenizer.status();
  return WithPrompt(config, std::move(tokenizer).value());
}

Result<LoadedModel> LoadModel(const std::string& model_dir) {
  Result<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  Result<EncoderWeights> weights = FindWeights(*config);
  if (!weights.ok()) return weights.status();
  // Weights take longest, so the tokenizer is loaded meanwhile.
  std::future<Result<std::unique_ptr<WordPieceTokenizer>>> loading =
      std::async(std::launch::async, [&config] { return WordPieceTokenizer::FromFiles(config->tokenizer_files); });
  if (Status read = ReadWeights(&*weights); !read.ok()) return read;
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = loading.get();
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocab_size() > config->spec.vocabulary) {
    return Status(StatusCode::kModelError,
                  "the tokenizer in " + config->transformer_dir + " has ids up to " +
                      std::to_string((*tokenizer)->vocab_size() - 1) + ", but config.json gives the model only " +
                      std::to_string(config->spec.vocabulary) + " words; the files belong to different models");
  }
  config->tokenizer_files = {};
  LoadedModel model{.config = std::move(config).value(),
                    .weights = std::move(weights).value(),
                    .tokenizer = nullptr,
                    .vocabulary_digest = (*tokenizer)->vocabulary_digest(),
                    .tokenizer_settings = (*tokenizer)->Settings()};
  model.tokenizer = WithPrompt(model.config, std::move(tokenizer).value());
  return model;
}

}  // namespace sutra
