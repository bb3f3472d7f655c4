// The lock is on byte 0 of the file; the contents name its holder, for display.
#include "engine/engine_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

#include "shm/base/time.h"

namespace sutra {
namespace {

// "pid 4711 since 2026-01-31 12:00:00 UTC": for the message that a second engine shows; decides nothing.
std::string OwnName() {
  const timespec now = ToTimespec(WallNs());
  tm parts = {};
  gmtime_r(&now.tv_sec, &parts);
  char text[64];
  strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return "pid " + std::to_string(getpid()) + " since " + text + "\n";
}

std::string HolderName(int fd) {
  char text[128];
  const ssize_t bytes = pread(fd, text, sizeof(text) - 1, 0);
  std::string name(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  while (!name.empty() && (name.back() == '\n' || name.back() == '\0')) name.pop_back();
  return name.empty() ? "an engine that has not written its name yet" : name;
}

const char* HintFor(int error) {
  switch (error) {
    case EACCES:
    case EPERM: return "; give this user write permission on the directory";
    case EROFS: return "; the file system is read-only: choose another --data or --socket";
    case ENOSPC:
    case EDQUOT: return "; free some space there";
    case ENOENT: return "; does the directory exist?";
    default: return "";
  }
}

}  // namespace

Result<EngineLock> EngineLock::Take(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd) {
    const int error = errno;
    return Status(StatusCode::kStorageError,
                  "cannot open the lock file " + path + ": " + std::strerror(error) + HintFor(error), error);
  }
  assert((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  struct flock range = {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_len = 1;
  if (fcntl(fd.get(), F_OFD_SETLK, &range) != 0) {
    const int error = errno;
    if (error == EAGAIN || error == EACCES) {
      return Status(StatusCode::kRefused,
                    "another engine holds " + path + ": " + HolderName(fd.get()) +
                        "; stop it, or choose another --socket and --data",
                    error);
    }
    return Status::FromErrno(StatusCode::kStorageError, "locking " + path, error);
  }
  const std::string name = OwnName();
  const auto bytes = static_cast<ssize_t>(name.size());
  // On a full disk the lock holds all the same; only its name is missing in the message of a second engine.
  if (ftruncate(fd.get(), 0) != 0 ||
      (pwrite(fd.get(), name.data(), name.size(), 0) != bytes && errno != ENOSPC && errno != EDQUOT)) {
    return Status::FromErrno(StatusCode::kStorageError, "writing the holder's name into " + path, errno);
  }
  return EngineLock(path, std::move(fd));
}

}  // namespace sutra
