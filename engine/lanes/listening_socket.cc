// What is at a path decides; connecting to a socket tells whether anybody listens on it.
#include "engine/lanes/listening_socket.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>

namespace sutra {
namespace {

Status SocketStatus(const std::string& path, const char* step, int error) {
  std::string message = std::string(step) + " the socket " + path + ": " + std::strerror(error);
  if (error == EACCES || error == EPERM) message += "; give this user write permission on its directory";
  if (error == ENOENT || error == ENOTDIR) message += "; create its directory first";
  return Status(StatusCode::kStorageError, message, error);
}

std::string Temporary(const std::string& path) { return path + ".new"; }

struct Address {
  sockaddr_un unix_address = {};
  socklen_t length = 0;
};

// REQUIRES: the path fits.
Address AddressOf(const std::string& path) {
  assert(path.size() < sizeof(sockaddr_un::sun_path));
  Address address;
  address.unix_address.sun_family = AF_UNIX;
  std::memcpy(address.unix_address.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

// 0: somebody listens; ECONNREFUSED: nobody does. A connection that is made here ends at once, which a server must be
// able to bear. EPROTOTYPE: a socket of another type is in use there.
int ErrorOfConnect(const std::string& path) {
  const UniqueFd probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return errno;
  const Address address = AddressOf(path);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address.unix_address);
  return connect(probe.get(), generic, address.length) == 0 ? 0 : errno;
}

// What is at the path: nothing (no value), or a dead socket.
Result<std::optional<FileIdentity>> FindReplaceable(const std::string& path) {
  using Found = std::optional<FileIdentity>;
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return Found();
    return SocketStatus(path, "looking at", errno);
  }
  const auto taken = [&](const std::string& by, const std::string& fix) {
    return Status(StatusCode::kStorageError, "the socket cannot be at " + path + ": " + by +
                                                 ", which the engine neither replaces nor removes; " + fix +
                                                 ", or choose another --socket");
  };
  if (!S_ISSOCK(info.st_mode)) return taken(std::string(FileTypeName(info.st_mode)) + " is there", "move it away");
  switch (const int error = ErrorOfConnect(path)) {
    case ECONNREFUSED: return Found(FileIdentity::From(info));
    case ENOENT: return Found();  // removed meanwhile
    case 0:
    case EAGAIN:
    case EPROTOTYPE: return taken("another program uses a socket there", "stop that program");
    default:
      return taken(
          "a socket is there, and whether a program uses it cannot be told (" + std::string(std::strerror(error)) + ")",
          "remove it if none does");
  }
}

// Clients must not send descriptors: the last close of one happens in this thread, even when recv discards it or the
// socket is closed over it, and closing a lingering TCP socket sleeps for as long as its sender chose. Accepted sockets
// inherit the option. Kernels before 6.16 do not have it; there a client that may attach can stall the loop this way.
void RefuseDescriptors(int listener) {
  constexpr int kSoPassRights = 83;
  const int refuse = 0;
  static_cast<void>(setsockopt(listener, SOL_SOCKET, kSoPassRights, &refuse, sizeof(refuse)));
}

// Renames `from` to `to`, where `replaced` was seen, or nothing. 0 or errno: EEXIST or ENOENT when something else is
// there now; it is untouched.
int Place(const std::string& from, const std::string& to, const std::optional<FileIdentity>& replaced) {
  if (!replaced.has_value()) {
    if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return errno;
    if (link(from.c_str(), to.c_str()) != 0) return errno;  // a file system without that flag
    unlink(from.c_str());
    return 0;
  }
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    if (FileIdentity::At(from) == replaced) {
      unlink(from.c_str());
      return 0;
    }
    return renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0 ? EEXIST : errno;
  }
  if (errno != EINVAL && errno != ENOSYS) return errno;
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

}  // namespace

Status ListeningSocket::CheckFree(const std::string& path) {
  if (path.size() > kSocketPathBytesMax) return SocketStatus(path, "naming", ENAMETOOLONG);
  if (Status status = FindReplaceable(path).status(); !status.ok()) return status;
  return FindReplaceable(Temporary(path)).status();
}

Result<ListeningSocket> ListeningSocket::Prepare(const std::string& path, mode_t mode) {
  if (path.size() > kSocketPathBytesMax) return SocketStatus(path, "naming", ENAMETOOLONG);
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return SocketStatus(path, "creating", errno);
  RefuseDescriptors(fd.get());
  const std::string temporary = Temporary(path);
  // The engine that left SOCKET.new behind is dead: this one holds the lock.
  const auto left_over = FindReplaceable(temporary);
  if (!left_over.ok()) return left_over.status();
  if (left_over.value().has_value() && unlink(temporary.c_str()) != 0 && errno != ENOENT) {
    return SocketStatus(temporary, "replacing", errno);
  }
  const Address address = AddressOf(temporary);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.unix_address), address.length) != 0) {
    return SocketStatus(temporary, "binding", errno);
  }
  const std::optional<FileIdentity> file = FileIdentity::At(temporary);
  if (!file.has_value()) return SocketStatus(temporary, "looking at", errno);
  ListeningSocket made(path, mode, std::move(fd), *file);  // from here on it removes what it bound
  if (chmod(temporary.c_str(), mode) != 0) return SocketStatus(temporary, "setting the mode of", errno);
  if (listen(made.fd_.get(), 256) != 0) return SocketStatus(temporary, "listening on", errno);
  return made;
}

Status ListeningSocket::Show() {
  constexpr int kTriesMax = 3;  // of a path that others change at the same time
  int error = 0;
  for (int i = 0; i < kTriesMax; ++i) {
    const auto replaced = FindReplaceable(path_);
    if (!replaced.ok()) return replaced.status();
    error = Place(Temporary(path_), path_, replaced.value());
    if (error == 0) return {};
    if (error != EEXIST && error != ENOENT) break;
  }
  return SocketStatus(path_, "renaming the new socket to", error);
}

Result<ListeningSocket> ListeningSocket::Open(const std::string& path, mode_t mode) {
  Result<ListeningSocket> made = Prepare(path, mode);
  if (!made.ok()) return made;
  if (Status status = made->Show(); !status.ok()) return status;
  return made;
}

Status ListeningSocket::Look() const {
  struct stat info = {};
  if (lstat(path_.c_str(), &info) != 0) {
    return Status::FromErrno(StatusCode::kStorageError, "the socket file " + path_, errno);
  }
  if (FileIdentity::From(info) == file_) return {};
  return Status(StatusCode::kStorageError,
                std::string(FileTypeName(info.st_mode)) + " that is not this engine's took the place of " + path_);
}

Status ListeningSocket::BindAgain() {
  Result<ListeningSocket> made = Open(path_, mode_);
  if (!made.ok()) return made.status();
  if (dup3(made->fd_.get(), fd_.get(), O_CLOEXEC) < 0) return SocketStatus(path_, "replacing", errno);
  file_ = made->file_;
  made->fd_.reset();  // moved away, so to speak: the file is this one's now
  return {};
}

void ListeningSocket::Withdraw() {
  if (!fd_) return;
  for (const std::string& path : {path_, Temporary(path_)}) {
    if (FileIdentity::At(path) == file_) unlink(path.c_str());
  }
  fd_.reset();
}

}  // namespace sutra
