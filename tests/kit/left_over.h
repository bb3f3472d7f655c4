// What stays behind when a test is aborted instead of ending: the watchdog removes it before it aborts. Thread-safe.
#pragma once

#include <filesystem>
#include <mutex>
#include <set>
#include <string>

namespace sutra::test {

class LeftOvers {
 public:
  static LeftOvers& Get() {
    static LeftOvers instance;
    return instance;
  }
  void Add(const std::string& path) {
    std::lock_guard lock(mutex_);
    paths_.insert(path);
  }
  // Removes it now instead of at the abort.
  void Remove(const std::string& path) {
    std::lock_guard lock(mutex_);
    RemovePath(path);
    paths_.erase(path);
  }
  void RemoveAll() {
    std::lock_guard lock(mutex_);
    for (const std::string& path : paths_) RemovePath(path);
  }

 private:
  static void RemovePath(const std::string& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::mutex mutex_;
  std::set<std::string> paths_;
};

}  // namespace sutra::test
