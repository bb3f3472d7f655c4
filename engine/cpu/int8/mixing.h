// The orthogonal mixing M of int8_kernels.h on plain floats, for what is computed once at load.
// Thread rule: stateless.
#pragma once

#include <cstddef>

namespace sutra::cpu {

// Applies M, without MixFactor, to `depth` elements in blocks of `block`; an element is a run of `width` floats, so
// that a matrix [depth][width] is multiplied by M from the left in one sweep over memory.
// REQUIRES block == MixBlockWidth(depth).
void Mix(float* x, size_t depth, size_t block, size_t width = 1);

// What makes M orthogonal.
float MixFactor(size_t block);

}  // namespace sutra::cpu
