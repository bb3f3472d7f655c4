// A model directory, loaded and checked as a whole: files present, shapes as configured, vocabulary within the
// embedding table. Every executor starts from it.
// Thread rule: plain data, moved to its user; LoadModel may be called by any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/encoder_weights.h"
#include "engine/model/model_config.h"
#include "engine/tokenizer/tokenizer.h"
#include "shm/base/status.h"

namespace sutra {

struct LoadedModel {
  ModelConfig config;
  EncoderWeights weights;
  std::unique_ptr<Tokenizer> tokenizer;  // prompt included
  std::string vocabulary_digest;
  std::vector<std::string> tokenizer_settings;  // canonical lines
};

// Reads each file once; what happens to the files afterwards changes nothing.
// Fails with kModelError and a message that names the file, the likely cause and the fix.
Result<LoadedModel> LoadModel(const std::string& model_dir);

// Only what turns texts into ids, exactly as in a LoadedModel. REQUIRES: `config` is fresh from LoadModelConfig.
Result<std::unique_ptr<Tokenizer>> LoadTokenizer(const ModelConfig& config);

}  // namespace sutra
