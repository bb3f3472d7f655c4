// dlopen of the torch plug-in and, if SUTRA_LIBTORCH_DIR is set, of libtorch before it.
#include "engine/torch/plugin_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "shm/base/mutex.h"

namespace sutra {
namespace {

constexpr char kHowToGetIt[] =
    "; build with -DSUTRA_WITH_TORCH=ON (tools/setup/fetch_deps gets libtorch), or name the file in SUTRA_TORCH_PLUGIN";

std::string ProgramDirectory() {
  char path[PATH_MAX];
  const ssize_t bytes = readlink("/proc/self/exe", path, sizeof(path));
  const std::string program(path, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  return program.substr(0, program.rfind('/'));
}

Status CannotLoad(const std::string& path) {
  const char* why = dlerror();
  return Status(StatusCode::kModelError, "the torch plug-in: " + path + " cannot be loaded (" +
                                             (why != nullptr ? why : "unknown reason") +
                                             "); check that libtorch 2.11.0 lies in lib/sutra/libtorch beside the "
                                             "plug-in, or name its folder in SUTRA_LIBTORCH_DIR");
}

// The dynamic loader reuses a library that is loaded already, by its name, whatever run path the plug-in has. Ordered
// so that each library comes after the ones it needs.
Status LoadLibtorch(const std::string& directory) {
  for (const char* library : {"nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13",
                              "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so"}) {
    const std::string path = directory + "/" + library;
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) return CannotLoad(path);
  }
  return {};
}

}  // namespace

std::vector<std::string> TorchPluginPaths(const std::string& program_dir) {
  if (const char* named = std::getenv("SUTRA_TORCH_PLUGIN"); named != nullptr && *named != '\0') return {named};
  return {program_dir + "/../lib/sutra/libsutra_torch.so", program_dir + "/../lib/libsutra_torch.so"};
}

Result<const TorchPlugin*> LoadTorchPluginFile(const std::string& path) {
  if (const char* directory = std::getenv("SUTRA_LIBTORCH_DIR"); directory != nullptr && *directory != '\0') {
    if (Status status = LoadLibtorch(directory); !status.ok()) return status;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return CannotLoad(path);
  const auto entry = reinterpret_cast<TorchPluginEntry>(dlsym(library, kTorchPluginSymbol));
  if (entry == nullptr) {
    return Status(StatusCode::kModelError, "the torch plug-in: " + path + " is not a Sutra plug-in (it lacks " +
                                               kTorchPluginSymbol + ")" + kHowToGetIt);
  }
  const TorchPlugin* plugin = entry();
  if (plugin->interface_version != kTorchPluginInterface || std::string(plugin->build) != kTorchPluginBuild) {
    return Status(StatusCode::kModelError, "the torch plug-in: " + path + " is of another build (" + plugin->build +
                                               ") than this engine (" + kTorchPluginBuild +
                                               "); install both from one build");
  }
  return plugin;
}

Result<const TorchPlugin*> LoadTorchPlugin() {
  static Mutex mutex;
  static const TorchPlugin* loaded SUTRA_GUARDED_BY(mutex) = nullptr;
  const MutexLock lock(mutex);
  if (loaded != nullptr) return loaded;
  std::string looked;
  for (const std::string& path : TorchPluginPaths(ProgramDirectory())) {
    looked += (looked.empty() ? "" : " and ") + path;
    if (access(path.c_str(), F_OK) != 0) continue;
    Result<const TorchPlugin*> plugin = LoadTorchPluginFile(path);
    if (plugin.ok()) loaded = *plugin;
    return plugin;
  }
  return Status(StatusCode::kModelError, "the torch plug-in: not found at " + looked + kHowToGetIt);
}

}  // namespace sutra
