// A private directory for one test, removed with everything in it. Short enough for Unix socket paths.
// Thread rule: belongs to the test that made it.
#pragma once

#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "tests/kit/left_over.h"

namespace sutra::test {

class TempDir {
 public:
  TempDir() : TempDir(DefaultBase()) {}
  explicit TempDir(const std::string& base) : path_(base + "/sutra-test.XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create a directory like " + path_);
    LeftOvers::Get().Add(path_);
  }
  ~TempDir() { LeftOvers::Get().Remove(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  // Creates the file and the directories above it. An old one is replaced by renaming, because it may still be mapped:
  // truncating it in place would raise SIGBUS.
  void Write(const std::string& name, const std::string& contents) const {
    const std::string target = *this / name;
    std::filesystem::create_directories(std::filesystem::path(target).parent_path());
    std::ofstream(target + ".new", std::ios::binary) << contents;
    std::filesystem::rename(target + ".new", target);
  }

 private:
  static std::string DefaultBase() {
    const char* base = std::getenv("TMPDIR");
    if (base == nullptr || *base == '\0') return "/tmp";
    return std::string(base).size() > 60 ? "/tmp" : base;  // a socket path has at most 103 bytes
  }

  std::string path_;
};

}  // namespace sutra::test
