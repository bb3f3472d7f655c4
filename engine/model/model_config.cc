// Reads a model directory: pipeline, architecture (by family), pooling, token limit.
#include "engine/model/model_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/model/json_file.h"

namespace sutra {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

Status ReadArchitecture(const std::string& path, ModelConfig* config) {
  Result<json> root = ReadJsonFile(path);
  if (!root.ok()) return root.status();
  if (!root->is_object()) return ModelFileError(path, "is not a JSON object");
  const std::string model_type = StringOr(*root, "model_type", "");
  config->family = FindFamily(model_type);
  if (config->family == nullptr) {
    return ModelFileError(path, "model_type is '" + model_type + "'; supported: " + SupportedFamilies());
  }
  return config->family->read_spec(path, *root, &config->spec);
}

Status ReadPooling(const std::string& path, ModelConfig* config) {
  Result<json> read = ReadJsonFile(path);
  if (!read.ok()) return read.status();
  const json& root = read.value();
  if (!root.is_object()) return ModelFileError(path, "is not a JSON object");
  std::vector<std::string> modes;
  for (const auto& [key, value] : root.items()) {
    if (key.starts_with("pooling_mode_") && value.is_boolean() && value.get<bool>()) modes.push_back(key);
  }
  if (const std::string mode = StringOr(root, "pooling_mode", ""); !mode.empty()) modes.push_back(mode);
  if (modes.size() != 1)
    return ModelFileError(path, "names " + std::to_string(modes.size()) + " pooling modes; supported: one");
  if (modes[0] == "pooling_mode_mean_tokens" || modes[0] == "mean") {
    config->spec.pooling = Pooling::kMean;
  } else if (modes[0] == "pooling_mode_cls_token" || modes[0] == "cls") {
    config->spec.pooling = Pooling::kCls;
  } else {
    return ModelFileError(path, "pooling mode '" + modes[0] + "'; supported: mean and cls");
  }
  uint32_t width = config->spec.hidden;
  if (root.contains("word_embedding_dimension")) {
    if (Status status = ReadNumber(root, path, "word_embedding_dimension", 1, 8192, &width); !status.ok())
      return status;
  }
  if (width != config->spec.hidden)
    return ModelFileError(path, "word_embedding_dimension differs from the model's hidden_size");
  return Status();
}

// The limit that sentence-transformers uses: its own file first, then what tokenizer and position table allow. It is
// not the truncation given in tokenizer.json (128 for all-MiniLM-L6-v2, whose limit is 256).
Status ReadTokensMax(ModelConfig* config) {
  config->spec.tokens_max = config->spec.positions;
  const std::string sentence = config->transformer_dir + "/sentence_bert_config.json";
  if (fs::exists(sentence)) {
    Result<json> read = ReadJsonFile(sentence);
    if (!read.ok()) return read.status();
    if (!read->is_object()) return ModelFileError(sentence, "is not a JSON object");
    const auto limit = read->find("max_seq_length");
    if (limit != read->end() && !limit->is_null()) {
      uint32_t tokens = 0;
      constexpr uint32_t kAny = std::numeric_limits<uint32_t>::max();
      if (Status status = ReadNumber(*read, sentence, "max_seq_length", 2, kAny, &tokens); !status.ok()) return status;
      config->spec.tokens_max = std::min(config->spec.positions, tokens);
      return Status();
    }
  }
  const std::string tokenizer = config->transformer_dir + "/tokenizer_config.json";
  if (!fs::exists(tokenizer)) return Status();
  Result<json> read = ReadJsonFile(tokenizer);
  if (!read.ok()) return read.status();
  if (!read->is_object()) return Status();
  // If there is no limit, transformers writes a number near 1e30 here.
  const auto limit = read->find("model_max_length");
  if (limit != read->end() && limit->is_number() && limit->get<double>() >= 2 &&
      limit->get<double>() < static_cast<double>(config->spec.tokens_max)) {
    config->spec.tokens_max = static_cast<uint32_t>(limit->get<double>());
  }
  return Status();
}

struct Module {
  std::string kind;  // last part of the type's dotted name
  std::string path;  // absolute
};

Result<std::vector<Module>> ReadModules(const std::string& model_dir, const std::string& path) {
  Result<json> read = ReadJsonFile(path);
  if (!read.ok()) return read.status();
  if (!read->is_array()) return ModelFileError(path, "is not a list of modules");
  std::vector<Module> modules;
  for (const json& entry : read.value()) {
    if (!entry.is_object()) return ModelFileError(path, "is not a list of modules");
    const std::string type = StringOr(entry, "type", "");
    const std::string where = StringOr(entry, "path", "");
    const fs::path relative(where);
    if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) {
      return ModelFileError(path, "module path '" + where + "' leaves the model directory");
    }
    modules.push_back({type.substr(type.rfind('.') + 1), where.empty() ? model_dir : model_dir + "/" + where});
  }
  return modules;
}

Status ReadPipeline(ModelConfig* config, std::optional<std::string>* pooling_path) {
  const std::string path = config->directory + "/modules.json";
  config->transformer_dir = config->directory;
  // sentence-transformers treats a plain transformer the same way: mean pooling, no normalisation.
  if (!fs::exists(path)) return Status();
  Result<std::vector<Module>> modules = ReadModules(config->directory, path);
  if (!modules.ok()) return modules.status();
  static constexpr const char* kOrder[] = {"Transformer", "Pooling", "Normalize"};
  for (size_t i = 0; i < modules->size(); ++i) {
    const Module& module = (*modules).at(i);
    if (i >= std::size(kOrder) || module.kind != kOrder[i]) {
      return ModelFileError(path, "module " + std::to_string(i) + " is '" + module.kind +
                                      "'; supported: Transformer, Pooling and, last, Normalize, in this order");
    }
  }
  if (modules->size() < 2) return ModelFileError(path, "needs at least a Transformer and a Pooling module");
  config->transformer_dir = (*modules).at(0).path;
  *pooling_path = (*modules).at(1).path + "/config.json";
  config->normalizes = modules->size() == 3;
  return Status();
}

}  // namespace

Result<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  ModelConfig config;
  std::error_code error;
  const fs::path directory = fs::weakly_canonical(model_dir, error);
  if (error || !fs::is_directory(directory)) {
    return ModelFileError(model_dir, "no such model directory; check --model, or fetch the model first");
  }
  config.directory = directory.string();
  // The name as given, so that a link can give a name to a model in a folder called "model".
  const fs::path given = fs::absolute(model_dir).lexically_normal();
  config.name = (given.has_filename() ? given : given.parent_path()).filename().string();

  std::optional<std::string> pooling_path;
  if (Status status = ReadPipeline(&config, &pooling_path); !status.ok()) return status;
  const std::string root_path = config.transformer_dir + "/config.json";
  if (Status status = ReadArchitecture(root_path, &config); !status.ok()) return status;
  if (pooling_path.has_value()) {
    if (Status status = ReadPooling(*pooling_path, &config); !status.ok()) return status;
  }
  if (Status status = ReadTokensMax(&config); !status.ok()) return status;

  config.weights_path = config.transformer_dir + "/model.safetensors";
  config.identity_files = {root_path, config.directory + "/modules.json",
                           config.transformer_dir + "/sentence_bert_config.json"};
  if (pooling_path.has_value()) config.identity_files.push_back(*pooling_path);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}) {
    config.identity_files.push_back(config.transformer_dir + "/" + name);
  }
  std::erase_if(config.identity_files, [](const std::string& path) { return !fs::exists(path); });
  return config;
}

}  // namespace sutra
