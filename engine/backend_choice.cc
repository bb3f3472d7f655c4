// Chooses an executor and creates its encoder.
#include "engine/backend_choice.h"

#include <spdlog/spdlog.h>

#include <cassert>
#include <exception>
#include <functional>
#include <future>
#include <string>
#include <utility>

#include "cache/packed_files.h"
#include "engine/cpu/core_groups.h"
#include "engine/cpu/features.h"
#include "engine/cpu/int8/int8_model.h"
#include "engine/cpu/kernel_choice.h"
#include "engine/model/encoder_backend.h"
#include "engine/model/fake_backend.h"
#include "engine/model/model_identity.h"
#include "engine/torch/plugin_loader.h"
#include "engine/trusted_encoder.h"
#include "shm/base/thread_affinity.h"

namespace sutra {
namespace {

// One encoder and one fallback per worker.
struct Plan {
  Encoders encoders;
  std::vector<EncoderBackend::MakeFallback> fallbacks;
  Precision precision = Precision::kF32;
  const char* device = "cpu";
};

cpu::CoreGroups GroupsFor(const BackendOptions& options) {
  return cpu::DealCores("/", AllowedCpus(), options.threads, options.core_groups);
}

Plan WithFallbacks(const LoadedModel& model, TrustedEncoders trusted, const BackendOptions& options,
                   const cpu::CoreGroups& groups) {
  Plan plan;
  plan.encoders = std::move(trusted.encoders);
  plan.precision = trusted.precision;
  for (const cpu::CoreGroup& group : groups) {
    plan.fallbacks.push_back([options, group, served = ServedWeights::Of(model), first = plan.precision] {
      return MakeFallbackEncoder(options.model_dir, served, first, group, options.cpu_isa);
    });
  }
  spdlog::info("the model is computed by {} of cores: {}",
               groups.size() == 1 ? "one group" : std::to_string(groups.size()) + " groups", cpu::Describe(groups));
  return plan;
}

bool UsesTorch(const BackendOptions& options) {
  return options.device == Device::kCuda || options.executor == Executor::kTorch;
}

using KernelChoices = Result<std::vector<cpu::KernelChoice>>;

// The sets that may compute in floats, which in int8 is what the rounded weights are made with.
KernelChoices ChooseKernels(const BackendOptions& options) {
  if (UsesTorch(options)) return std::vector<cpu::KernelChoice>();
  const bool int8 = options.precision == Precision::kInt8;
  return cpu::ChooseKernels(int8 ? Precision::kF32 : options.precision, options.cpu_isa);
}

Result<Plan> PlanInt8(const LoadedModel& model, const KernelChoices& exact, const BackendOptions& options) {
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
  const cpu::CoreGroups groups = GroupsFor(options);
  Result<TrustedEncoders> trusted =
      TrustedInt8(model, std::move(quantised).value(), *kernels, options.int8_cosine_min, groups);
  if (!trusted.ok()) return trusted.status();
  return WithFallbacks(model, std::move(trusted).value(), options, groups);
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
  plan.encoders.push_back(std::move(encoder).value());
  plan.fallbacks.emplace_back();
  return plan;
}

Result<Plan> MakePlan(const LoadedModel& model, const KernelChoices& choices, const BackendOptions& options) {
  const bool torch = UsesTorch(options);
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
    if (!torch) return PlanInt8(model, choices, options);
    return Status(StatusCode::kBadOption,
                  "--precision int8 is computed by our kernels on the CPU only; use --executor auto and --device cpu, "
                  "or another precision");
  }
  if (torch) return PlanTorch(model, options);
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
  const cpu::CoreGroups groups = GroupsFor(options);
  Result<TrustedEncoders> trusted = FirstTrusted(model, *choices, groups);
  if (!trusted.ok()) return trusted.status();
  return WithFallbacks(model, std::move(trusted).value(), options, groups);
}

}  // namespace

Result<Backends> MakeModelBackends(const BackendOptions& options) {
  assert(options.threads >= 1 && options.threads <= kThreadsMax);  // engine/config.cc checks it
  assert(options.core_groups <= kCoreGroupsMax);
  try {
    // Beside the model, since they do not depend on it and take 13 ms.
    std::future<KernelChoices> choices = std::async(std::launch::async, ChooseKernels, std::cref(options));
    Result<LoadedModel> model = LoadModel(options.model_dir);
    if (!model.ok()) return model.status();
    Result<Plan> plan = MakePlan(model.value(), choices.get(), options);
    if (!plan.ok()) return plan.status();
    auto first = EncoderBackend::Make(std::move(model).value(), std::move(plan->encoders.front()),
                                      Name(plan->precision), plan->device, std::move(plan->fallbacks.front()));
    if (!first.ok()) return first.status();
    Backends backends;
    for (size_t i = 1; i < plan->encoders.size(); ++i) {
      backends.push_back((*first)->ForAnotherWorker(std::move(plan->encoders[i]), std::move(plan->fallbacks[i])));
    }
    backends.insert(backends.begin(), std::move(first).value());
    return backends;
  } catch (const std::exception& error) {
    return Status(StatusCode::kModelError, "loading the model " + options.model_dir + " failed: " + error.what());
  }
}

Result<Backends> MakeBackends(const EngineConfig& config) {
  if (config.backend == Backend::kModel) {
    return MakeModelBackends({.model_dir = config.model,
                              .precision = config.precision,
                              .device = config.device,
                              .executor = config.executor,
                              .threads = config.threads,
                              .core_groups = config.core_groups,
                              .cpu_isa = config.cpu_isa,
                              .int8_cosine_min = config.int8_cosine_min,
                              .packed_dir = config.cache ? config.data + "/" + kPackedDirectory : ""});
  }
  Backends backends;
  do {
    Result<std::unique_ptr<ModelBackend>> fake = MakeFakeBackend("fake", config.fake_width);
    if (!fake.ok()) return fake.status();
    backends.push_back(std::move(fake).value());
  } while (backends.size() < config.core_groups);
  return backends;
}

}  // namespace sutra
