// From kernel sets that may compute a model to an encoder whose vectors were compared with plain fp32 arithmetic.
// Thread rule: any thread.
#pragma once

#include <memory>
#include <span>

#include "engine/cpu/kernel_choice.h"
#include "engine/model/encoder.h"
#include "engine/model/loaded_model.h"
#include "shm/base/status.h"

namespace sutra {

struct TrustedEncoder {
  std::unique_ptr<Encoder> encoder;
  Precision precision = Precision::kF32;
};

// The first of `choices` whose vector of the canary (cpu/canary.h) is close enough to the reference for its precision.
// A choice that is passed over costs a warning. Fails with kModelError if none is left, naming cosine, CPU and fix.
Result<TrustedEncoder> FirstTrusted(const LoadedModel& model, std::span<const cpu::KernelChoice> choices,
                                    uint32_t threads);

}  // namespace sutra
