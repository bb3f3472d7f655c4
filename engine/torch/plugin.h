// The interface of libsutra_torch.so, the executor that computes with libtorch. The engine links no torch: it loads the
// plug-in where it is needed (plugin_loader.h). C++ objects cross this boundary, so plug-in and engine must come from
// one build; the loader compares `interface` and `build`.
// Thread rule: make_encoder may be called by any thread; an encoder by one at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/model/compute_options.h"
#include "engine/model/encoder.h"
#include "engine/model/encoder_spec.h"
#include "engine/model/encoder_weights.h"
#include "shm/base/status.h"

namespace sutra {

struct TorchPlugin {
  struct Options {
    Device device = Device::kCpu;
    Precision precision = Precision::kF32;  // never kAuto
    int threads = 1;                        // per operator, on the CPU
  };

  uint32_t interface_version;
  const char* build;  // kTorchPluginBuild of the plug-in
  // Fails with kModelError and a message that gives cause and fix; throws nothing.
  Result<std::unique_ptr<Encoder>> (*make_encoder)(const EncoderSpec& spec, const EncoderWeights& weights,
                                                   const Options& options);
};

inline constexpr uint32_t kTorchPluginInterface = 2;
inline constexpr char kTorchPluginBuild[] = "sutra " SUTRA_VERSION ", compiler " __VERSION__;
inline constexpr char kTorchPluginSymbol[] = "sutra_torch_plugin";
using TorchPluginEntry = const TorchPlugin* (*)();  // what the symbol is

}  // namespace sutra
