// Triples and butterflies over vectors of kMixLanes elements.
#include "engine/cpu/int8/mixing.h"

#include <cassert>
#include <cmath>

#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {
namespace {

constexpr size_t kTriples = 8;  // of vectors, in a block that has them

bool HasTriples(size_t vectors) { return vectors == 3 * kTriples; }

// Each of three runs minus 2/3 of their sum: a reflection at the plane across (1, 1, 1).
void Reflect(float* a, float* b, float* c, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float part = (a[i] + b[i] + c[i]) * (2.0F / 3);
    a[i] -= part;
    b[i] -= part;
    c[i] -= part;
  }
}

void Butterfly(float* a, float* b, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const float sum = a[i] + b[i];
    b[i] = a[i] - b[i];
    a[i] = sum;
  }
}

void Butterflies(float* x, size_t vectors, size_t run) {
  for (size_t h = 1; h < vectors; h *= 2) {
    for (size_t i = 0; i < vectors; ++i) {
      if ((i & h) == 0) Butterfly(x + i * run, x + (i + h) * run, run);
    }
  }
}

}  // namespace

void Mix(float* x, size_t depth, size_t block, size_t width) {
  assert(block == MixBlockWidth(depth));
  const size_t vectors = block / kMixLanes;
  const size_t run = kMixLanes * width;
  for (size_t begin = 0; begin < depth; begin += block) {
    float* const v = x + begin * width;
    if (HasTriples(vectors)) {
      for (size_t i = 0; i < kTriples; ++i) {
        Reflect(v + i * run, v + (i + kTriples) * run, v + (i + 2 * kTriples) * run, run);
      }
      for (size_t i = 0; i < vectors; i += kTriples) Butterflies(v + i * run, kTriples, run);
    } else {
      Butterflies(v, vectors, run);
    }
  }
}

float MixFactor(size_t block) {
  const size_t vectors = block / kMixLanes;
  return 1 / std::sqrt(static_cast<float>(HasTriples(vectors) ? kTriples : vectors));
}

}  // namespace sutra::cpu
