// Tries kernel sets at load: whether they are correct on this CPU, and whether bf16 pays off.
#include "engine/cpu/kernel_choice.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "engine/cpu/features.h"
#include "engine/cpu/packed_model.h"

namespace sutra::cpu {
namespace {

constexpr size_t kTrialRows = 50;
constexpr size_t kTrialColumns = 384;
constexpr size_t kTrialDepth = 384;
constexpr double kSpeedGainMin = 1.25;  // of bf16 over fp32 for "auto"; real gains are 2 (AVX-512) to 8 (AMX)

// Random operands: zeros would hide wrong results, and AMX runs faster on zeros than on any real text.
struct Trial {
  std::vector<float> a = std::vector<float>(kTrialRows * kTrialDepth);
  std::vector<float> weight = std::vector<float>(kTrialColumns * kTrialDepth);
  std::vector<float> bias = std::vector<float>(kTrialColumns);

  Trial() {
    uint32_t state = 12345;
    const auto next = [&state] {
      state = state * 1664525U + 1013904223U;
      return static_cast<float>(state >> 8) * 0x1p-23F - 1.0F;
    };
    std::generate(a.begin(), a.end(), next);
    std::generate(weight.begin(), weight.end(), next);
    std::generate(bias.begin(), bias.end(), next);
  }
};

// The trial product of one kernel set: compares it with plain sums, or takes the best time of several runs.
class TrialRun {
 public:
  TrialRun(const Trial& trial, const KernelTable& kernels)
      : kernels_(kernels),
        packed_(PackLinear(trial.weight.data(), trial.bias.data(), kTrialColumns, kTrialDepth, kernels.element)),
        a_((kTrialRows + kRowPadding) * kTrialDepth * sizeof(float)),
        c_((kTrialRows + kRowPadding) * kTrialColumns * sizeof(float)) {
    for (size_t i = 0; i < trial.a.size(); ++i) {
      if (kernels.element == Element::kF32) {
        a_.As<float>()[i] = trial.a[i];
      } else {
        a_.As<uint16_t>()[i] = ToBf16(trial.a[i]);
      }
    }
    call_ = {.a = a_.data(),
             .a_stride = kTrialDepth,
             .rows = kTrialRows,
             .b = packed_.weights.data(),
             .depth = kTrialDepth,
             .panel_begin = 0,
             .panel_end = packed_.panels(),
             .bias = packed_.bias.As<float>(),
             .output = GemmOutput::kAddToF32,
             .c = c_.data(),
             .c_stride = kTrialColumns};
  }

  bool Matches(const Trial& trial) {
    Run();
    const double tolerance = kernels_.element == Element::kF32 ? 1e-3 : 0.5;  // sums of 384 products of numbers below 1
    for (size_t r = 0; r < kTrialRows; ++r) {
      for (size_t n = 0; n < kTrialColumns; ++n) {
        double sum = static_cast<double>(trial.bias[n]);
        for (size_t k = 0; k < kTrialDepth; ++k) {
          sum += static_cast<double>(trial.a[r * kTrialDepth + k]) *
                 static_cast<double>(trial.weight[n * kTrialDepth + k]);
        }
        if (!(std::abs(static_cast<double>(c_.As<float>()[r * kTrialColumns + n]) - sum) < tolerance)) return false;
      }
    }
    return true;
  }

  double BestSeconds() {
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      const auto start = std::chrono::steady_clock::now();
      Run();
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
  }

 private:
  void Run() {
    kernels_.prepare_thread();
    kernels_.gemm(call_);
    kernels_.release_thread();
  }

  const KernelTable& kernels_;
  PackedLinear packed_;
  AlignedBuffer a_;
  AlignedBuffer c_;
  GemmCall call_;
};

const KernelTable* Usable(const KernelTable* kernels, bool present) {
  if (kernels == nullptr || !present) return nullptr;
  if (KernelsComputeCorrectly(*kernels)) return kernels;
  spdlog::warn("the {} kernels compute wrong results on this CPU and are not used; please report the CPU model",
               kernels->name);
  return nullptr;
}

const KernelTable* BestBf16() {
  const Features& features = DetectFeatures();
  if (const KernelTable* amx = Usable(AmxKernels(), features.amx_bf16); amx != nullptr) return amx;
  return Usable(Avx512Bf16Kernels(), features.avx512_bf16);
}

const KernelTable* BestF32() {
  const Features& features = DetectFeatures();
  if (const KernelTable* avx512 = Usable(Avx512Kernels(), features.avx512); avx512 != nullptr) return avx512;
  return Usable(Avx2Kernels(), features.avx2);
}

bool Bf16IsFaster(const KernelTable& bf16, const KernelTable& fp32) {
  const Trial trial;
  return TrialRun(trial, fp32).BestSeconds() > kSpeedGainMin * TrialRun(trial, bf16).BestSeconds();
}

Precision PrecisionOf(const KernelTable& kernels) {
  return kernels.element == Element::kF32 ? Precision::kF32 : Precision::kBf16;
}

const KernelTable* ByName(const std::string& name, Precision precision) {
  const Features& features = DetectFeatures();
  if (name == "portable") return PortableKernels(precision == Precision::kBf16 ? Element::kBf16 : Element::kF32);
  if (name == "avx2") return Usable(Avx2Kernels(), features.avx2);
  if (name == "avx512") return Usable(Avx512Kernels(), features.avx512);
  if (name == "avx512_bf16") return Usable(Avx512Bf16Kernels(), features.avx512_bf16);
  if (name == "amx_bf16") return Usable(AmxKernels(), features.amx_bf16);
  return nullptr;
}

Result<KernelChoice> Forced(const std::string& name, Precision precision) {
  const KernelTable* kernels = ByName(name, precision);
  if (kernels == nullptr) {
    return Status(StatusCode::kModelError, "SUTRA_CPU_KERNELS=" + name +
                                               " cannot be used: unknown, or not on this CPU (" +
                                               DescribeFeatures(DetectFeatures()) +
                                               "); unset it or use auto, portable, "
                                               "avx2, avx512, avx512_bf16 or amx_bf16");
  }
  const Precision own = PrecisionOf(*kernels);
  if (precision != Precision::kAuto && precision != own) {
    return Status(StatusCode::kModelError, "SUTRA_CPU_KERNELS=" + name + " computes " + Name(own) +
                                               ", but --precision is " + Name(precision) + "; change one of them");
  }
  return KernelChoice{own, kernels};
}

}  // namespace

bool KernelsComputeCorrectly(const KernelTable& kernels) {
  const Trial trial;
  return TrialRun(trial, kernels).Matches(trial);
}

Result<KernelChoice> ChooseKernels(const EncoderSpec&, Precision precision) {
  const char* forced = std::getenv("SUTRA_CPU_KERNELS");
  if (forced != nullptr && *forced != '\0' && std::string(forced) != "auto") return Forced(forced, precision);
  const KernelTable* fp32 = precision == Precision::kBf16 ? nullptr : BestF32();
  const KernelTable* bf16 = precision == Precision::kF32 ? nullptr : BestBf16();
  switch (precision) {
    case Precision::kF32: break;
    case Precision::kBf16:
      if (bf16 != nullptr) return KernelChoice{Precision::kBf16, bf16};
      spdlog::warn("none of our kernels multiplies bf16 natively on this CPU; --precision bf16 will be slow");
      return KernelChoice{Precision::kBf16, PortableKernels(Element::kBf16)};
    case Precision::kAuto:
      if (bf16 != nullptr && (fp32 == nullptr || Bf16IsFaster(*bf16, *fp32))) {
        return KernelChoice{Precision::kBf16, bf16};
      }
      break;
  }
  return KernelChoice{Precision::kF32, fp32 != nullptr ? fp32 : PortableKernels(Element::kF32)};
}

}  // namespace sutra::cpu
