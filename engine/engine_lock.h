// The locks that make an engine the only one on its data directory and on its socket: OFD write locks on DATA/LOCK and
// SOCKET.lock, taken in this order and held until the process ends.
//
// Invariants:
//  - A lock file is never unlinked: an unlinked one would let two engines hold "the" lock.
//  - The descriptor never leaves the process. An OFD lock, unlike a POSIX lock, survives the close of any other
//    descriptor of the file, so reading the file to name the holder is harmless.
#pragma once

#include <string>
#include <utility>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class EngineLock {
 public:
  // Fails with kRefused when another engine holds it (the message names the holder) and with kStorageError when the
  // file cannot be opened.
  static Result<EngineLock> Take(const std::string& path);

  const std::string& path() const { return path_; }

 private:
  EngineLock(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

}  // namespace sutra
