// A model in int8 that has proved its quality: read from a file that an earlier start wrote, or prepared here.
//
// Thread rule: any thread; encoders of several workers share one model, and while one thread prepares it, others that
// want the same wait.
#pragma once

#include <memory>
#include <string>

#include "engine/cpu/int8/quantised_model.h"
#include "engine/model/compute_options.h"
#include "engine/model/loaded_model.h"
#include "shm/base/status.h"

namespace sutra::cpu {

struct Int8Options {
  std::string identity;                // of the model in int8
  std::string directory;               // of the files of prepared models; "": nothing is read or written
  double cosine_min = kInt8CosineMin;  // of any built-in text against fp32; 0: any will do, even below
  int threads = 1;
};

// The fastest set with int8 products that this CPU has, the cap and the model's shape allow, and that passes its trial;
// null: none. The portable set, which is slower than fp32, is taken for CpuIsa::kPortable only.
const KernelTable* ChooseInt8Kernels(CpuIsa isa_max = CpuIsa::kAuto);

// `kernels` have int8 products; `exact` multiply fp32. A file that is damaged, missing or another model's is written
// anew; that it cannot be written is a warning. Fails with kModelError below cosine_min, with the cause and the fix.
Result<std::shared_ptr<const QuantisedModel>> SharedInt8Model(const LoadedModel& model, const KernelTable& kernels,
                                                              const KernelTable& exact, const Int8Options& options);

}  // namespace sutra::cpu
