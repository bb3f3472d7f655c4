// Reads a model directory: pipeline, architecture (by family), pooling, settings of the text, token limit.
#include "engine/model/model_config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/model/json_file.h"
#include "engine/model/sentence_config.h"

namespace sutra {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

Status ReadArchitecture(const std::string& path, ModelConfig* config) {
  Result<json> root = ReadJsonObject(path);
  if (!root.ok()) return root.status();
  const std::string model_type = StringOr(*root, "model_type", "");
  config->family = FindFamily(model_type);
  if (config->family == nullptr) {
    return ModelFileError(path, "model_type is '" + model_type + "'; supported: " + SupportedFamilies());
  }
  return config->family->read_spec(path, *root, &config->spec);
}

// The limit that sentence-transformers uses: that of its own file first, then what tokenizer and position table allow.
// It is not the truncation given in tokenizer.json (128 for all-MiniLM-L6-v2, whose limit is 256).
void SetTokensMax(const std::optional<uint32_t>& own_limit, ModelConfig* config) {
  config->spec.tokens_max = config->spec.positions;
  if (own_limit.has_value()) {
    config->spec.tokens_max = std::min(config->spec.positions, *own_limit);
    return;
  }
  const std::optional<std::string>& text = config->tokenizer_files.tokenizer_config;
  if (!text.has_value()) return;
  const json settings =
      json::parse(*text, nullptr, /*allow_exceptions=*/false);  // the tokenizer refuses what is invalid
  if (!settings.is_object()) return;
  // If there is no limit, transformers writes a number near 1e30 here.
  const auto limit = settings.find("model_max_length");
  if (limit != settings.end() && limit->is_number() && limit->get<double>() >= 2 &&
      limit->get<double>() < static_cast<double>(config->spec.tokens_max)) {
    config->spec.tokens_max = static_cast<uint32_t>(limit->get<double>());
  }
}

// What else lies in a folder and would change its vectors.
Status RefuseForeignFiles(const ModelConfig& config, bool has_modules) {
  if (const std::string path = config.transformer_dir + "/adapter_config.json"; fs::exists(path)) {
    return ModelFileError(path,
                          "this folder has an adapter (PEFT); merge it into the model "
                          "(in peft: merge_and_unload) and save that");
  }
  if (has_modules) return Status();
  for (const char* name : {"config_sentence_transformers.json", "sentence_bert_config.json"}) {
    if (!fs::exists(config.directory + "/" + name)) continue;
    return ModelFileError(
        config.directory + "/" + name,
        "belongs to a sentence-transformers model, but modules.json is missing; fetch the model again");
  }
  return Status();
}

// The name as given, so that a link can give a name to a model in a folder called "model". In a Hugging Face cache,
// models--ORGANISATION--NAME/snapshots/REVISION, the last part would be the revision.
std::string NameOf(const std::string& model_dir) {
  const fs::path given = fs::absolute(model_dir).lexically_normal();
  const fs::path folder = given.has_filename() ? given : given.parent_path();
  const std::string repository = folder.parent_path().parent_path().filename().string();
  if (folder.parent_path().filename() == "snapshots" && repository.starts_with("models--")) {
    return repository.substr(repository.rfind("--") + 2);
  }
  return folder.filename().string();
}

Result<std::string> FindDirectory(const std::string& model_dir) {
  std::error_code error;
  const fs::path directory = fs::weakly_canonical(model_dir, error);
  if (error || !fs::is_directory(directory, error)) {
    return ModelFileError(model_dir, "no such model directory; check --model, or fetch the model first");
  }
  if (fs::is_directory(directory / "snapshots", error) && !fs::exists(directory / "config.json", error)) {
    std::string hint = "snapshots/REVISION";
    for (const auto& entry : fs::directory_iterator(directory / "snapshots", error)) {
      hint = "snapshots/" + entry.path().filename().string();
    }
    return ModelFileError(model_dir,
                          "is a repository in a Hugging Face cache; the model lies in one of its snapshots: "
                          "--model " +
                              model_dir + "/" + hint);
  }
  return directory.string();
}

}  // namespace

Result<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  ModelConfig config;
  Result<std::string> directory = FindDirectory(model_dir);
  if (!directory.ok()) return directory.status();
  config.directory = std::move(directory).value();
  config.name = NameOf(model_dir);

  std::optional<std::string> pooling_path;
  if (Status status = ReadPipeline(&config, &pooling_path); !status.ok()) return status;
  if (Status status = RefuseForeignFiles(config, pooling_path.has_value()); !status.ok()) return status;
  if (Status status = ReadArchitecture(config.transformer_dir + "/config.json", &config); !status.ok()) return status;
  if (pooling_path.has_value()) {
    if (Status status = ReadPooling(*pooling_path, &config); !status.ok()) return status;
  }
  if (Status status = ReadSentenceTransformersConfig(&config); !status.ok()) return status;

  Result<TokenizerFiles> files = ReadTokenizerFiles(config.transformer_dir);
  if (!files.ok()) return files.status();
  config.tokenizer_files = std::move(files).value();
  std::optional<uint32_t> own_limit;
  if (Status status = ReadTransformerModule(&config, &own_limit); !status.ok()) return status;
  SetTokensMax(own_limit, &config);
  config.weights_path = config.transformer_dir + "/model.safetensors";
  return config;
}

}  // namespace sutra
