// Finds and loads libsutra_torch.so, once per process. No torch header is seen here.
//
// Where it is looked for: the file that SUTRA_TORCH_PLUGIN names; else beside the program, in ../lib/sutra (installed)
// and
// ../lib (build tree). libtorch itself is found by the plug-in's run path (installed: lib/sutra/libtorch) or, where
// SUTRA_LIBTORCH_DIR is set, there: a folder with torch/lib and nvidia/cu13/lib as tools/setup/fetch_deps makes it.
// Thread rule: any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/torch/plugin.h"

namespace sutra {

// Loads on the first call that succeeds and stays loaded: libtorch cannot be unloaded. Fails with kModelError that says
// where was looked, why it cannot be loaded, and how to get it.
Result<const TorchPlugin*> LoadTorchPlugin();

// Where LoadTorchPlugin looks, in this order, for a program in `program_dir`.
std::vector<std::string> TorchPluginPaths(const std::string& program_dir);

// Loads and checks one file.
Result<const TorchPlugin*> LoadTorchPluginFile(const std::string& path);

}  // namespace sutra
