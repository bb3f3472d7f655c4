// From kernel sets that may compute a model to an encoder whose vectors were compared with plain fp32 arithmetic.
// Thread rule: any thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/cpu/core_groups.h"
#include "engine/cpu/int8/quantised_model.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/encoder.h"
#include "engine/model/loaded_model.h"
#include "shm/base/status.h"

namespace sutra {

using Encoders = std::vector<std::unique_ptr<Encoder>>;  // of the same weights, one for each group of cores

struct TrustedEncoders {
  Encoders encoders;
  Precision precision = Precision::kF32;
};

// All that an encoder computes from, but for the precision.
struct ServedWeights {
  EncoderSpec spec;
  std::string digest;  // of the tensors
  bool operator==(const ServedWeights&) const = default;

  static ServedWeights Of(const LoadedModel& model) { return {model.config.spec, model.weights.digest}; }
};

// The first of `choices` whose vector of the canary (cpu/canary.h) is close enough to the reference for its precision.
// A choice that is passed over costs a warning. Fails with kModelError if none is left, naming cosine, CPU and fix.
Result<TrustedEncoders> FirstTrusted(const LoadedModel& model, std::span<const cpu::KernelChoice> choices,
                                     const cpu::CoreGroups& groups);

// The same of a model in int8, whose quality was measured on more texts when its weights were prepared: here on this
// CPU and these weights. `cosine_min` is what was asked for then; the canary asks for no more, and for nothing where
// that is 0.
Result<TrustedEncoders> TrustedInt8(const LoadedModel& model, std::shared_ptr<const cpu::QuantisedModel> quantised,
                                    const cpu::KernelTable& kernels, double cosine_min, const cpu::CoreGroups& groups);

// What computes a batch that `first` failed to: fp32, by the fastest set where `first` is another precision, else by
// the portable one. Reads the folder again; fails with kModelError if it has not the weights and settings of `served`
// any more: what a fallback computes is stored under the identity of `first`. Workers that ask at the same time are
// served one after another, as each reading takes memory for all weights.
Result<std::unique_ptr<Encoder>> MakeFallbackEncoder(const std::string& model_dir, const ServedWeights& served,
                                                     Precision first, const cpu::CoreGroup& group, CpuIsa isa_max);

}  // namespace sutra
