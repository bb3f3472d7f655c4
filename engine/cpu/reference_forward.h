// The encoder by its definition, in fp32, straight over the tensors as they were read: what the vectors of every kernel
// set are compared with at load, hence written without packing, fusing, curves or instruction sets. About a hundredth
// of the kernels' speed for a batch; a few tokens take 10 to 20 ms with MiniLM.
// Thread rule: any thread; reads the weights only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/encoder_spec.h"
#include "engine/model/encoder_weights.h"

namespace sutra::cpu {

// The pooled vector, `hidden` floats, of one text. REQUIRES 1 <= ids.size() <= spec.tokens_max, ids within the
// vocabulary.
std::vector<float> ReferenceForward(const EncoderSpec& spec, const EncoderWeights& weights,
                                    std::span<const int32_t> ids);

}  // namespace sutra::cpu
