// Chooses an executor and creates its encoder.
#include "engine/backend_choice.h"

#include <spdlog/spdlog.h>

#include <cassert>
#include <cstdlib>
#include <exception>
#include <utility>

#include "engine/cpu/cpu_encoder.h"
#include "engine/cpu/features.h"
#include "engine/cpu/float_pass.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/encoder_backend.h"
#include "engine/torch/plugin_loader.h"

namespace sutra {
namespace {

struct Plan {
  std::unique_ptr<Encoder> encoder;
  Precision precision = Precision::kF32;
  const char* device = "cpu";
};

Plan PlanKernels(const LoadedModel& model, const cpu::KernelChoice& choice, const BackendOptions& options) {
  auto packed = cpu::SharedPackedModel(model.config.spec, model.weights, choice.kernels->element);
  auto pass = std::make_shared<cpu::FloatPass>(std::move(packed), *choice.kernels);
  return {.encoder = std::make_unique<cpu::CpuEncoder>(std::move(pass), static_cast<int>(options.threads)),
          .precision = choice.precision};
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

// SUTRA_CPU_KERNELS wins over --executor: it exists to force one way of computing, for tests and for bisecting.
Executor AskedExecutor(const BackendOptions& options) {
  const char* variable = std::getenv("SUTRA_CPU_KERNELS");
  const std::string kernels = variable != nullptr ? variable : "";
  if (kernels.empty() || kernels == "auto") return options.executor;
  return kernels == "aten" ? Executor::kTorch : Executor::kCpu;
}

Result<Plan> MakePlan(const LoadedModel& model, const BackendOptions& options) {
  const Executor executor = AskedExecutor(options);
  if (options.device == Device::kCuda && executor == Executor::kCpu) {
    return Status(StatusCode::kBadOption,
                  "--executor cpu computes on the CPU only; with --device cuda use --executor torch or auto");
  }
  if (options.device == Device::kCuda || executor == Executor::kTorch) return PlanTorch(model, options);
  Result<cpu::KernelChoice> choice = cpu::ChooseKernels(model.config.spec, options.precision);
  if (!choice.ok()) return choice.status();
  if (executor == Executor::kAuto && choice->portable()) {
    Result<Plan> torch = PlanTorch(model, options);
    if (torch.ok()) return torch;
    spdlog::warn(
        "there are no fast kernels for this CPU ({}), and libtorch is not available: the portable kernels compute the "
        "model, several times slower. {}",
        cpu::DescribeFeatures(cpu::DetectFeatures()), torch.status().message());
  }
  return PlanKernels(model, *choice, options);
}

}  // namespace

Result<std::unique_ptr<ModelBackend>> MakeModelBackend(const BackendOptions& options) {
  assert(options.threads >= 1 && options.threads <= kThreadsMax);  // engine/config.cc checks it
  try {
    Result<LoadedModel> model = LoadModel(options.model_dir);
    if (!model.ok()) return model.status();
    Result<Plan> plan = MakePlan(model.value(), options);
    if (!plan.ok()) return plan.status();
    return EncoderBackend::Make(std::move(model).value(), std::move(plan->encoder), Name(plan->precision),
                                plan->device);
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, "loading the model " + options.model_dir + " failed: " + error.what());
  }
}

}  // namespace sutra
