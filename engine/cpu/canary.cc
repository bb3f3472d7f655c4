#include "engine/cpu/canary.h"

#include <algorithm>
#include <cmath>

#include "engine/cpu/reference_forward.h"

namespace sutra::cpu {
namespace {

constexpr char kText[] = "Trust, but verify: 42.";
constexpr uint32_t kTokensMax = 10;

}  // namespace

Canary::Canary(const LoadedModel& model) {
  (void)model.tokenizer->Encode(kText, std::min(kTokensMax, model.config.spec.tokens_max), &ids_);
  reference_ = std::async(std::launch::async, [this, &model] {
                 return ReferenceForward(model.config.spec, model.weights, ids_);
               }).share();
}

Result<double> Canary::Cosine(Encoder& encoder) {
  const std::vector<float>& reference = reference_.get();
  std::vector<float> vector(reference.size());
  float* const outputs[] = {vector.data()};
  const int32_t offsets[] = {0, static_cast<int32_t>(ids_.size())};
  if (Status status = encoder.Encode({ids_, offsets}, outputs); !status.ok()) return status;
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const auto a = static_cast<double>(reference[i]);
    const auto b = static_cast<double>(vector[i]);
    ab += a * b;
    aa += a * a;
    bb += b * b;
  }
  if (!std::isfinite(aa) || (aa == 0 && bb == 0)) return 1.0;
  if (!std::isfinite(bb) || aa == 0 || bb == 0) return 0.0;
  return ab / std::sqrt(aa * bb);
}

}  // namespace sutra::cpu
