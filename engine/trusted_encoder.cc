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
#include "shm/base/mutex.h"

namespace sutra {
namespace {

Encoders MakeEncoders(const std::shared_ptr<const cpu::ForwardPass>& pass, const cpu::CoreGroups& groups) {
  Encoders encoders;
  for (const cpu::CoreGroup& group : groups) {
    encoders.push_back(std::make_unique<cpu::CpuEncoder>(pass, static_cast<int>(group.threads), group.cpus));
  }
  return encoders;
}

Encoders MakeEncoders(const LoadedModel& model, const cpu::KernelChoice& choice, const cpu::CoreGroups& groups) {
  auto packed = cpu::SharedPackedModel(model.config.spec, model.weights, choice.kernels->element);
  return MakeEncoders(std::make_shared<cpu::FloatPass>(std::move(packed), *choice.kernels), groups);
}

// kOk if the vector of the canary is close enough to the reference for every encoder, else kModelError with the fix.
Status Distrust(cpu::Canary* canary, const LoadedModel& model, const cpu::KernelChoice& choice,
                const Encoders& encoders, double cosine_min) {
  for (const std::unique_ptr<Encoder>& encoder : encoders) {
    const Result<double> cosine = canary->Cosine(*encoder);
    if (!cosine.ok()) return cosine.status();
    spdlog::debug("canary: the {} kernels agree with plain fp32 to a cosine of {:.6f}", choice.kernels->name, *cosine);
    if (*cosine >= cosine_min) continue;
    return Status(
        StatusCode::kModelError,
        fmt::format("with the model {} the {} kernels agree with plain fp32 to a cosine of {:.6f} only; {} needs "
                    "{}; they are not used: use --precision auto or fp32 where another was asked for, else "
                    "please report the model and the CPU ({}; {})",
                    model.config.name, choice.kernels->name, *cosine, Name(choice.precision), cosine_min,
                    cpu::CpuName(), cpu::DescribeFeatures(cpu::DetectFeatures())));
  }
  return {};
}

}  // namespace

Result<TrustedEncoders> FirstTrusted(const LoadedModel& model, std::span<const cpu::KernelChoice> choices,
                                     const cpu::CoreGroups& groups) {
  cpu::Canary canary(model);
  Status why;
  for (const cpu::KernelChoice& choice : choices) {
    TrustedEncoders made{MakeEncoders(model, choice, groups), choice.precision};
    why = Distrust(&canary, model, choice, made.encoders, cpu::CanaryCosineMin(choice.precision));
    if (why.ok()) return made;
    spdlog::warn("{}", why.message());
  }
  return why;
}

Result<TrustedEncoders> TrustedInt8(const LoadedModel& model, std::shared_ptr<const cpu::QuantisedModel> quantised,
                                    const cpu::KernelTable& kernels, double cosine_min, const cpu::CoreGroups& groups) {
  cpu::Canary canary(model);
  TrustedEncoders made{MakeEncoders(std::make_shared<cpu::Int8Pass>(std::move(quantised), kernels), groups),
                       Precision::kInt8};
  const double needed =
      cosine_min > 0 ? std::min(cosine_min, cpu::CanaryCosineMin(Precision::kInt8)) : -2;  // below all
  if (Status why = Distrust(&canary, model, {Precision::kInt8, &kernels}, made.encoders, needed); !why.ok()) return why;
  return made;
}

Result<std::unique_ptr<Encoder>> MakeFallbackEncoder(const std::string& model_dir, const ServedWeights& served,
                                                     Precision first, const cpu::CoreGroup& group, CpuIsa isa_max) {
  static Mutex one_at_a_time;
  const MutexLock lock(one_at_a_time);
  Result<LoadedModel> model = LoadModel(model_dir);
  if (!model.ok()) return model.status();
  if (ServedWeights::Of(*model) != served) {
    return Status(StatusCode::kModelError, "the weights or settings in " + model_dir +
                                               " are others than those that are served; restart the engine");
  }
  const CpuIsa isa = first == Precision::kF32 ? CpuIsa::kPortable : isa_max;
  Result<std::vector<cpu::KernelChoice>> choices = cpu::ChooseKernels(Precision::kF32, isa);
  if (!choices.ok()) return choices.status();
  Result<TrustedEncoders> trusted = FirstTrusted(*model, *choices, {group});
  if (!trusted.ok()) return trusted.status();
  return std::move(trusted->encoders.front());
}

}  // namespace sutra
