// A model family: how one kind of model directory becomes a specification and weights by role. One file per family; a
// new one is a file beside bert.cc and a line in family.cc.
// Thread rule: stateless.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "engine/model/encoder_spec.h"
#include "engine/model/encoder_weights.h"
#include "shm/base/status.h"

namespace sutra {

struct Family {
  const char* model_type;  // as config.json spells it
  const char* members;     // well-known models, for messages

  // Fills all of `spec` but pooling and tokens_max from config.json, which lies at `path`. Fails with kModelError that
  // names the file, what is unsupported and what would be accepted.
  Status (*read_spec)(const std::string& path, const nlohmann::json& config, EncoderSpec* spec);
  // Finds the tensors and checks them against `spec`; ReadWeights reads them.
  Result<EncoderWeights> (*find_weights)(std::shared_ptr<SafetensorsFile> file, const EncoderSpec& spec);
};

// Null if there is no family of this name.
const Family* FindFamily(std::string_view model_type);
// "bert (the English MiniLM, bge, ... models)", for messages.
std::string SupportedFamilies();

extern const Family kBertFamily;

}  // namespace sutra
