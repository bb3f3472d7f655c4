// Finds and loads libsutra_torch.so, once per process. Includes no torch header.
//
// The plug-in is the file that SUTRA_TORCH_PLUGIN names; else it is looked for next to the program, in ../lib/sutra
// (installed) and ../lib (build tree). libtorch itself is found through the plug-in's run path (installed:
// lib/sutra/libtorch) or, if SUTRA_LIBTORCH_DIR is set, in that folder, which has torch/lib and nvidia/cu13/lib as
// tools/setup/fetch_deps creates them.
// Thread rule: any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/torch/plugin.h"

namespace sutra {

// Loads on the first call that succeeds; it stays loaded, because libtorch cannot be unloaded. Fails with kModelError
// and a message that says where it was looked for, why it cannot be loaded, and how to get it.
Result<const TorchPlugin*> LoadTorchPlugin();

// Where LoadTorchPlugin looks, in this order, for a program in `program_dir`.
std::vector<std::string> TorchPluginPaths(const std::string& program_dir);

// Loads and checks one file.
Result<const TorchPlugin*> LoadTorchPluginFile(const std::string& path);

}  // namespace sutra
