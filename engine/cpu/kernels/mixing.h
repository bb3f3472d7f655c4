// M of MixBlockWidth (int8_kernels.h) on vectors of the compiler: each works on columns that are `kMixLanes` apart.
// Include from the kernel files only, see avx512_body.h.
#pragma once

namespace {

// (v[i], v[i + h]) becomes (sum, difference) for h = 1, 2, 4, ... kSpan / 2, in each group of kSpan vectors.
template <int kSpan, int kVectors, class Vector>
inline __attribute__((always_inline)) void Butterflies(Vector (&v)[kVectors]) {
#pragma GCC unroll 8
  for (int h = 1; h < kSpan; h *= 2) {
#pragma GCC unroll 32
    for (int i = 0; i < kVectors; ++i) {
      if ((i & h) != 0) continue;
      const Vector sum = v[i] + v[i + h];
      v[i + h] = v[i] - v[i + h];
      v[i] = sum;
    }
  }
}

}  // namespace
