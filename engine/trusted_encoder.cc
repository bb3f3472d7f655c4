#include "engine/trusted_encoder.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/cpu/canary.h"
#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/int8/int8_pass.h"
#include "engine/cpu/packed_model.h"

namespace sutra {
namespace {

std::unique_ptr<Encoder> MakeEncoder(const LoadedModel& model, const cpu::KernelChoice& choice, uint32_t threads) {
  auto packed = cpu::SharedPackedModel(model.config.spec, model.weights, choice.kernels->element);
  auto pass = std::make_shared<cpu::FloatPass>(std::move(packed), *choice.kernels);
  return std::make_unique<cpu::CpuEncoder>(std::move(pass), static_cast<int>(threads));
}

// kOk if the encoder's vector of the canary is close enough to the reference, else kModelError with the fix.
Status Distrust(cpu::Canary* canary, const LoadedModel& model, const cpu::KernelChoice& choice, Encoder& encoder,
                double cosine_min) {
  const Result<double> cosine = canary->Cosine(encoder);
  if (!cosine.ok()) return cosine.status();
  spdlog::debug("canary: the {} kernels agree with plain fp32 to a cosine of {:.6f}", choice.kernels->name, *cosine);
  if (*cosine >= cosine_min) return {};
  return Status(
      StatusCode::kModelError,
      fmt::format("with the model {} the {} kernels agree with plain fp32 to a cosine of {:.6f} only; {} needs "
                  "{}; they are not used: use --precision auto or fp32 where another was asked for, else "
                  "please report the model and the CPU ({}; {})",
                  model.config.name, choice.kernels->name, *cosine, Name(choice.precision), cosine_min, cpu::CpuName(),
                  cpu::DescribeFeatures(cpu::DetectFeatures())));
}

}  // namespace

Result<TrustedEncoder> FirstTrusted(const LoadedModel& model, std::span<const cpu::KernelChoice> choices,
                                    uint32_t threads) {
  cpu::Canary canary(model);
  Status why;
  for (const cpu::KernelChoice& choice : choices) {
    TrustedEncoder made{MakeEncoder(model, choice, threads), choice.precision};
    why = Distrust(&canary, model, choice, *made.encoder, cpu::CanaryCosineMin(choice.precision));
    if (why.ok()) return made;
    spdlog::warn("{}", why.message());
  }
  return why;
}

Result<TrustedEncoder> TrustedInt8(const LoadedModel& model, std::shared_ptr<const cpu::QuantisedModel> quantised,
                                   const cpu::KernelTable& kernels, double cosine_min, uint32_t threads) {
  cpu::Canary canary(model);
  auto pass = std::make_shared<cpu::Int8Pass>(std::move(quantised), kernels);
  TrustedEncoder made{std::make_unique<cpu::CpuEncoder>(std::move(pass), static_cast<int>(threads)), Precision::kInt8};
  const double needed =
      cosine_min > 0 ? std::min(cosine_min, cpu::CanaryCosineMin(Precision::kInt8)) : -2;  // below all
  if (Status why = Distrust(&canary, model, {Precision::kInt8, &kernels}, *made.encoder, needed); !why.ok()) return why;
  return made;
}

Result<std::unique_ptr<Encoder>> MakeFallbackEncoder(const std::string& model_dir, const ServedWeights& served,
                                                     Precision first, uint32_t threads, CpuIsa isa_max) {
  Result<LoadedModel> model = LoadModel(model_dir);
  if (!model.ok()) return model.status();
  if (ServedWeights::Of(*model) != served) {
    return Status(StatusCode::kModelError, "the weights or settings in " + model_dir +
                                               " are others than those that are served; restart the engine");
  }
  const CpuIsa isa = first == Precision::kF32 ? CpuIsa::kPortable : isa_max;
  Result<std::vector<cpu::KernelChoice>> choices = cpu::ChooseKernels(Precision::kF32, isa);
  if (!choices.ok()) return choices.status();
  Result<TrustedEncoder> trusted = FirstTrusted(*model, *choices, threads);
  if (!trusted.ok()) return trusted.status();
  return std::move(trusted->encoder);
}

}  // namespace sutra
