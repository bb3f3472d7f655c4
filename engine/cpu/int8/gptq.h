// Rounding that lets later weights of an output channel make up for the errors of earlier ones, given how the inputs
// vary together.
//
// Thread rule: stateless.
// Source: GPTQ (Frantar et al. 2023), in the form of Babai's nearest plane (Chen et al. 2025): with H = U^T U, an error
// costs |U (w - q)|^2, and the code of input j is chosen when those of all inputs behind it are known. The codes are
// GPTQ's; neither an inverse of H nor its update is needed.
#pragma once

#include <vector>

#include "engine/cpu/int8/transposed_weights.h"
#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

// Replaces weights by codes. `moments` is H, [depth][depth], as mixed and smoothed as the weights, and its diagonal is
// raised by `damping` times its mean; inputs with more energy are rounded first. An output channel that rounding to
// nearest serves better keeps that. Where H allows no factorisation, everything is rounded to nearest.
void RoundByGptq(const KernelTable& kernels, const std::vector<float>& moments, const std::vector<float>& scale,
                 float damping, TransposedWeights* weights);

// The codes nearest to each weight for itself.
void RoundToNearest(const std::vector<float>& scale, TransposedWeights* weights);

// Factorises the symmetric h [depth][depth] (its upper half is read) in place: h = U^T U, U upper triangular; what lies
// below the diagonal is left undefined. False if h is not positive definite. REQUIRES depth % 64 == 0.
bool Cholesky(const KernelTable& kernels, size_t depth, float* h);

}  // namespace sutra::cpu
