// The identity of a model: what must be equal for two vectors to be interchangeable. It follows from what is served,
// not from how the files spell it: a version string in config.json, white space, or tensors that are not used change
// nothing. Thread rule: stateless.
#pragma once

#include <string>

#include "engine/model/loaded_model.h"
#include "shm/base/status.h"

namespace sutra {

// Of how weights are rounded to int8 (engine/cpu/int8): raise it with whatever changes them or what is multiplied by
// them, from the texts of calibration to the zero point of rows.
inline constexpr uint32_t kInt8Recipe = 3;

// The canonical text, one setting a line: scheme number, digest of the weights and of the vocabulary, every setting
// that is obeyed, precision class ("fp32", "bf16", "int8" with its
// recipe) and device class ("cpu", "cuda").
std::string CanonicalIdentity(const LoadedModel& model, const std::string& precision, const std::string& device_class);

// 64 hex digits: SHA-256 of it.
Result<std::string> ComputeModelIdentity(const LoadedModel& model, const std::string& precision,
                                         const std::string& device_class);

}  // namespace sutra
