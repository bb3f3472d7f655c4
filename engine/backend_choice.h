// What computes a model: our CPU kernels, the torch plug-in, or the fake model. The only place that knows all of them.
// Thread rule: any thread; the time of a load grows with the model.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/config.h"
#include "engine/model/compute_options.h"
#include "engine/model/model_backend.h"
#include "shm/base/status.h"

namespace sutra {

struct BackendOptions {
  std::string model_dir;  // Hugging Face / sentence-transformers layout
  Precision precision = Precision::kAuto;
  Device device = Device::kCpu;
  Executor executor = Executor::kAuto;
  uint32_t threads = 1;            // 1..kThreadsMax, of all groups
  uint32_t core_groups = 1;        // at most kCoreGroupsMax; 0: by last-level cache and node (cpu/core_groups.h)
  CpuIsa cpu_isa = CpuIsa::kAuto;  // caps our kernels
  double int8_cosine_min = kInt8CosineMin;
  std::string packed_dir = {};  // where weights prepared for int8 are kept for the next start; "": nowhere
};

// Of one model, for a worker each: never empty; their infos are the same, the tokenizer is shared.
using Backends = std::vector<std::unique_ptr<ModelBackend>>;

// Our kernels have a backend for each group of cores, torch has one of all threads.
// Executor::kAuto takes our kernels where this CPU has a fast set for the model's shape; else the torch plug-in if it
// can be loaded; else the portable kernels, with a warning. A CUDA device always takes the plug-in. With a cap on the
// instructions it takes our kernels: torch chooses its own.
// Precision::kInt8 takes our kernels, always; it needs a CPU that multiplies int8 (int8_model.h).
// Fails with a message that names the file or option, the likely cause and the fix.
Result<Backends> MakeModelBackends(const BackendOptions& options);

// What an engine with this configuration serves: the above, or the fake model, once for each of its core groups.
Result<Backends> MakeBackends(const EngineConfig& config);

}  // namespace sutra
