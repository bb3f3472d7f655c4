// BERT: absolute positions, segments, norms after each residual. Tensor names come with and without "bert." in front.
#include <nlohmann/json.hpp>

#include "engine/model/families/family.h"
#include "engine/model/json_file.h"

namespace sutra {
namespace {

using nlohmann::json;

Status ReadActivation(const std::string& path, const json& config, EncoderSpec* spec) {
  const std::string activation = StringOr(config, "hidden_act", "");
  if (activation == "gelu") {
    spec->activation = Activation::kGeluErf;
  } else if (activation == "gelu_new" || activation == "gelu_pytorch_tanh") {
    spec->activation = Activation::kGeluTanh;
  } else {
    return ModelFileError(path, "hidden_act '" + activation + "'; supported: gelu, gelu_new, gelu_pytorch_tanh");
  }
  return {};
}

// Settings with which the weights belong to something else than a plain BERT.
Status RefuseOtherModels(const std::string& path, const json& config) {
  for (const char* key : {"quantization_config", "pruned_heads", "auto_map"}) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || (found->is_object() && found->empty())) continue;
    return ModelFileError(path, std::string(key) + " is set; supported: BERT as transformers computes it, unchanged");
  }
  const std::string tokenizer = StringOr(config, "tokenizer_class", "BertTokenizer");
  if (tokenizer != "BertTokenizer" && tokenizer != "BertTokenizerFast") {
    return ModelFileError(path, "tokenizer_class '" + tokenizer + "'; supported: BertTokenizer");
  }
  return {};
}

Status ReadBertSpec(const std::string& path, const json& config, EncoderSpec* spec) {
  const std::string position = StringOr(config, "position_embedding_type", "absolute");
  if (position != "absolute") {
    return ModelFileError(path, "position_embedding_type '" + position + "'; supported: absolute");
  }
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    if (IsTrue(config, key)) return ModelFileError(path, std::string(key) + " is set; supported: encoders");
  }
  if (Status status = RefuseOtherModels(path, config); !status.ok()) return status;

  struct Field {
    const char* key;
    uint32_t high;
    uint32_t* out;
  };
  const Field fields[] = {
      {"hidden_size", 8192, &spec->hidden},       {"num_hidden_layers", 128, &spec->layers},
      {"num_attention_heads", 256, &spec->heads}, {"intermediate_size", 65536, &spec->intermediate},
      {"vocab_size", 4194304, &spec->vocabulary}, {"max_position_embeddings", 65536, &spec->positions}};
  for (const Field& field : fields) {
    if (Status status = ReadNumber(config, path, field.key, 1, field.high, field.out); !status.ok()) return status;
  }
  if (spec->hidden % spec->heads != 0) {
    return ModelFileError(path, "hidden_size is not a multiple of num_attention_heads");
  }
  if (spec->positions < 2) return ModelFileError(path, "max_position_embeddings must be at least 2");
  if (Status status = ReadActivation(path, config, spec); !status.ok()) return status;

  const auto epsilon = config.find("layer_norm_eps");
  const double value = epsilon == config.end() ? 1e-12 : epsilon->is_number() ? epsilon->get<double>() : -1.0;
  if (!(value >= 0 && value < 1)) return ModelFileError(path, "layer_norm_eps must be a number from 0 to below 1");
  spec->norm_epsilon = static_cast<float>(value);
  return {};
}

Result<EncoderWeights> FindBertWeights(std::shared_ptr<SafetensorsFile> file, const EncoderSpec& spec) {
  EncoderWeights weights;
  weights.file = std::move(file);
  const bool bare = weights.file->Find("embeddings.word_embeddings.weight") != nullptr;
  TensorFinder find(*weights.file, bare ? "" : "bert.");
  const uint64_t hidden = spec.hidden;
  const uint64_t inner = spec.intermediate;
  const std::string segments = "embeddings.token_type_embeddings.weight";
  weights.words = find.Get("embeddings.word_embeddings.weight", {spec.vocabulary, hidden});
  weights.positions = find.Get("embeddings.position_embeddings.weight", {spec.positions, hidden});
  weights.segments = find.Get(segments, {find.Rows(segments, 2), hidden});
  weights.embedding_norm = find.Norm("embeddings.LayerNorm", hidden);
  for (uint32_t i = 0; i < spec.layers; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    LayerTensors tensors;
    tensors.query = find.Linear(layer + "attention.self.query", hidden, hidden);
    tensors.key = find.Linear(layer + "attention.self.key", hidden, hidden);
    tensors.value = find.Linear(layer + "attention.self.value", hidden, hidden);
    tensors.attention_out = find.Linear(layer + "attention.output.dense", hidden, hidden);
    tensors.attention_norm = find.Norm(layer + "attention.output.LayerNorm", hidden);
    tensors.ffn_in = find.Linear(layer + "intermediate.dense", inner, hidden);
    tensors.ffn_out = find.Linear(layer + "output.dense", hidden, inner);
    tensors.ffn_norm = find.Norm(layer + "output.LayerNorm", hidden);
    weights.layers.push_back(tensors);
  }
  if (Status status = find.status(); !status.ok()) return status;
  return weights;
}

}  // namespace

constexpr Family kBertFamily = {
    .model_type = "bert",
    .members = "the English MiniLM, bge, e5, gte and arctic models with a WordPiece tokenizer",
    .read_spec = ReadBertSpec,
    .find_weights = FindBertWeights};

}  // namespace sutra
