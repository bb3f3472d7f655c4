#include "engine/trusted_encoder.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "engine/cpu/canary.h"
#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/packed_model.h"

namespace sutra {
namespace {

std::unique_ptr<Encoder> MakeEncoder(const LoadedModel& model, const cpu::KernelChoice& choice, uint32_t threads) {
  auto packed = cpu::SharedPackedModel(model.config.spec, model.weights, choice.kernels->element);
  auto pass = std::make_shared<cpu::FloatPass>(std::move(packed), *choice.kernels);
  return std::make_unique<cpu::CpuEncoder>(std::move(pass), static_cast<int>(threads));
}

}  // namespace

Result<TrustedEncoder> FirstTrusted(const LoadedModel& model, std::span<const cpu::KernelChoice> choices,
                                    uint32_t threads) {
  cpu::Canary canary(model);
  std::string why;
  for (const cpu::KernelChoice& choice : choices) {
    TrustedEncoder made{MakeEncoder(model, choice, threads), choice.precision};
    const Result<double> cosine = canary.Cosine(*made.encoder);
    if (!cosine.ok()) return cosine.status();
    const double cosine_min = cpu::CanaryCosineMin(choice.precision);
    spdlog::debug("canary: the {} kernels agree with plain fp32 to a cosine of {:.6f}", choice.kernels->name, *cosine);
    if (*cosine >= cosine_min) return made;
    why = fmt::format("with the model {} the {} kernels agree with plain fp32 to a cosine of {:.6f} only; {} needs {}",
                      model.config.name, choice.kernels->name, *cosine, Name(choice.precision), cosine_min);
    spdlog::warn("{}; they are not used (CPU: {}; {})", why, cpu::CpuName(),
                 cpu::DescribeFeatures(cpu::DetectFeatures()));
  }
  return Status(StatusCode::kModelError,
                why +
                    "; no other kernels are left: use --precision auto or fp32 where another was asked for, else "
                    "please report the model and the CPU (" +
                    cpu::CpuName() + ")");
}

}  // namespace sutra
