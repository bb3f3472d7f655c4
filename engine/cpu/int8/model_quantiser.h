// All products of a model to int8, from its fp32 weights and texts that show what its products read.
//
// Thread rule: any thread; it owns a team of helpers meanwhile. The result is the same for any number of threads.
// Memory: 4 depth^2 bytes per product of as many layers as kMomentBytesMax holds (one at least), and a few such squares
// per thread.
#pragma once

#include <memory>
#include <vector>

#include "engine/cpu/int8/quantised_model.h"
#include "engine/cpu/int8/token_texts.h"
#include "shm/base/status.h"

namespace sutra::cpu {

inline constexpr size_t kMomentBytesMax = size_t{256} << 20;

// `exact` is packed in fp32 for `kernels`. Fails with kModelError where the model computes what is not finite; throws
// where memory runs out.
Result<std::vector<QuantisedLayer>> QuantiseLayers(const std::shared_ptr<const PackedModel>& exact,
                                                   const KernelTable& kernels, const TokenTexts& texts, int threads,
                                                   size_t moment_bytes_max = kMomentBytesMax);

}  // namespace sutra::cpu
