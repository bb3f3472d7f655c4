// Which CPU kernels compute a model here, and in which precision: decided once at load, from the CPU it runs on.
// Thread rule: any thread; no state but the environment variable SUTRA_CPU_KERNELS.
#pragma once

#include "engine/cpu/kernels/kernels.h"
#include "engine/model/compute_options.h"
#include "engine/model/encoder_spec.h"
#include "shm/base/status.h"

namespace sutra::cpu {

struct KernelChoice {
  Precision precision = Precision::kF32;  // never kAuto
  const KernelTable* kernels = nullptr;   // never null

  bool portable() const { return kernels == PortableKernels(kernels->element); }
};

// kAuto takes bf16 only where our kernels multiply it natively, correctly and faster than fp32, which a trial checks
// here; it never takes an emulation. SUTRA_CPU_KERNELS (auto, portable, avx2, avx512, avx512_bf16, amx_bf16) forces one
// set and fails where this CPU or the precision does not allow it.
Result<KernelChoice> ChooseKernels(const EncoderSpec& spec, Precision precision);

// Whether `kernels` computes a small product as plain arithmetic does. A set that does not is never used.
bool KernelsComputeCorrectly(const KernelTable& kernels);

}  // namespace sutra::cpu
