// Which CPU kernels compute a model here, and in which precision: decided once at load from the CPU found at run time.
// Thread rule: any thread; no state but the environment variable SUTRA_CPU_KERNELS.
#pragma once

#include <string>

#include "engine/cpu/kernels.h"
#include "engine/model/model_config.h"
#include "shm/base/status.h"

namespace sutra::cpu {

struct KernelChoice {
  std::string precision;                 // "fp32" or "bf16"
  const KernelTable* kernels = nullptr;  // null: the ATen encoder computes
};

// `precision` is "auto", "fp32" or "bf16". "auto" takes bf16 only where own kernels multiply it natively, correctly and
// faster than fp32, all three tried out now; it never takes an emulation. SUTRA_CPU_KERNELS (auto, aten, avx512,
// avx512_bf16, amx_bf16) forces one set and fails where this CPU or the precision does not allow it.
Result<KernelChoice> ChooseKernels(const ModelConfig& config, const std::string& precision);

// Whether `kernels` computes a small product as plain arithmetic does. A set that fails this is not used.
bool KernelsComputeCorrectly(const KernelTable& kernels);

}  // namespace sutra::cpu
