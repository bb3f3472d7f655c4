// A change of these lines is a change of the identity of every model: caches start empty. Raise the scheme number where
// the same lines would mean something else than before.
#include "engine/model/model_identity.h"

#include <bit>

#include "engine/model/compute_options.h"
#include "shm/base/sha256.h"

namespace sutra {

std::string CanonicalIdentity(const LoadedModel& model, const std::string& precision, const std::string& device_class) {
  const ModelConfig& config = model.config;
  const EncoderSpec& spec = config.spec;
  std::string text;
  const auto line = [&text](const char* name, const std::string& value) {
    text += std::string(name) + " " + value + "\n";
  };
  const auto number = [&line](const char* name, uint32_t value) { line(name, std::to_string(value)); };
  number("scheme", 2);
  line("weights", model.weights.digest);
  line("vocabulary", model.vocabulary_digest);
  line("family", config.family->model_type);
  number("hidden", spec.hidden);
  number("layers", spec.layers);
  number("heads", spec.heads);
  number("intermediate", spec.intermediate);
  number("words", spec.vocabulary);
  number("positions", spec.positions);
  number("tokens_max", spec.tokens_max);
  number("norm_epsilon_bits", std::bit_cast<uint32_t>(spec.norm_epsilon));
  line("activation", spec.activation == Activation::kGeluErf ? "gelu_erf" : "gelu_tanh");
  line("pooling", spec.pooling == Pooling::kMean ? "mean" : "cls");
  line("normalizes", config.normalizes ? "yes" : "no");
  number("width", config.width);
  for (const std::string& setting : model.tokenizer_settings) text += setting + "\n";
  line("prompt", std::to_string(config.prompt.size()) + ":" + config.prompt);
  line("precision", precision);
  if (precision == Name(Precision::kInt8)) number("int8_recipe", kInt8Recipe);
  line("device", device_class);
  return text;
}

Result<std::string> ComputeModelIdentity(const LoadedModel& model, const std::string& precision,
                                         const std::string& device_class) {
  return Sha256Hex(CanonicalIdentity(model, precision, device_class));
}

}  // namespace sutra
