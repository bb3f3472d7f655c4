// Reads and checks the files of sentence-transformers (version 6.2 and before).
#include "engine/model/sentence_config.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "engine/model/json_file.h"
#include "shm/base/printable.h"

namespace sutra {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::string Shown(const std::string& found) { return "'" + Printable(found.substr(0, 60), HighBytes::kReplace) + "'"; }

// A key whose value must be absent, null, or one of the harmless ones (as JSON).
struct OnlyHarmless {
  const char* key;
  std::vector<const char*> harmless;
};

Status RefuseOthers(const json& object, const std::string& path, const std::vector<OnlyHarmless>& keys) {
  for (const OnlyHarmless& only : keys) {
    const auto found = object.find(only.key);
    if (found == object.end() || found->is_null()) continue;
    const auto is_it = [&](const char* text) { return *found == json::parse(text, nullptr, false); };
    if (std::any_of(only.harmless.begin(), only.harmless.end(), is_it)) continue;
    std::string accepted = "to be absent";
    for (const char* text : only.harmless) accepted += std::string(" or ") + text;
    return ModelFileError(path, std::string("the value of ") + only.key + " is not supported; it has " + accepted);
  }
  return {};
}

struct Module {
  std::string kind;  // last part of the type's dotted name
  std::string path;  // absolute
};

Result<Module> ReadModule(const std::string& model_dir, const std::string& path, const json& entry) {
  if (!entry.is_object()) return ModelFileError(path, "is not a list of modules");
  if (Status status = OnlyKeys(entry, path, {"idx", "name", "path", "type", "kwargs"}); !status.ok()) return status;
  if (Status status = RefuseOthers(entry, path, {{"kwargs", {"[]", "{}"}}}); !status.ok()) return status;
  const std::string type = StringOr(entry, "type", "");
  const std::string where = StringOr(entry, "path", "");
  const fs::path relative(where);
  if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) {
    return ModelFileError(path, "module path '" + where + "' leaves the model directory");
  }
  // A class of the folder's own, such as custom_st.Transformer, may compute anything.
  if (!type.starts_with("sentence_transformers.")) {
    return ModelFileError(path, "module type " + Shown(type) +
                                    " is code of the model's own, which is not run; supported: the modules of "
                                    "sentence_transformers");
  }
  return Module{type.substr(type.rfind('.') + 1), where.empty() ? model_dir : model_dir + "/" + where};
}

Result<std::vector<Module>> ReadModules(const std::string& model_dir, const std::string& path) {
  Result<json> read = ReadJsonFile(path);
  if (!read.ok()) return read.status();
  if (!read->is_array()) return ModelFileError(path, "is not a list of modules");
  std::vector<Module> modules;
  std::set<std::string> names;
  for (const json& entry : read.value()) {
    Result<Module> module = ReadModule(model_dir, path, entry);
    if (!module.ok()) return module.status();
    const std::string name = StringOr(entry, "name", std::to_string(modules.size()));
    if (!names.insert(name).second) return ModelFileError(path, "two modules have the name " + Shown(name));
    modules.push_back(std::move(module).value());
  }
  return modules;
}

// The pooling mode in either notation: one true flag, or the newer key.
Result<std::string> PoolingMode(const json& root, const std::string& path) {
  static constexpr std::pair<const char*, const char*> kFlags[] = {
      {"pooling_mode_cls_token", "cls"},
      {"pooling_mode_max_tokens", "max"},
      {"pooling_mode_mean_tokens", "mean"},
      {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
      {"pooling_mode_weightedmean_tokens", "weightedmean"},
      {"pooling_mode_lasttoken", "lasttoken"}};
  std::set<std::string> modes;
  for (const auto& [flag, mode] : kFlags) {
    if (IsTrue(root, flag)) modes.insert(mode);
  }
  if (const auto named = root.find("pooling_mode"); named != root.end()) {
    for (const json& mode : named->is_array() ? *named : json::array({*named})) {
      if (!mode.is_string()) return ModelFileError(path, "pooling_mode is not a name");
      modes.insert(mode.get<std::string>());
    }
  }
  if (modes.size() != 1) {
    return ModelFileError(path, "names " + std::to_string(modes.size()) + " pooling modes; supported: one");
  }
  return *modes.begin();
}

Status ReadDefaultPrompt(const json& root, const std::string& path, std::string* prompt) {
  const auto name = root.find("default_prompt_name");
  if (name == root.end() || name->is_null()) return Status();
  const auto prompts = root.find("prompts");
  if (name->is_string() && prompts != root.end() && prompts->is_object()) {
    const auto text = prompts->find(name->get<std::string>());
    if (text != prompts->end() && text->is_string()) {
      *prompt = text->get<std::string>();
      return Status();
    }
  }
  return ModelFileError(path, "default_prompt_name is not the name of a text in prompts");
}

// The keys that the Transformer module of sentence-transformers takes.
Status CheckTransformerKeys(const json& root, const std::string& path) {
  if (Status status =
          OnlyKeys(root, path,
                   {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name",
                    "processing_kwargs", "unpad_inputs", "backend", "model_args", "model_kwargs", "tokenizer_args",
                    "processor_kwargs", "config_args", "config_kwargs", "tokenizer_name_or_path"});
      !status.ok()) {
    return status;
  }
  // trust_remote_code in a file is never believed.
  const std::vector<const char*> no_arguments = {"{}", R"({"trust_remote_code": false})",
                                                 R"({"trust_remote_code": true})"};
  return RefuseOthers(
      root, path,
      {{"do_lower_case", {"false", "true"}},
       {"transformer_task", {"\"feature-extraction\""}},
       {"modality_config", {R"({"text": {"method": "forward", "method_output_name": "last_hidden_state"}})"}},
       {"module_output_name", {"\"token_embeddings\""}},
       {"processing_kwargs", {"{}"}},
       {"backend", {"\"torch\""}},
       {"model_args", no_arguments},
       {"model_kwargs", no_arguments},
       {"tokenizer_args", no_arguments},
       {"processor_kwargs", no_arguments},
       {"config_args", no_arguments},
       {"config_kwargs", no_arguments},
       {"tokenizer_name_or_path", {}}});
}

}  // namespace

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
      return ModelFileError(path, "module " + std::to_string(i) + " is " + Shown(module.kind) +
                                      "; supported: Transformer, Pooling and, last, Normalize, in this order");
    }
  }
  if (modules->size() < 2) return ModelFileError(path, "needs at least a Transformer and a Pooling module");
  config->transformer_dir = (*modules).at(0).path;
  *pooling_path = (*modules).at(1).path + "/config.json";
  config->normalizes = modules->size() == 3;
  return Status();
}

Status ReadPooling(const std::string& path, ModelConfig* config) {
  Result<json> root = ReadJsonObject(path);
  if (!root.ok()) return root.status();
  if (Status status =
          OnlyKeys(*root, path,
                   {"word_embedding_dimension", "embedding_dimension", "pooling_mode_cls_token",
                    "pooling_mode_max_tokens", "pooling_mode_mean_tokens", "pooling_mode_mean_sqrt_len_tokens",
                    "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken", "pooling_mode", "include_prompt"});
      !status.ok()) {
    return status;
  }
  if (Status status = RefuseOthers(*root, path, {{"include_prompt", {"true"}}}); !status.ok()) return status;
  Result<std::string> mode = PoolingMode(*root, path);
  if (!mode.ok()) return mode.status();
  if (*mode != "mean" && *mode != "cls") {
    return ModelFileError(path, "pooling mode " + Shown(*mode) + "; supported: mean and cls");
  }
  config->spec.pooling = *mode == "mean" ? Pooling::kMean : Pooling::kCls;
  for (const char* key : {"word_embedding_dimension", "embedding_dimension"}) {
    uint32_t width = config->spec.hidden;
    if (!root->contains(key)) continue;
    if (Status status = ReadNumber(*root, path, key, 1, 8192, &width); !status.ok()) return status;
    if (width != config->spec.hidden) {
      return ModelFileError(path, std::string(key) + " differs from the model's hidden_size");
    }
  }
  return Status();
}

Status ReadSentenceTransformersConfig(ModelConfig* config) {
  config->width = config->spec.hidden;
  const std::string path = config->directory + "/config_sentence_transformers.json";
  if (!fs::exists(path)) return Status();
  Result<json> root = ReadJsonObject(path);
  if (!root.ok()) return root.status();
  if (Status status = OnlyKeys(
          *root, path,
          {"__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type"});
      !status.ok()) {
    return status;
  }
  if (Status status = RefuseOthers(*root, path, {{"model_type", {"\"SentenceTransformer\""}}}); !status.ok()) {
    return status;
  }
  if (const auto width = root->find("truncate_dim"); width != root->end() && !width->is_null()) {
    uint32_t kept = 0;
    constexpr uint32_t kAny = std::numeric_limits<uint32_t>::max();
    if (Status status = ReadNumber(*root, path, "truncate_dim", 1, kAny, &kept); !status.ok()) return status;
    config->width = std::min(kept, config->spec.hidden);
  }
  return ReadDefaultPrompt(*root, path, &config->prompt);
}

Status ReadTransformerModule(ModelConfig* config, std::optional<uint32_t>* tokens_max) {
  // The first that is not empty counts.
  for (const char* kind : {"bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"}) {
    const std::string path = config->transformer_dir + "/sentence_" + kind + "_config.json";
    if (!fs::exists(path)) continue;
    Result<json> root = ReadJsonObject(path);
    if (!root.ok()) return root.status();
    if (root->empty()) continue;
    if (Status status = CheckTransformerKeys(*root, path); !status.ok()) return status;
    config->tokenizer_files.lowercase_text = IsTrue(*root, "do_lower_case");
    const auto limit = root->find("max_seq_length");
    if (limit == root->end() || limit->is_null()) return Status();
    uint32_t tokens = 0;
    constexpr uint32_t kAny = std::numeric_limits<uint32_t>::max();
    if (Status status = ReadNumber(*root, path, "max_seq_length", 2, kAny, &tokens); !status.ok()) return status;
    *tokens_max = tokens;
    return Status();
  }
  return Status();
}

}  // namespace sutra
