// What a model directory says about its model: the BERT family in Hugging Face / sentence-transformers layout.
//
// Thread rule: plain data after LoadModelConfig. Every number is checked against a range, because it later sizes
// buffers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shm/base/status.h"

namespace sutra {

enum class Activation : uint8_t { kGeluErf, kGeluTanh };
enum class Pooling : uint8_t { kMean, kCls };

struct ModelConfig {
  std::string name;             // last part of the model directory
  std::string directory;        // with modules.json, if there is one
  std::string transformer_dir;  // with config.json, the weights and the tokenizer
  std::string weights_path;
  uint32_t hidden = 0;
  uint32_t layers = 0;
  uint32_t heads = 0;
  uint32_t intermediate = 0;
  uint32_t vocabulary = 0;
  uint32_t positions = 0;
  float norm_epsilon = 0;
  Activation activation = Activation::kGeluErf;
  Pooling pooling = Pooling::kMean;
  bool normalizes = false;
  uint32_t tokens_max = 0;                  // max_seq_length, bounded by the position table, special tokens included
  std::vector<std::string> identity_files;  // what decides the vectors beside the weights; those that exist

  bool operator==(const ModelConfig&) const = default;
};

// Fails with kModelError and a message that names the file, what is wrong and what would be accepted.
Result<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace sutra
