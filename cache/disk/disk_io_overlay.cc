// Files in memory are those of memfd_create; everything else about them is as for any file.
#include "cache/disk/disk_io_overlay.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

namespace sutra {
namespace {

bool IsThere(const std::string& path) {
  struct stat info = {};
  return lstat(path.c_str(), &info) == 0;
}

// O_NONBLOCK: whatever is there under a file's name, opening it must not wait.
int OpenToRead(const std::string& path) {
  constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  int file = open(path.c_str(), kFlags | O_NOATIME);
  if (file < 0 && errno == EPERM) file = open(path.c_str(), kFlags);  // another user's
  return file >= 0 ? file : -errno;
}

int Duplicate(int file) {
  const int copy = fcntl(file, F_DUPFD_CLOEXEC, 0);
  return copy >= 0 ? copy : -errno;
}

Status NotThere(const std::string& what, const std::string& path) {
  return Status::FromErrno(StatusCode::kStorageError, what + " " + path, ENOENT);
}

}  // namespace

OverlayDiskIo::Place OverlayDiskIo::PlaceOf(const std::string& path) {
  const auto changed = places_.find(path);
  if (changed != places_.end()) return changed->second;
  Place place;
  place.gone = !IsThere(path);
  place.moved_from = path;
  return place;
}

int OverlayDiskIo::RawOpen(const std::string& path, OpenMode mode) {
  const MutexLock lock(mutex_);
  const Place place = PlaceOf(path);
  if (CreatesFile(mode)) {
    if (!place.gone) return -EEXIST;
    UniqueFd made(memfd_create("overlay", MFD_CLOEXEC));
    if (!made) return -errno;
    Place created;
    created.made = std::make_shared<UniqueFd>(std::move(made));
    const int file = Duplicate(created.made->get());
    if (file >= 0) places_[path] = std::move(created);
    return file;
  }
  if (place.gone) return -ENOENT;
  if (place.made != nullptr) return Duplicate(place.made->get());
  return mode == OpenMode::kRead ? OpenToRead(place.moved_from) : -EROFS;
}

Status OverlayDiskIo::RawRename(const std::string& from, const std::string& to) {
  const MutexLock lock(mutex_);
  Place place = PlaceOf(from);
  if (place.gone) return NotThere("renaming", from);
  places_[to] = std::move(place);
  places_[from].gone = true;
  return {};
}

Status OverlayDiskIo::Unlink(const std::string& path) {
  const MutexLock lock(mutex_);
  if (PlaceOf(path).gone) return NotThere("removing", path);
  places_[path] = Place{true, "", nullptr};
  return {};
}

Status OverlayDiskIo::MakeDirectory(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
  return NotThere("opening the directory", path);
}

Result<std::vector<std::string>> OverlayDiskIo::List(const std::string& path) {
  const Result<std::vector<std::string>> there = PosixDiskIo::List(path);
  if (!there.ok()) return there;
  std::set<std::string> names(there->begin(), there->end());
  const MutexLock lock(mutex_);
  const std::string prefix = path + "/";
  for (const auto& [changed, place] : places_) {
    if (!changed.starts_with(prefix) || changed.find('/', prefix.size()) != std::string::npos) continue;
    const std::string name = changed.substr(prefix.size());
    place.gone ? static_cast<void>(names.erase(name)) : static_cast<void>(names.insert(name));
  }
  return std::vector<std::string>(names.begin(), names.end());
}

int OverlayDiskIo::RawAllocate(FileHandle file, uint64_t bytes, AllocateFill) {
  return ftruncate(file, static_cast<off_t>(bytes)) == 0 ? 0 : -errno;
}

}  // namespace sutra
