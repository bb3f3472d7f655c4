// A directory held open by its descriptor, for work in a tree that others may change meanwhile: every name is resolved
// in that directory, and no symbolic link is followed below the path that Open was given. So nothing outside of the
// tree can be read, renamed or removed, whatever is put in a name's place.
//
// Thread rule: one thread. Errors are kStorageError with the path and errno, unless said otherwise.
// Invariants:
//  - No name that is given has a slash in it, or is "." or "..".
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shm/base/file_identity.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class OpenDirectory {
 public:
  struct Item {
    std::string name;
    mode_t mode = 0;
    FileIdentity identity;
    uint64_t bytes = 0;       // that it takes up on the disk
    uint64_t changed_ns = 0;  // wall-clock time of the last write
  };
  static constexpr size_t kItemsMax = 1u << 20;

  // `path` is the operator's choice: links in it are followed.
  static Result<OpenDirectory> Open(const std::string& path);
  // kRefused: it is no directory (a link is none), or another file system is mounted there.
  Result<OpenDirectory> OpenChild(const std::string& name) const;
  // Opens a regular file to read it; kRefused for anything else.
  Result<UniqueFd> OpenFile(const std::string& name) const;

  // Sorted by name, without "." and "..". kRefused: there are more than kItemsMax.
  Result<std::vector<Item>> List() const;
  // Fails where `to` exists.
  Status Rename(const std::string& from, const std::string& to) const;
  Status Unlink(const std::string& name) const;
  Status RemoveChild(const std::string& name) const;  // an empty directory
  // Makes renames and removals in it durable.
  Status Sync() const;

  const std::string& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }

 private:
  OpenDirectory(std::string path, UniqueFd fd, const FileIdentity& identity)
      : path_(std::move(path)), fd_(std::move(fd)), identity_(identity) {}
  Status Failed(const char* what, const std::string& name) const;  // with errno

  std::string path_;  // for messages
  UniqueFd fd_;
  FileIdentity identity_;
};

}  // namespace sutra
