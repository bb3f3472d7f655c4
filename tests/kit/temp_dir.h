// A private directory for one test, removed with everything in it. Short enough for Unix socket paths.
// Thread rule: belongs to the test that made it.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "tests/kit/left_over.h"

namespace sutra::test {

class TempDir {
 public:
  TempDir() {
    const char* base = std::getenv("TMPDIR");
    path_ = base != nullptr && *base != '\0' ? base : "/tmp";
    if (path_.size() > 60) path_ = "/tmp";  // a socket path has at most 103 bytes
    path_ += "/sutra-test.XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create a directory like " + path_);
    LeftOvers::Get().Add(path_);
  }
  ~TempDir() { LeftOvers::Get().Remove(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace sutra::test
