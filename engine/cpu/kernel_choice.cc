// Orders the kernel sets of this CPU, without those that fail their trial.
#include "engine/cpu/kernel_choice.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/cpu/features.h"
#include "engine/cpu/kernel_trial.h"

namespace sutra::cpu {
namespace {

// The sets beside the portable ones, the best of each precision first. A new set is a line here.
struct KernelSet {
  const KernelTable* (*table)();
  bool Features::*needs;
};
constexpr KernelSet kSets[] = {
    {AmxKernels, &Features::amx_bf16},
    {Avx512Bf16Kernels, &Features::avx512_bf16},
    {Avx512Kernels, &Features::avx512},
    {Avx2Kernels, &Features::avx2},
};

Precision PrecisionOf(const KernelTable& kernels) {
  return kernels.element == Element::kF32 ? Precision::kF32 : Precision::kBf16;
}

// Of one precision, or of all (kAuto), the sets that this CPU has.
std::vector<const KernelTable*> SetsOf(const Features& features, Precision precision) {
  std::vector<const KernelTable*> found;
  for (const KernelSet& set : kSets) {
    const KernelTable* kernels = features.*set.needs ? set.table() : nullptr;
    if (kernels == nullptr) continue;
    if (precision == Precision::kAuto || precision == PrecisionOf(*kernels)) found.push_back(kernels);
  }
  return found;
}

Status RuledOut(Precision precision, CpuIsa isa_max) {
  return Status(StatusCode::kBadOption, std::string("--precision ") + Name(precision) +
                                            " needs --cpu-isa avx512_bf16 or amx, and --cpu-isa is " + Name(isa_max) +
                                            ". This CPU, " + CpuName() + ", has " + DescribeFeatures(DetectFeatures()) +
                                            ": raise --cpu-isa, or choose --precision fp32 or auto");
}

}  // namespace

TrustedKernels TrustedSets(const std::vector<const KernelTable*>& sets) {
  TrustedKernels trusted;
  for (const TrialResult& result : TryKernels(sets)) {
    if (result.problem.empty()) {
      trusted.sets.push_back(result.kernels);
      continue;
    }
    spdlog::warn("the {} kernels are not used: their trial {} on this CPU ({}; {}); please report it",
                 result.kernels->name, result.problem, CpuName(), DescribeFeatures(DetectFeatures()));
    if (!trusted.left_out.empty()) trusted.left_out += ", ";
    trusted.left_out += std::string(result.kernels->name) + " " + result.problem;
  }
  return trusted;
}

std::string WhyBf16IsEmulated(const std::string& left_out, CpuIsa isa_max) {
  if (!left_out.empty()) return "the kernels that multiply it failed their trial (" + left_out + ")";
  if (isa_max == CpuIsa::kPortable) return std::string("--cpu-isa ") + Name(isa_max) + " leaves out all others";
  return "this CPU (" + CpuName() + "; " + DescribeFeatures(DetectFeatures()) + ") does not multiply it";
}

Result<std::vector<KernelChoice>> ChooseKernels(Precision precision, CpuIsa isa_max) {
  const std::vector<const KernelTable*> all = SetsOf(DetectFeatures(), precision);
  const std::vector<const KernelTable*> allowed = SetsOf(Capped(DetectFeatures(), isa_max), precision);
  if (precision == Precision::kBf16 && allowed.empty() && !all.empty() && isa_max != CpuIsa::kPortable) {
    return RuledOut(precision, isa_max);
  }
  std::vector<KernelChoice> choices;
  const TrustedKernels trusted = TrustedSets(allowed);
  for (const KernelTable* kernels : trusted.sets) choices.push_back({PrecisionOf(*kernels), kernels});
  if (precision == Precision::kBf16) {
    if (choices.empty()) {
      spdlog::warn("--precision bf16 is emulated by the portable kernels, and slow: {}",
                   WhyBf16IsEmulated(trusted.left_out, isa_max));
      choices.push_back({precision, PortableKernels(Element::kBf16)});
    }
    return choices;
  }
  choices.push_back({Precision::kF32, PortableKernels(Element::kF32)});
  // kSets has bf16 before fp32, so that a set of each may be compared.
  const auto fp32 = std::find_if(choices.begin(), choices.end(),
                                 [](const KernelChoice& choice) { return choice.precision == Precision::kF32; });
  const bool compare = fp32 != choices.begin() && !fp32->portable();
  if (compare && !Bf16IsFaster(*choices.front().kernels, *fp32->kernels)) {
    spdlog::info("--precision auto takes fp32: the {} kernels are not clearly faster here than the {} ones",
                 choices.front().kernels->name, fp32->kernels->name);
    choices.erase(choices.begin(), fp32);
  }
  return choices;
}

}  // namespace sutra::cpu
