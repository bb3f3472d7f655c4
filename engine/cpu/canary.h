// One short text, computed by what shall serve and by the definition (reference_forward.h), before anything is served:
// a kernel that this CPU computes wrongly on real weights, or a model that a precision does not bear, shows here.
// Thread rule: used by one thread; the reference is computed by another meanwhile.
#pragma once

#include <cstdint>
#include <future>
#include <vector>

#include "engine/model/compute_options.h"
#include "engine/model/encoder.h"
#include "engine/model/loaded_model.h"

namespace sutra::cpu {

// The cosine below which a precision is not trusted. fp32 differs by the order of its sums only.
constexpr double CanaryCosineMin(Precision precision) { return precision == Precision::kF32 ? 0.9999 : 0.999; }

class Canary {
 public:
  // Begins the reference. REQUIRES: the model outlives this.
  explicit Canary(const LoadedModel& model);

  // The cosine of the encoder's vector and the reference: 1 where both are zero, or where the reference itself is not
  // finite (the weights are at fault then, and whoever checks vectors says so), 0 where only the encoder's is not.
  Result<double> Cosine(Encoder& encoder);

 private:
  std::vector<int32_t> ids_;
  std::shared_future<std::vector<float>> reference_;
};

}  // namespace sutra::cpu
