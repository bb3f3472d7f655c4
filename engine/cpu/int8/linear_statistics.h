// What calibration learns of one product's inputs.
// Thread rule: plain data.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "engine/cpu/kernels/int8_kernels.h"

namespace sutra::cpu {

struct LinearStatistics {
  size_t depth = 0;
  std::array<std::vector<float>, kRowClasses> mean;  // of the inputs of each class of rows: mu_c, [depth]
  // Of the deviations d = x - mu_c, the weighted mean of d d^T over tokens: H, [depth][depth]. A token weighs 1 / the
  // length of its text, because pooling averages the errors of a long text out. Only k <= j of [k][j] is read.
  std::vector<float> moments;
};

}  // namespace sutra::cpu
