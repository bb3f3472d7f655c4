// An encoder's weights in int8, as the kernels of int8_kernels.h read them; what is not a product stays as in
// PackedModel.
// Thread rule: immutable once made.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {

// One product, with how its inputs are quantised. Columns are padded to whole panels, with zeros.
struct QuantisedLinear {
  size_t columns = 0;
  size_t depth = 0;                              // padded; a multiple of 64
  size_t block = 0;                              // MixBlockWidth(depth)
  AlignedBuffer weights;                         // s8 [panel][depth / 4][64][4]
  AlignedBuffer scale;                           // fp32 [panels * 64]
  AlignedBuffer column_sums;                     // fp32 [depth / block][panels * 64]
  std::array<AlignedBuffer, kRowClasses> bias;   // fp32 [panels * 64]: W mu_c + b with unquantised W
  AlignedBuffer inverse_smooth;                  // fp32 [depth], the factor of M included
  std::array<AlignedBuffer, kRowClasses> shift;  // fp32 [depth]: -mu_c * inverse_smooth

  size_t panels() const { return (columns + kPanelColumns - 1) / kPanelColumns; }
  Quantisation how() const {
    return {depth, block, inverse_smooth.As<float>(), {shift[0].As<float>(), shift[1].As<float>()}};
  }
};

// By LinearRole. kFfnOut is one product of the whole inner width; the pass multiplies it block by block.
using QuantisedLayer = std::array<QuantisedLinear, kLinearRoles>;

struct QuantisedModel {
  // Words, positions, norms, widths, curve; its products (PackedLayer's linears) are empty.
  std::shared_ptr<const PackedModel> rest;
  std::vector<QuantisedLayer> layers;
};

}  // namespace sutra::cpu
