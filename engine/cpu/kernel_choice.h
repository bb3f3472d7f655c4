// Which CPU kernels compute a model here, and in which precision: decided at load, from the CPU it runs on.
// Thread rule: any thread; no state.
#pragma once

#include <string>
#include <vector>

#include "engine/cpu/kernels/kernels.h"
#include "engine/model/compute_options.h"
#include "shm/base/status.h"

namespace sutra::cpu {

struct KernelChoice {
  Precision precision = Precision::kF32;  // never kAuto
  const KernelTable* kernels = nullptr;   // never null

  bool portable() const { return kernels == PortableKernels(kernels->element); }
};

// The sets that may compute models, the best first, never empty; each next one is for a caller that finds the one
// before it not to be trusted. All have passed a trial in a child process (kernel_trial.h); a set that fails it is left
// out, with a warning that names the CPU.
//
// kAuto begins with bf16 only where this CPU multiplies it natively and a trial finds that faster than fp32; fp32
// follows, and it never takes an emulation. kBf16 is emulated by the portable set where the CPU has no bf16 at all or
// --cpu-isa portable asks for it. Fails with kBadOption where isa_max rules out what `precision` needs.
Result<std::vector<KernelChoice>> ChooseKernels(Precision precision, CpuIsa isa_max = CpuIsa::kAuto);

struct TrustedKernels {
  std::vector<const KernelTable*> sets;
  std::string left_out;  // which sets failed, and how: "amx dies of Illegal instruction, ..."; "": none
};

// Those of `sets` that pass their trial, in their order; of each other one a warning names the CPU.
TrustedKernels TrustedSets(const std::vector<const KernelTable*>& sets);

// Why --precision bf16 has to be emulated: no set that multiplies it was tried (`left_out` is ""), or each failed.
std::string WhyBf16IsEmulated(const std::string& left_out, CpuIsa isa_max);

}  // namespace sutra::cpu
