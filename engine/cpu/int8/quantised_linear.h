// One product's weights in s8, made from fp32 weights and the statistics of its inputs: smoothing, mixing, a scale per
// output channel, rounding (gptq.h).
//
// Thread rule: stateless.
// Sources: SmoothQuant (Xiao et al. 2022), here by rms instead of maximum; QuaRot (Ashkboos et al. 2024) for mixing.
#pragma once

#include <array>
#include <cstddef>

#include "engine/cpu/aligned_buffer.h"
#include "engine/cpu/int8/linear_statistics.h"
#include "engine/cpu/kernels/int8_kernels.h"
#include "shm/base/numbers.h"

namespace sutra::cpu {

// One product, with how its inputs are quantised. Columns are padded to whole panels, with zeros.
struct QuantisedLinear {
  size_t columns = 0;
  size_t depth = 0;                              // padded; a multiple of 64
  size_t block = 0;                              // MixBlockWidth(depth)
  AlignedBuffer weights;                         // s8 [panel][depth / 4][64][4]
  AlignedBuffer scale;                           // fp32 [panels * 64]
  AlignedBuffer offsets;                         // s32 [depth / block][panels * 64], see Int8GemmCall
  std::array<AlignedBuffer, kRowClasses> bias;   // fp32 [panels * 64]: W mu_c + b with unquantised W
  AlignedBuffer inverse_smooth;                  // fp32 [depth], the factor of M included; 0 behind the real depth
  std::array<AlignedBuffer, kRowClasses> shift;  // fp32 [depth]: -mu_c * inverse_smooth

  size_t panels() const { return (columns + kPanelColumns - 1) / kPanelColumns; }
  Quantisation how() const {
    return {depth, block, inverse_smooth.As<float>(), {shift[0].As<float>(), shift[1].As<float>()}};
  }
};

// What a product of `depth` inputs is padded to.
constexpr size_t QuantisedDepth(size_t depth) { return RoundUp(depth, kPanelColumns); }

struct Rounding {
  const KernelTable* kernels = nullptr;  // fp32, for GPTQ; null: each weight is rounded for itself
  float damping = 0.05F;                 // of the mean of H's diagonal
};

// Quantises row-major weights [columns][depth]; `bias` may be null. A depth that is not a multiple of 64 is padded with
// inputs that count for nothing, whatever they hold (unless it is not a number).
// REQUIRES statistics.depth == depth.
QuantisedLinear PackQuantised(const float* weight, const float* bias, size_t columns, size_t depth,
                              const LinearStatistics& statistics, const Rounding& rounding = {});

}  // namespace sutra::cpu
