// A disk for looking only: reads see the files as they are, and what is created, written, renamed or removed happens in
// memory and ends with the object. So the shard's own code opens a log, recovers it and serves what is in it, and not a
// byte of the directory changes; it may be on a read-only file system, damaged, or being written by an engine.
//
// Thread rule: as DiskIo. No system call here can change a file, a directory or their times (where the caller owns the
// files, not even the time of access): tests/cache/shard_at_rest_test.cc compares all of them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cache/disk/disk_io_posix.h"
#include "shm/base/mutex.h"
#include "shm/base/unique_fd.h"

namespace sutra {

class OverlayDiskIo final : public PosixDiskIo {
 public:
  OverlayDiskIo() : PosixDiskIo(false) {}
  const char* name() const override { return "memory over files"; }
  void DropCache(FileHandle) override {}
  Status SyncDirectory(const std::string&) override { return {}; }
  Status Unlink(const std::string& path) override;
  Status MakeDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;

 protected:
  int RawOpen(const std::string& path, OpenMode mode) override;
  Status RawRename(const std::string& from, const std::string& to) override;
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override;
  int RawSync(FileHandle) override { return 0; }

 private:
  // What a path leads to, where that is not the file of its name.
  struct Place {
    bool gone = false;
    std::string moved_from;          // a file, by its name on the disk
    std::shared_ptr<UniqueFd> made;  // a file in memory
  };
  Place PlaceOf(const std::string& path) SUTRA_REQUIRES(mutex_);

  Mutex mutex_;
  std::map<std::string, Place> places_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra
