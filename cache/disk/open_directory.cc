// The *at calls, each with the flag that keeps it from following a link.
#include "cache/disk/open_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <memory>
#include <optional>

#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kStatBlockBytes = 512;  // the unit of st_blocks, whatever the file system's is
constexpr int kDirectoryFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

[[maybe_unused]] bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};

}  // namespace

Status OpenDirectory::Failed(const char* what, const std::string& name) const {
  const int error = errno;
  return Status::FromErrno(StatusCode::kStorageError,
                           std::string(what) + " " + path_ + (name.empty() ? "" : "/" + name), error);
}

Result<OpenDirectory> OpenDirectory::Open(const std::string& path) {
  UniqueFd fd(open(path.c_str(), kDirectoryFlags));
  const std::optional<FileIdentity> identity = fd ? FileIdentity::Of(fd.get()) : std::nullopt;
  if (!identity.has_value()) return Status::FromErrno(StatusCode::kStorageError, "opening " + path, errno);
  return OpenDirectory(path, std::move(fd), *identity);
}

Result<OpenDirectory> OpenDirectory::OpenChild(const std::string& name) const {
  assert(IsPlainName(name));
  const std::string path = path_ + "/" + name;
  UniqueFd fd(openat(fd_.get(), name.c_str(), kDirectoryFlags | O_NOFOLLOW));
  if (!fd && (errno == ENOTDIR || errno == ELOOP)) return Status(StatusCode::kRefused, path + " is no directory");
  if (!fd) return Failed("opening", name);
  const std::optional<FileIdentity> identity = FileIdentity::Of(fd.get());
  if (!identity.has_value()) return Failed("opening", name);
  if (identity->device != identity_.device) {
    return Status(StatusCode::kRefused, "another file system is mounted at " + path);
  }
  return OpenDirectory(path, std::move(fd), *identity);
}

// O_NONBLOCK: opening must not wait for the other end of a FIFO.
Result<UniqueFd> OpenDirectory::OpenFile(const std::string& name) const {
  assert(IsPlainName(name));
  UniqueFd fd(openat(fd_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat info = {};
  if (fd && fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode)) return fd;
  if (!fd && errno != ELOOP && errno != ENXIO) return Failed("opening", name);
  return Status(StatusCode::kRefused, path_ + "/" + name + " is no regular file");
}

Result<std::vector<OpenDirectory::Item>> OpenDirectory::List() const {
  // A descriptor of its own: the position in the directory belongs to the open file.
  UniqueFd fd(openat(fd_.get(), ".", kDirectoryFlags));
  if (!fd) return Failed("listing", "");
  const std::unique_ptr<DIR, CloseDirectory> directory(fdopendir(fd.get()));
  if (directory == nullptr) return Failed("listing", "");
  static_cast<void>(fd.release());
  std::vector<Item> items;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(directory.get());
    if (entry == nullptr && errno != 0) return Failed("listing", "");
    if (entry == nullptr) break;
    Item item;
    item.name = entry->d_name;
    if (item.name == "." || item.name == "..") continue;
    struct stat info = {};
    if (fstatat(fd_.get(), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;  // removed meanwhile
      return Failed("looking at", item.name);
    }
    item.mode = info.st_mode;
    item.identity = FileIdentity::From(info);
    item.bytes = static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
    item.changed_ns = ToNs(info.st_mtim);
    items.push_back(std::move(item));
    if (items.size() > kItemsMax) return Status(StatusCode::kRefused, path_ + " holds too many names");
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.name < b.name; });
  return items;
}

Status OpenDirectory::Rename(const std::string& from, const std::string& to) const {
  assert(IsPlainName(from) && IsPlainName(to));
  if (renameat2(fd_.get(), from.c_str(), fd_.get(), to.c_str(), RENAME_NOREPLACE) == 0) return {};
  // Not every file system has it (NFS). Then only an empty directory could be replaced, by another directory.
  if (errno == EINVAL && renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str()) == 0) return {};
  return Failed("renaming", from);
}

Status OpenDirectory::Unlink(const std::string& name) const {
  assert(IsPlainName(name));
  return unlinkat(fd_.get(), name.c_str(), 0) == 0 ? Status() : Failed("removing", name);
}

Status OpenDirectory::RemoveChild(const std::string& name) const {
  assert(IsPlainName(name));
  return unlinkat(fd_.get(), name.c_str(), AT_REMOVEDIR) == 0 ? Status() : Failed("removing", name);
}

Status OpenDirectory::Sync() const { return fsync(fd_.get()) == 0 ? Status() : Failed("syncing", ""); }

}  // namespace sutra
