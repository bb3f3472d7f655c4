// What a model directory says about its model, in Hugging Face / sentence-transformers layout.
//
// Every setting in it is obeyed, refused by name, or without influence on the vectors; tests/engine/model/
// folder_keys_test.cc has the table. Each file is read once.
//
// Thread rule: plain data after LoadModelConfig. Every number is checked against a range, because it later sizes
// buffers.
#pragma once

#include <string>

#include "engine/model/encoder_spec.h"
#include "engine/model/families/family.h"
#include "engine/tokenizer/tokenizer_files.h"
#include "shm/base/status.h"

namespace sutra {

struct ModelConfig {
  std::string name;       // last part of the model directory; of a snapshot in a Hugging Face cache, its repository
  std::string directory;  // with modules.json, if there is one
  std::string transformer_dir;  // with config.json, the weights and the tokenizer
  std::string weights_path;
  const Family* family = nullptr;
  EncoderSpec spec;
  bool normalizes = false;  // Normalize is the last module: the model's own vector has unit length (before it is cut)
  uint32_t width = 0;       // floats in a vector: the hidden size, or truncate_dim where that is less
  std::string prompt;       // goes before every text; usually empty
  TokenizerFiles tokenizer_files;
};

// Fails with kModelError and a message that names the file, the problem and what would be accepted.
Result<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace sutra
