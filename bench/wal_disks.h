// The disks and the bare appends that the log is measured beside: plain system calls on a zeroed file, a disk that
// counts what is written to it, and one whose syncs take long. Thread rule: as DiskIo; BareAppends: one thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cache/disk/disk_io_posix.h"

namespace sutra::bench {

// One durable append of a block at a time, without a log: the floor.
enum class BareAppend { kBuffered, kDirect, kDirectDsync };
inline constexpr std::array<std::pair<BareAppend, const char*>, 3> kBareAppends = {{
    {BareAppend::kBuffered, "buffered pwrite + fdatasync"},
    {BareAppend::kDirect, "O_DIRECT pwrite + fdatasync"},
    {BareAppend::kDirectDsync, "O_DIRECT pwritev2 RWF_DSYNC"},
}};

// A file of zeros to append to, and the microseconds of each append. Fails the bench when the disk does.
class BareFile {
 public:
  BareFile(const std::string& directory, BareAppend kind);
  ~BareFile();
  BareFile(const BareFile&) = delete;
  BareFile& operator=(const BareFile&) = delete;
  void Append(int count, std::vector<double>* us);

 private:
  const BareAppend kind_;
  int file_ = -1;
  uint64_t position_ = 0;
  AlignedBytes block_;
};

// Counts the bytes that it is told to write, zeros included.
class CountingDisk final : public PosixDiskIo {
 public:
  using PosixDiskIo::PosixDiskIo;
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }  // a count, no data behind it

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_);
  int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) override;

 private:
  std::atomic<uint64_t> bytes_{0};
};

// Every sync, of files and of directories, takes `delay_ms` more.
class SlowDisk final : public PosixDiskIo {
 public:
  SlowDisk(bool direct, int delay_ms) : PosixDiskIo(direct), delay_ms_(delay_ms) {}
  Status SyncDirectory(const std::string& path) override;

 protected:
  int RawSync(FileHandle file) override;

 private:
  const int delay_ms_;
};

}  // namespace sutra::bench
