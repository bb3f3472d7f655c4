// Only what was missing before is remembered; a directory is removed by rmdir, which spares one that is in use.
#include "engine/start_traces.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "shm/base/file_identity.h"

namespace sutra {
namespace {

bool Missing(const std::string& path) { return !FileIdentity::At(path).has_value() && errno == ENOENT; }

}  // namespace

void StartTraces::WillMakeDirectory(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    const bool again = !part.empty() && part.back() == '/';
    if (!part.empty() && !again && Missing(part)) directories_.push_back(part);
    if (end == std::string::npos) break;
  }
}

void StartTraces::WillMakeTree(const std::string& path) {
  if (Missing(path)) trees_.push_back(path);
}

void StartTraces::RemoveTrees() {
  std::error_code ignored;
  for (const std::string& path : trees_) std::filesystem::remove_all(path, ignored);  // does not follow links
  trees_.clear();
}

void StartTraces::RemoveDirectories() {
  for (auto path = directories_.rbegin(); path != directories_.rend(); ++path) rmdir(path->c_str());
  directories_.clear();
}

}  // namespace sutra
