// An encoder's weights in int8, as the kernels of int8_kernels.h read them; what is not a product stays as in
// PackedModel.
// Thread rule: immutable once made.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/quantised_linear.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {

// By LinearRole. kFfnOut is one product of the whole inner width; the pass multiplies it block by block.
using QuantisedLayer = std::array<QuantisedLinear, kLinearRoles>;

struct QuantisedModel {
  // Words, positions, norms, widths, curve; its products (PackedLayer's linears) are empty.
  std::shared_ptr<const PackedModel> rest;
  std::vector<QuantisedLayer> layers;
};

}  // namespace sutra::cpu
