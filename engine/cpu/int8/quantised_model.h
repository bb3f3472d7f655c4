// An encoder's weights in int8, as the kernels of int8_kernels.h read them; what is not a product stays as in
// PackedModel.
// Thread rule: immutable once made.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/quantised_linear.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {

// By LinearRole. kFfnOut is one product of the whole inner width; the pass multiplies it block by block.
using QuantisedLayer = std::array<QuantisedLinear, kLinearRoles>;

// How close the vectors are to those of the same weights in fp32, over built-in texts (int8_quality.h).
struct Int8Quality {
  std::string kernels;  // the set that computed them; another one may round otherwise
  double cosine_min = 0;
  double cosine_mean = 0;
  uint32_t texts = 0;
  std::string text;  // the one with the smallest cosine
};

struct QuantisedModel {
  // Words, positions, norms, widths, curve; its products (PackedLayer's linears) may have shapes only.
  std::shared_ptr<const PackedModel> rest;
  std::vector<QuantisedLayer> layers;
  Int8Quality quality;
};

}  // namespace sutra::cpu
