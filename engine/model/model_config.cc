#include "engine/model/model_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace sutra {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr uintmax_t kConfigBytesMax = 1U << 20;

Status Wrong(const std::string& path, const std::string& what) {
  return Status(StatusCode::kModelError, "the model's " + path + ": " + what);
}

Result<json> ReadJson(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) {
    return Wrong(path, error.message() +
                           "; expected a model directory in Hugging Face layout (config.json, "
                           "model.safetensors, tokenizer files); check --model or fetch it again");
  }
  if (bytes > kConfigBytesMax) return Wrong(path, "larger than 1 MiB, so no configuration; fetch the model again");
  std::ifstream in(path, std::ios::binary);
  std::string text(static_cast<size_t>(bytes), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in) return Wrong(path, "cannot be read; check its permissions");
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return Wrong(path, "is not valid JSON; fetch the model again");
  return parsed;
}

// Reads `key` as a whole number within [low, high].
Status ReadNumber(const json& object, const std::string& path, const char* key, uint32_t low, uint32_t high,
                  uint32_t* out) {
  const auto found = object.find(key);
  if (found == object.end()) return Wrong(path, std::string("lacks ") + key);
  if (!found->is_number_unsigned() || found->get<uint64_t>() < low || found->get<uint64_t>() > high) {
    return Wrong(
        path, std::string(key) + " must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  *out = found->get<uint32_t>();
  return Status();
}

std::string StringOr(const json& object, const char* key, const std::string& fallback) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : fallback;
}

bool IsTrue(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

Status ReadArchitecture(const std::string& path, const json& root, ModelConfig* config) {
  if (!root.is_object()) return Wrong(path, "is not a JSON object");
  const std::string family = StringOr(root, "model_type", "");
  if (family != "bert") {
    return Wrong(path, "model_type is '" + family + "'; supported: bert (MiniLM, bge, e5, gte and others)");
  }
  const std::string position = StringOr(root, "position_embedding_type", "absolute");
  if (position != "absolute") return Wrong(path, "position_embedding_type '" + position + "'; supported: absolute");
  if (IsTrue(root, "is_decoder")) return Wrong(path, "is_decoder is set; supported: encoders");

  struct Field {
    const char* key;
    uint32_t high;
    uint32_t* out;
  };
  const Field fields[] = {
      {"hidden_size", 8192, &config->hidden},       {"num_hidden_layers", 128, &config->layers},
      {"num_attention_heads", 256, &config->heads}, {"intermediate_size", 65536, &config->intermediate},
      {"vocab_size", 4194304, &config->vocabulary}, {"max_position_embeddings", 65536, &config->positions}};
  for (const Field& field : fields) {
    if (Status status = ReadNumber(root, path, field.key, 1, field.high, field.out); !status.ok()) return status;
  }
  if (config->hidden % config->heads != 0) return Wrong(path, "hidden_size is not a multiple of num_attention_heads");
  if (config->positions < 2) return Wrong(path, "max_position_embeddings must be at least 2");

  const std::string activation = StringOr(root, "hidden_act", "");
  if (activation == "gelu") {
    config->activation = Activation::kGeluErf;
  } else if (activation == "gelu_new" || activation == "gelu_pytorch_tanh") {
    config->activation = Activation::kGeluTanh;
  } else {
    return Wrong(path, "hidden_act '" + activation + "'; supported: gelu, gelu_new, gelu_pytorch_tanh");
  }
  const auto epsilon = root.find("layer_norm_eps");
  const double value = epsilon == root.end() ? 1e-12 : epsilon->is_number() ? epsilon->get<double>() : -1.0;
  if (!(value >= 0 && value < 1)) return Wrong(path, "layer_norm_eps must be a number from 0 to below 1");
  config->norm_epsilon = static_cast<float>(value);
  return Status();
}

Status ReadPooling(const std::string& path, ModelConfig* config) {
  Result<json> read = ReadJson(path);
  if (!read.ok()) return read.status();
  const json& root = read.value();
  if (!root.is_object()) return Wrong(path, "is not a JSON object");
  std::vector<std::string> modes;
  for (const auto& [key, value] : root.items()) {
    if (key.starts_with("pooling_mode_") && value.is_boolean() && value.get<bool>()) modes.push_back(key);
  }
  if (const std::string mode = StringOr(root, "pooling_mode", ""); !mode.empty()) modes.push_back(mode);
  if (modes.size() != 1) return Wrong(path, "names " + std::to_string(modes.size()) + " pooling modes; supported: one");
  if (modes[0] == "pooling_mode_mean_tokens" || modes[0] == "mean") {
    config->pooling = Pooling::kMean;
  } else if (modes[0] == "pooling_mode_cls_token" || modes[0] == "cls") {
    config->pooling = Pooling::kCls;
  } else {
    return Wrong(path, "pooling mode '" + modes[0] + "'; supported: mean and cls");
  }
  uint32_t width = config->hidden;
  if (root.contains("word_embedding_dimension")) {
    if (Status status = ReadNumber(root, path, "word_embedding_dimension", 1, 8192, &width); !status.ok())
      return status;
  }
  if (width != config->hidden) return Wrong(path, "word_embedding_dimension differs from the model's hidden_size");
  return Status();
}

// The limit sentence-transformers uses: its own file first, then what tokenizer and position table allow. The
// truncation written in tokenizer.json is not it (128 for all-MiniLM-L6-v2, whose limit is 256).
Status ReadTokensMax(ModelConfig* config) {
  config->tokens_max = config->positions;
  const std::string sentence = config->transformer_dir + "/sentence_bert_config.json";
  if (fs::exists(sentence)) {
    Result<json> read = ReadJson(sentence);
    if (!read.ok()) return read.status();
    if (!read->is_object()) return Wrong(sentence, "is not a JSON object");
    const auto limit = read->find("max_seq_length");
    if (limit != read->end() && !limit->is_null()) {
      uint32_t tokens = 0;
      constexpr uint32_t kAny = std::numeric_limits<uint32_t>::max();
      if (Status status = ReadNumber(*read, sentence, "max_seq_length", 2, kAny, &tokens); !status.ok()) return status;
      config->tokens_max = std::min(config->positions, tokens);
      return Status();
    }
  }
  const std::string tokenizer = config->transformer_dir + "/tokenizer_config.json";
  if (!fs::exists(tokenizer)) return Status();
  Result<json> read = ReadJson(tokenizer);
  if (!read.ok()) return read.status();
  if (!read->is_object()) return Status();
  // Without a limit, transformers writes a number near 1e30 here.
  const auto limit = read->find("model_max_length");
  if (limit != read->end() && limit->is_number() && limit->get<double>() >= 2 &&
      limit->get<double>() < static_cast<double>(config->tokens_max)) {
    config->tokens_max = static_cast<uint32_t>(limit->get<double>());
  }
  return Status();
}

struct Module {
  std::string kind;  // last part of the type's dotted name
  std::string path;  // absolute
};

Result<std::vector<Module>> ReadModules(const std::string& model_dir, const std::string& path) {
  Result<json> read = ReadJson(path);
  if (!read.ok()) return read.status();
  if (!read->is_array()) return Wrong(path, "is not a list of modules");
  std::vector<Module> modules;
  for (const json& entry : read.value()) {
    if (!entry.is_object()) return Wrong(path, "is not a list of modules");
    const std::string type = StringOr(entry, "type", "");
    const std::string where = StringOr(entry, "path", "");
    const fs::path relative(where);
    if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) {
      return Wrong(path, "module path '" + where + "' leaves the model directory");
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
      return Wrong(path, "module " + std::to_string(i) + " is '" + module.kind +
                             "'; supported: Transformer, Pooling and, last, Normalize, in this order");
    }
  }
  if (modules->size() < 2) return Wrong(path, "needs at least a Transformer and a Pooling module");
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
    return Wrong(model_dir, "no such model directory; check --model, or fetch the model first");
  }
  config.directory = directory.string();
  // The name as given, so that a link can name what lies in a folder called "model".
  const fs::path given = fs::absolute(model_dir).lexically_normal();
  config.name = (given.has_filename() ? given : given.parent_path()).filename().string();

  std::optional<std::string> pooling_path;
  if (Status status = ReadPipeline(&config, &pooling_path); !status.ok()) return status;
  const std::string root_path = config.transformer_dir + "/config.json";
  Result<json> root = ReadJson(root_path);
  if (!root.ok()) return root.status();
  if (Status status = ReadArchitecture(root_path, root.value(), &config); !status.ok()) return status;
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
