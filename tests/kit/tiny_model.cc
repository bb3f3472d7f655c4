#include "tests/kit/tiny_model.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

namespace sutra {
namespace {

using nlohmann::json;

// Exact for the values used here: multiples of 1/128 below 2 have few enough bits for every type.
std::string Encode(float value, const std::string& type) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes(type == "F32" ? 4 : 2, '\0');
  if (type == "F32") {
    std::memcpy(bytes.data(), &bits, 4);
    return bytes;
  }
  auto half = static_cast<uint16_t>(bits >> 16);  // BF16
  if (type == "F16") {
    const uint32_t exponent = (bits >> 23) & 0xffU;
    const uint32_t sign = (bits >> 16) & 0x8000U;
    half = static_cast<uint16_t>(value == 0 ? sign : sign | ((exponent - 112) << 10) | ((bits >> 13) & 0x3ffU));
  }
  std::memcpy(bytes.data(), &half, 2);
  return bytes;
}

}  // namespace

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  const uint64_t bytes = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &bytes, 8);
  return file + header + data;
}

TinyModel::TinyModel(const Shape& shape) {
  config_ = {{"model_type", "bert"},
             {"hidden_size", shape.hidden},
             {"num_hidden_layers", shape.layers},
             {"num_attention_heads", shape.heads},
             {"intermediate_size", shape.intermediate},
             {"vocab_size", kVocabulary},
             {"max_position_embeddings", shape.positions},
             {"hidden_act", "gelu"},
             {"layer_norm_eps", 1e-12}};
  const auto add = [this](const std::string& name, std::vector<uint32_t> extents) {
    shapes_[name] = std::move(extents);
  };
  add("embeddings.word_embeddings.weight", {kVocabulary, shape.hidden});
  add("embeddings.position_embeddings.weight", {shape.positions, shape.hidden});
  add("embeddings.token_type_embeddings.weight", {2, shape.hidden});
  const auto add_norm = [&](const std::string& name) {
    add(name + ".weight", {shape.hidden});
    add(name + ".bias", {shape.hidden});
  };
  const auto add_linear = [&](const std::string& name, uint32_t out, uint32_t in) {
    add(name + ".weight", {out, in});
    add(name + ".bias", {out});
  };
  add_norm("embeddings.LayerNorm");
  for (uint32_t i = 0; i < shape.layers; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    for (const char* part : {"query", "key", "value"})
      add_linear(layer + "attention.self." + part, shape.hidden, shape.hidden);
    add_linear(layer + "attention.output.dense", shape.hidden, shape.hidden);
    add_norm(layer + "attention.output.LayerNorm");
    add_linear(layer + "intermediate.dense", shape.intermediate, shape.hidden);
    add_linear(layer + "output.dense", shape.hidden, shape.intermediate);
    add_norm(layer + "output.LayerNorm");
  }
  std::mt19937 random(11);
  for (const auto& [name, extents] : shapes_) {
    size_t count = 1;
    for (const uint32_t extent : extents) count *= extent;
    std::vector<float>& values = tensors_[name];
    for (size_t i = 0; i < count; ++i) values.push_back(static_cast<float>(static_cast<int>(random() % 64) - 32) / 128);
  }
}

void TinyModel::Save(const std::string& type, const std::string& prefix) {
  json header;
  std::string data;
  for (const auto& [name, values] : tensors_) {
    const size_t begin = data.size();
    for (const float value : values) data += Encode(value, type);
    header[prefix + name] = {{"dtype", type}, {"shape", shapes_[name]}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // as the library does, so that floats are aligned in the file
  directory_.Write("model.safetensors", SafetensorsBytes(text, data));
  directory_.Write("config.json", config_.dump());
  directory_.Write("modules.json",
                   R"([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])");
  directory_.Write("1_Pooling/config.json",
                   R"({"word_embedding_dimension": )" + config_["hidden_size"].dump() +
                       R"(, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true})");
  directory_.Write("sentence_bert_config.json", R"({"max_seq_length": 32, "do_lower_case": false})");
  directory_.Write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nready\na\nb\nc\nd\ne\n.\n");
  directory_.Write("tokenizer_config.json", R"({"do_lower_case": true, "model_max_length": 512})");
}

}  // namespace sutra
