// The AMX kernels over tiles emulated in plain code, so that their loops are tested on CPUs without AMX.
// Needs AVX-512 with bf16 for everything around the tiles.
#pragma once

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

const KernelTable* EmulatedAmxKernels();  // null where the compiler cannot build them

}  // namespace sutra::cpu
