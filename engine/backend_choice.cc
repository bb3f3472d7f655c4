// Chooses an executor and creates its encoder.
#include "engine/backend_choice.h"

#include <spdlog/spdlog.h>

#include <cassert>
#include <exception>
#include <utility>

#include "engine/cpu/features.h"
#include "engine/cpu/int8/int8_model.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/encoder_backend.h"
#include "engine/model/model_identity.h"
#include "engine/torch/plugin_loader.h"
#include "engine/trusted_encoder.h"

namespace sutra {
namespace {

struct Plan {
  std::unique_ptr<Encoder> encoder;
  Precision precision = Precision::kF32;
  const char* device = "cpu";
  EncoderBackend::MakeFallback fallback;
};

Plan WithFallback(const LoadedModel& model, TrustedEncoder trusted, const BackendOptions& options) {
  Plan plan;
  plan.encoder = std::move(trusted.encoder);
  plan.precision = trusted.precision;
  plan.fallback = [options, served = ServedWeights::Of(model), first = plan.precision] {
    return MakeFallbackEncoder(options.model_dir, served, first, options.threads, options.cpu_isa);
  };
  return plan;
}

Result<Plan> PlanInt8(const LoadedModel& model, const BackendOptions& options) {
  Result<std::vector<cpu::KernelChoice>> exact = cpu::ChooseKernels(Precision::kF32, options.cpu_isa);
  if (!exact.ok()) return exact.status();
  const cpu::KernelTable* kernels = cpu::ChooseInt8Kernels(options.cpu_isa);
  if (kernels == nullptr) {
    return Status(StatusCode::kBadOption,
                  std::string("--precision int8 needs a CPU with AVX_VNNI, AVX512_VNNI or AMX and a --cpu-isa that "
                              "allows it (it is ") +
                      Name(options.cpu_isa) + "); this CPU has " + cpu::DescribeFeatures(cpu::DetectFeatures()) +
                      ". Use --precision auto");
  }
  Result<std::string> identity = ComputeModelIdentity(model, Name(Precision::kInt8), "cpu");
  if (!identity.ok()) return identity.status();
  auto quantised = cpu::SharedInt8Model(model, *kernels, *exact->front().kernels,
                                        {.identity = std::move(identity).value(),
                                         .directory = options.packed_dir,
                                         .cosine_min = options.int8_cosine_min,
                                         .threads = static_cast<int>(options.threads)});
  if (!quantised.ok()) return quantised.status();
  Result<TrustedEncoder> trusted =
      TrustedInt8(model, std::move(quantised).value(), *kernels, options.int8_cosine_min, options.threads);
  if (!trusted.ok()) return trusted.status();
  return WithFallback(model, std::move(trusted).value(), options);
}

Result<Plan> PlanTorch(const LoadedModel& model, const BackendOptions& options) {
  Result<const TorchPlugin*> plugin = LoadTorchPlugin();
  if (!plugin.ok()) return plugin.status();
  const bool cuda = options.device == Device::kCuda;
  // On a CPU torch emulates bf16 where the hardware lacks it. That is slow, so bf16 is computed only on request.
  const Precision automatic = cuda ? Precision::kBf16 : Precision::kF32;
  Plan plan;
  plan.precision = options.precision == Precision::kAuto ? automatic : options.precision;
  plan.device = cuda ? "cuda:0" : "cpu";
  Result<std::unique_ptr<Encoder>> encoder = (*plugin)->make_encoder(
      model.config.spec, model.weights,
      {.device = options.device, .precision = plan.precision, .threads = static_cast<int>(options.threads)});
  if (!encoder.ok()) return encoder.status();
  plan.encoder = std::move(encoder).value();
  return plan;
}

Result<Plan> MakePlan(const LoadedModel& model, const BackendOptions& options) {
  const bool torch = options.device == Device::kCuda || options.executor == Executor::kTorch;
  const bool capped = options.cpu_isa != CpuIsa::kAuto;
  if (options.device == Device::kCuda && options.executor == Executor::kCpu) {
    return Status(StatusCode::kBadOption,
                  "--executor cpu computes on the CPU only; with --device cuda use --executor torch or auto");
  }
  if (torch && capped) {
    return Status(StatusCode::kBadOption,
                  std::string("--cpu-isa ") + Name(options.cpu_isa) +
                      " caps our own kernels, and torch would compute this model: leave --cpu-isa out (for torch "
                      "there is the environment variable ATEN_CPU_CAPABILITY), or use --executor cpu");
  }
  if (options.precision == Precision::kInt8) {
    if (!torch) return PlanInt8(model, options);
    return Status(StatusCode::kBadOption,
                  "--precision int8 is computed by our kernels on the CPU only; use --executor auto and --device cpu, "
                  "or another precision");
  }
  if (torch) return PlanTorch(model, options);
  Result<std::vector<cpu::KernelChoice>> choices = cpu::ChooseKernels(options.precision, options.cpu_isa);
  if (!choices.ok()) return choices.status();
  const cpu::KernelChoice& choice = choices->front();
  if (options.executor == Executor::kAuto && choice.portable() && !capped) {
    Result<Plan> plan = PlanTorch(model, options);
    if (plan.ok()) return plan;
    spdlog::warn(
        "this CPU ({}) has no fast kernels, and libtorch is not available: the portable kernels compute the model, "
        "several times slower. {}",
        cpu::DescribeFeatures(cpu::DetectFeatures()), plan.status().message());
  }
  Result<TrustedEncoder> trusted = FirstTrusted(model, *choices, options.threads);
  if (!trusted.ok()) return trusted.status();
  return WithFallback(model, std::move(trusted).value(), options);
}

}  // namespace

Result<std::unique_ptr<ModelBackend>> MakeModelBackend(const BackendOptions& options) {
  assert(options.threads >= 1 && options.threads <= kThreadsMax);  // engine/config.cc checks it
  try {
    Result<LoadedModel> model = LoadModel(options.model_dir);
    if (!model.ok()) return model.status();
    Result<Plan> plan = MakePlan(model.value(), options);
    if (!plan.ok()) return plan.status();
    return EncoderBackend::Make(std::move(model).value(), std::move(plan->encoder), Name(plan->precision), plan->device,
                                std::move(plan->fallback));
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, "loading the model " + options.model_dir + " failed: " + error.what());
  }
}

}  // namespace sutra
