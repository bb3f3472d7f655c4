// The engine's Unix socket in the file system: prepared as SOCKET.new, shown as SOCKET, noticed when it is removed,
// withdrawn at the end.
//
// Thread rule: one thread at a time (the loop's).
// Invariants:
//  - Only a dead socket, one that nobody listens on, is ever replaced. Anything else at SOCKET or SOCKET.new, and a
//    link to whatever, is an error that names it and stays untouched.
//  - Only what was bound here is removed: the file at the path is compared by device and inode before.
// Whoever puts a file there within the few instructions between a look and the rename does not lose it either (Show
// exchanges the two and looks at what came back); the removal of a dead SOCKET.new has no such form in the kernel, and
// relies on nobody choosing that name.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <string>
#include <utility>

#include "shm/base/file_identity.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

// A longer path does not fit into a socket address, where SOCKET.new needs four more bytes.
inline constexpr size_t kSocketPathBytesMax = sizeof(sockaddr_un::sun_path) - 1 - (sizeof(".new") - 1);

class ListeningSocket {
 public:
  // Whether an engine may serve here: there is nothing at `path`, or a dead socket. The message names what is there,
  // and the fix.
  static Status CheckFree(const std::string& path);

  // Binds SOCKET.new and listens; clients do not find it yet. REQUIRES: SOCKET.lock is held.
  static Result<ListeningSocket> Prepare(const std::string& path, mode_t mode);
  // Puts it at `path`, in place of nothing or of a dead socket, in one step: clients always find a socket.
  Status Show();
  // Prepare and Show.
  static Result<ListeningSocket> Open(const std::string& path, mode_t mode);

  ListeningSocket(ListeningSocket&&) = default;
  ListeningSocket& operator=(ListeningSocket&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(mode_, other.mode_);
    std::swap(fd_, other.fd_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~ListeningSocket() { Withdraw(); }

  int fd() const { return fd_.get(); }

  // kOk: clients find this socket at the path. Else what they find there.
  Status Look() const;
  // The socket file was removed: binds a new one at the path, if nothing or a dead socket is there. fd() keeps its
  // number, but is another socket, so its watches have ended.
  Status BindAgain();
  // Removes the socket file, if it is still this one.
  void Withdraw();

 private:
  ListeningSocket(std::string path, mode_t mode, UniqueFd fd, FileIdentity file)
      : path_(std::move(path)), mode_(mode), fd_(std::move(fd)), file_(file) {}

  std::string path_;
  mode_t mode_;
  UniqueFd fd_;
  FileIdentity file_;
};

}  // namespace sutra
