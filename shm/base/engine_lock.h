// The locks that make an engine the only one on its data directory and on its socket: OFD write locks on DATA/LOCK and
// SOCKET.lock, taken in this order and held until the engine has nothing
// more to do with what they protect.
//
// Invariants:
//  - Only the lock's holder unlinks a lock file, and only at the end of a start that failed and had created the file
//    itself: a serving engine's lock file stays. That is safe because whoever takes a lock looks afterwards whether the
//    path still leads to the locked file, and begins again if it does not; otherwise an engine that opened the file
//    before the unlink and one that created a new one would both hold "the" lock.
//  - A file that no engine wrote is neither locked nor changed: links are not followed, and only an empty regular file,
//    or one that holds a holder's name, is taken for a lock file.
//  - The descriptor never leaves the process. An OFD lock, unlike a POSIX lock, survives the close of any other
//    descriptor of the file, so reading the file to name the holder is harmless.
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class EngineLock {
 public:
  // Fails with kRefused when another engine holds it (the message names the holder) and with kStorageError when the
  // file cannot be opened, or is no lock file.
  static Result<EngineLock> Take(const std::string& path);
  // The same, but waits in the kernel for as long as another engine holds it: it is granted the moment the holder gives
  // it back or is dead. kCancelled: `stop` was set and a signal interrupted the call, which the caller sends again
  // until it returns (one sent before the kernel waits is lost).
  static Result<EngineLock> Wait(const std::string& path, const std::atomic<bool>& stop);
  // What the file says about who holds the lock, for display: "pid 4711 since ..."; "" if it says nothing.
  static std::string HolderOf(const std::string& path);

  const std::string& path() const { return path_; }
  // False once the file was removed or replaced: another engine could then take the lock at the path.
  bool InPlace() const;
  // The file was removed: takes the lock in a new file at the path. The old one is held until then.
  Status TakeAgain();
  // For a start that failed: removes the file, if this engine created it.
  void RemoveIfCreated();

 private:
  static Result<EngineLock> TakeOrWait(const std::string& path, const std::atomic<bool>* stop);

  EngineLock(std::string path, UniqueFd fd, bool created)
      : path_(std::move(path)), fd_(std::move(fd)), created_(created) {}

  std::string path_;
  UniqueFd fd_;
  bool created_;
};

}  // namespace sutra
