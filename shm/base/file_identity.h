// Which file a path leads to, so that a file that was made here is told from one that took its place. Plain values.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

namespace sutra {

struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileIdentity&) const = default;

  static FileIdentity From(const struct stat& info) { return {info.st_dev, info.st_ino}; }
  // Of what is at `path` itself: a symbolic link is not followed. Nothing if that cannot be told; errno has the reason.
  static std::optional<FileIdentity> At(const std::string& path) {
    struct stat info = {};
    return lstat(path.c_str(), &info) == 0 ? std::optional(From(info)) : std::nullopt;
  }
  static std::optional<FileIdentity> Of(int fd) {
    struct stat info = {};
    return fstat(fd, &info) == 0 ? std::optional(From(info)) : std::nullopt;
  }
};

// "a regular file", for messages about what is in the way.
inline const char* FileTypeName(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG: return "a regular file";
    case S_IFDIR: return "a directory";
    case S_IFLNK: return "a symbolic link";
    case S_IFIFO: return "a FIFO";
    case S_IFCHR: return "a character device";
    case S_IFBLK: return "a block device";
    case S_IFSOCK: return "a socket";
  }
  return "a file";
}

}  // namespace sutra
