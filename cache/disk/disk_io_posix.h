// Plain system calls behind DiskIo. Any thread may call; a raw write runs inside RawSubmit and RawReap returns its
// result (one write is in flight at a time, see disk_io.h). The io_uring version inherits all but writes and syncs.
#pragma once

#include <string>
#include <vector>

#include "cache/disk/disk_io.h"

namespace sutra {

class PosixDiskIo : public DiskIo {
 public:
  explicit PosixDiskIo(bool direct) : direct_(direct) {}
  const char* name() const override { return "posix"; }
  Result<uint64_t> Size(FileHandle file) override;
  void DropCache(FileHandle file) override;
  Status SyncDirectory(const std::string& path) override;
  Status Unlink(const std::string& path) override;
  Status MakeDirectory(const std::string& path) override;
  Result<std::vector<std::string>> List(const std::string& path) override;

 protected:
  int RawOpen(const std::string& path, OpenMode mode) override;
  Status RawRename(const std::string& from, const std::string& to) override;
  void RawClose(FileHandle file) override;
  int64_t RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) override;
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override;
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_);
  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_);
  int RawSync(FileHandle file) override;

 private:
  const bool direct_;
  Completion completion_ SUTRA_GUARDED_BY(in_flight_mutex_);
};

}  // namespace sutra
