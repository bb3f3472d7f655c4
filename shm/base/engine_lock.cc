// The lock is on byte 0 of the file; the contents name its holder, for display.
#include "shm/base/engine_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>

#include "shm/base/file_identity.h"
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

constexpr size_t kNameBytesMax = 128;
constexpr int kTriesMax = 100;  // a lock file vanishes only with a start that fails, once each time

// What the file says; longer contents are cut, and are no name.
std::string ReadName(int fd) {
  char text[kNameBytesMax];
  const ssize_t bytes = pread(fd, text, sizeof(text), 0);
  std::string name(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  while (!name.empty() && (name.back() == '\n' || name.back() == '\0')) name.pop_back();
  return name;
}

bool IsName(const std::string& name) {
  return name.empty() || (name.size() < kNameBytesMax && name.rfind("pid ", 0) == 0);
}

Status NoLockFile(const std::string& path, const std::string& what) {
  return Status(StatusCode::kStorageError, "the lock file cannot be at " + path + ": " + what +
                                               " is there, which no engine made; move it away, or choose another "
                                               "--socket or --data");
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

Status OpenFailed(const std::string& path, int error) {
  struct stat info = {};
  const bool exists = lstat(path.c_str(), &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) return NoLockFile(path, FileTypeName(info.st_mode));
  return Status(StatusCode::kStorageError,
                "cannot open the lock file " + path + ": " + std::strerror(error) + HintFor(error), error);
}

// Opens the file, or creates it. O_NONBLOCK: opening must not wait for the other end of a FIFO.
UniqueFd OpenOrCreate(const std::string& path, bool* created) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  UniqueFd fd;
  for (int i = 0; !fd && i < kTriesMax; ++i) {
    fd.reset(open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0644));
    *created = static_cast<bool>(fd);
    if (fd || errno != EEXIST) break;
    fd.reset(open(path.c_str(), kFlags));
    if (!fd && errno != ENOENT) break;  // ENOENT: removed between the two calls
  }
  return fd;
}

bool LeadsTo(const std::string& path, int fd) {
  const std::optional<FileIdentity> there = FileIdentity::At(path);
  return there.has_value() && there == FileIdentity::Of(fd);
}

// For display only, so a full disk is no reason not to start.
void WriteName(int fd) {
  const std::string name = OwnName();
  const ssize_t written = pwrite(fd, name.data(), name.size(), 0);
  static_cast<void>(!ftruncate(fd, written > 0 ? written : 0));
}

Status LockedBy(const std::string& path, const std::string& holder, int error) {
  return Status(StatusCode::kRefused,
                "another engine holds " + path + ": " +
                    (holder.empty() ? "an engine that has not written its name yet" : holder) +
                    "; stop it, choose another --socket and --data, or wait for its end with --standby",
                error);
}

}  // namespace

Result<EngineLock> EngineLock::Take(const std::string& path) { return TakeOrWait(path, nullptr); }

Result<EngineLock> EngineLock::Wait(const std::string& path, const std::atomic<bool>& stop) {
  return TakeOrWait(path, &stop);
}

std::string EngineLock::HolderOf(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  const std::string name = fd ? ReadName(fd.get()) : "";
  return IsName(name) ? name : "";
}

// `stop`: null = does not wait.
Result<EngineLock> EngineLock::TakeOrWait(const std::string& path, const std::atomic<bool>* stop) {
  for (int i = 0; i < kTriesMax; ++i) {
    bool created = false;
    UniqueFd fd = OpenOrCreate(path, &created);
    if (!fd) return OpenFailed(path, errno);
    assert((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    struct stat info = {};
    if (fstat(fd.get(), &info) != 0) return OpenFailed(path, errno);
    if (!S_ISREG(info.st_mode)) return NoLockFile(path, FileTypeName(info.st_mode));
    if (!IsName(ReadName(fd.get()))) return NoLockFile(path, "a file");

    struct flock range = {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_len = 1;
    // It is always tried once: a file that was created here and is not another's by now must not stay behind.
    int error = EINTR;
    while (error == EINTR) {
      error = fcntl(fd.get(), stop == nullptr ? F_OFD_SETLK : F_OFD_SETLKW, &range) == 0 ? 0 : errno;
      // relaxed: the signal comes after the store
      const bool stopped = stop != nullptr && stop->load(std::memory_order_relaxed);
      if (error == EINTR && stopped) return Status(StatusCode::kCancelled, "stopped");
    }
    if (error == EAGAIN || error == EACCES) return LockedBy(path, ReadName(fd.get()), error);
    if (error != 0) return Status::FromErrno(StatusCode::kStorageError, "locking " + path, error);
    if (!LeadsTo(path, fd.get())) continue;  // a failing start removed it after it was opened here
    WriteName(fd.get());
    return EngineLock(path, std::move(fd), created);
  }
  return Status(StatusCode::kStorageError, "the lock file " + path + " is removed again and again; what removes it?");
}

bool EngineLock::InPlace() const { return LeadsTo(path_, fd_.get()); }

Status EngineLock::TakeAgain() {
  Result<EngineLock> taken = Take(path_);
  if (taken.ok()) fd_ = std::move(taken->fd_);
  return taken.status();
}

void EngineLock::RemoveIfCreated() {
  if (created_ && InPlace()) unlink(path_.c_str());
}

}  // namespace sutra
