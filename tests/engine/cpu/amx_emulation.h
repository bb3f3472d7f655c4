// The AMX kernels over tiles emulated in plain code, so that their loops are tested on CPUs without AMX.
// Needs AVX-512 with bf16 for everything around the tiles.
#pragma once

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

// Null where the compiler cannot build them.
const KernelTable* EmulatedAmxKernels();
const KernelTable* EmulatedAmxInt8Kernels();

}  // namespace sutra::cpu
