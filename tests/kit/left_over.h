// What stays behind when a test is aborted instead of ending: the watchdog removes it before it aborts. Thread-safe.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "shm/base/mutex.h"

namespace sutra::test {

class LeftOvers {
 public:
  static LeftOvers& Get() {
    static LeftOvers instance;
    return instance;
  }
  void Add(const std::string& path) {
    const MutexLock lock(mutex_);
    paths_.insert(path);
  }
  // Removes it now instead of at the abort.
  void Remove(const std::string& path) {
    const MutexLock lock(mutex_);
    RemovePath(path);
    paths_.erase(path);
  }
  void RemoveAll() {
    const MutexLock lock(mutex_);
    for (const std::string& path : paths_) RemovePath(path);
  }

 private:
  static void RemovePath(const std::string& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Mutex mutex_;
  std::set<std::string> paths_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra::test
