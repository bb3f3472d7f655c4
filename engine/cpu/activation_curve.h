// Builds the polynomial and the segments with which the CPU kernels compute an activation (see ActivationCurve in
// kernels.h).
#pragma once

#include "engine/cpu/kernels/kernels.h"
#include "engine/model/encoder_spec.h"

namespace sutra::cpu {

// The largest absolute error over all finite x is |x| * 2^-24 plus 2e-6 for fp32, 1.5e-4 for bf16 (whose own rounding
// of a value near one is 4e-3). For x below -4 bf16 gives exactly zero.
ActivationCurve MakeActivationCurve(Activation activation);

}  // namespace sutra::cpu
