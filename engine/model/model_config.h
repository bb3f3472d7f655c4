// What a model directory says about its model, in Hugging Face / sentence-transformers layout.
//
// Thread rule: plain data after LoadModelConfig. Every number is checked against a range, because it later sizes
// buffers.
#pragma once

#include <string>
#include <vector>

#include "engine/model/encoder_spec.h"
#include "engine/model/families/family.h"
#include "shm/base/status.h"

namespace sutra {

struct ModelConfig {
  std::string name;             // last part of the model directory
  std::string directory;        // with modules.json, if there is one
  std::string transformer_dir;  // with config.json, the weights and the tokenizer
  std::string weights_path;
  const Family* family = nullptr;
  EncoderSpec spec;
  bool normalizes = false;                  // the model's own vector has unit length
  std::vector<std::string> identity_files;  // files that, like the weights, determine the vectors; those that exist
};

// Fails with kModelError and a message that names the file, the problem and what would be accepted.
Result<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace sutra
