// The identity of a model: what must be equal for two vectors to be interchangeable.
// Thread rule: stateless.
#pragma once

#include <string>

#include "engine/model/model_config.h"
#include "shm/base/status.h"

namespace sutra {

// 64 hex digits: SHA-256 over the weights, the files in config.identity_files, precision class ("fp32", "bf16") and
// device class ("cpu", "cuda"). Each part is hashed with its name and length, so that no two models share an input.
Result<std::string> ComputeModelIdentity(const ModelConfig& config, const std::string& weights_digest,
                                         const std::string& precision, const std::string& device_class);

}  // namespace sutra
