// A trial of kernel sets before they are used: whether each function of a set computes what plain arithmetic does, and
// whether this CPU has its instructions at all. A hypervisor may show CPUID bits of instructions that it does not let
// pass; so sets are tried in a child process, which may die of them.
// Thread rule: any thread; the process may have others.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/cpu/kernels/kernels.h"

namespace sutra::cpu {

struct TrialResult {
  const KernelTable* kernels = nullptr;
  std::string problem;  // "computes wrong results", "dies of Illegal instruction"; empty: the set can be used
};

// One result per set, in order, from a forked child; a set that it dies of costs one more child. Takes a few
// milliseconds. Where no child can be made (a limit on processes), sets are tried in this process, with a warning.
std::vector<TrialResult> TryKernels(std::span<const KernelTable* const> sets);

// The same arithmetic for one set, in this process. A set that fails is never used.
bool KernelsComputeCorrectly(const KernelTable& kernels);

// Whether `bf16` multiplies so much faster than `fp32` that it is worth its rounding, by the best of several runs.
bool Bf16IsFaster(const KernelTable& bf16, const KernelTable& fp32);

}  // namespace sutra::cpu
