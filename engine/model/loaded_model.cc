// Loads a model directory.
#include "engine/model/loaded_model.h"

#include <utility>

#include "engine/tokenizer/wordpiece.h"

namespace sutra {

Result<LoadedModel> LoadModel(const std::string& model_dir) {
  Result<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  Result<std::shared_ptr<SafetensorsFile>> file = SafetensorsFile::Open(config->weights_path);
  if (!file.ok()) return file.status();
  Result<EncoderWeights> weights = config->family->find_weights(file.value(), config->spec);
  if (!weights.ok()) return weights.status();
  Result<std::string> digest = Digest(*weights);
  if (!digest.ok()) return digest.status();
  weights->digest = std::move(digest).value();
  Result<std::unique_ptr<WordPieceTokenizer>> tokenizer = WordPieceTokenizer::Load(config->transformer_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocab_size() > config->spec.vocabulary) {
    return Status(StatusCode::kModelError,
                  "the tokenizer in " + config->transformer_dir + " has ids up to " +
                      std::to_string((*tokenizer)->vocab_size() - 1) + ", but config.json gives the model only " +
                      std::to_string(config->spec.vocabulary) + " words; the files belong to different models");
  }
  return LoadedModel{.config = std::move(config).value(),
                     .weights = std::move(weights).value(),
                     .tokenizer = std::move(tokenizer).value()};
}

}  // namespace sutra
