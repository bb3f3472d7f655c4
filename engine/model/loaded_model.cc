// Loads a model directory, and keeps a table of the weight files in use.
#include "engine/model/loaded_model.h"

#include <utility>
#include <vector>

#include "engine/tokenizer/wordpiece.h"
#include "shm/base/mutex.h"

namespace sutra {
namespace {

// Workers that load the same path while another still holds it share the mapping (and with it the packed weights).
class OpenFiles {
 public:
  Result<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path) {
    const MutexLock lock(mutex_);
    std::erase_if(in_use_, [](const auto& file) { return file.expired(); });
    for (const auto& weak : in_use_) {
      std::shared_ptr<const SafetensorsFile> file = weak.lock();
      if (file != nullptr && file->path() == path && file->IsStillAtPath()) return file;
    }
    Result<std::shared_ptr<const SafetensorsFile>> opened = SafetensorsFile::Open(path);
    if (opened.ok()) in_use_.push_back(opened.value());
    return opened;
  }

 private:
  Mutex mutex_;
  std::vector<std::weak_ptr<const SafetensorsFile>> in_use_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace

Result<LoadedModel> LoadModel(const std::string& model_dir) {
  static OpenFiles open_files;
  Result<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  Result<std::shared_ptr<const SafetensorsFile>> file = open_files.Open(config->weights_path);
  if (!file.ok()) return file.status();
  Result<EncoderWeights> weights = config->family->find_weights(file.value(), config->spec);
  if (!weights.ok()) return weights.status();
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
