// DiskIo: every access of the cache to a disk, behind one seam with three implementations: io_uring (disk_io_uring.cc),
// plain system calls (disk_io_posix.cc) and the simulated disk of the tests. One conformance suite runs against all.
//
// Thread rule: any thread may call anything. One write is in flight at a time: Submit waits until the previous write
// was reaped, and the thread that submitted must reap (asserted); Write follows the same rule. Syncs wait for no write
// and no write waits for them: a sync may take much longer than the writes beside it may be delayed.
// Invariants:
//  - A completion is judged in one place (Reap): error, short write, cancelled sync, failed sync.
//  - A short write is finished and then synced again; a failed sync is reported and never repeated, because the kernel
//    may have marked the lost pages clean and would report success the second time. (Not asserted, because this code
//    cannot tell a repeated sync from another one; the conformance suite checks it.)
//  - Log files (kCreateLog, kWriteLog) are written in whole blocks from block-aligned memory, so that they can bypass
//  the page
//    cache; the size of a log file is fixed by Allocate. wal_writer.cc, the only writer of them, asserts it.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "shm/base/log_line.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"

namespace sutra {

inline constexpr uint64_t kDiskBlockBytes = 4096;

// Which implementation performs the accesses.
enum class DiskIoKind {
  kAuto,   // io_uring where the kernel allows it, else plain system calls
  kUring,  // io_uring for writes that nobody waits for, or an error
  kPosix,  // plain system calls
};
// The names that options and messages use.
inline constexpr std::pair<const char*, DiskIoKind> kDiskIoKindNames[] = {
    {"auto", DiskIoKind::kAuto},
    {"io_uring", DiskIoKind::kUring},
    {"posix", DiskIoKind::kPosix},
};

using FileHandle = int;
inline constexpr FileHandle kNoFile = -1;

enum class OpenMode {
  kRead,       // an existing file, through the page cache
  kCreate,     // a new small file (fails if it exists), owner only
  kCreateLog,  // a new log file (fails if it exists), owner only, written in whole blocks
  kWriteLog,   // an existing log file, written in whole blocks
};
inline bool CreatesFile(OpenMode mode) { return mode == OpenMode::kCreate || mode == OpenMode::kCreateLog; }
inline bool IsLogFile(OpenMode mode) { return mode == OpenMode::kCreateLog || mode == OpenMode::kWriteLog; }

enum class AllocateFill {
  kZeroed,     // blocks written with zeros: an overwrite later needs no metadata (half the latency of the other)
  kUnwritten,  // only reserved; reads as zeros. Fast, for a segment that is needed at once
};

class DiskIo {
 public:
  virtual ~DiskIo() = default;
  // What writes go through: "io_uring" or "posix" (also once a ring has broken).
  virtual const char* name() const = 0;

  Result<FileHandle> Open(const std::string& path, OpenMode mode);
  void Close(FileHandle file);
  virtual Result<uint64_t> Size(FileHandle file) = 0;

  // Reads until `into` is full or the file ends; returns the bytes read.
  Result<size_t> Read(FileHandle file, uint64_t offset, std::span<std::byte> into);

  // Gives a new file its size and its blocks, and with kZeroed fills them with zeros and syncs. Fails with ENOSPC
  // when the disk is full.
  Status Allocate(FileHandle file, uint64_t bytes, AllocateFill fill);

  // Begins to write all of `data`, which must stay untouched until Reap; with `then_sync` the write is also synced
  // before Reap reports success. `awaited`: somebody waits for it, so it takes the shortest way (see disk_io_uring.cc);
  // a write with `then_sync` always does.
  void Submit(FileHandle file, uint64_t offset, std::span<const std::byte> data, bool then_sync, bool awaited = false)
      SUTRA_ACQUIRE(in_flight_mutex_);
  Status Reap() SUTRA_RELEASE(in_flight_mutex_);
  Status Write(FileHandle file, uint64_t offset, std::span<const std::byte> data, bool then_sync);

  // Makes the file's data durable (fdatasync). After a failure the file's unsynced data must be considered lost.
  Status Sync(FileHandle file);
  // The same in two steps, for writes that go on meanwhile: a successful EndSync has made durable what was written
  // before BeginSync; what was written after it may be durable or not, and is lost like the rest if it fails. EndSync
  // waits for the disk; it may be called on another thread. At most one sync of a file is begun and not ended.
  void BeginSync(FileHandle file) { RawBeginSync(file); }
  Status EndSync(FileHandle file);
  // Whether EndSync would return at once, as far as that can be known.
  virtual bool SyncDone(FileHandle) { return true; }

  // Drops a synced file from the page cache, so that the next read sees the disk itself: after a failed sync the cache
  // may hold, marked clean, data that never reached the disk, and a later sync would not report it.
  virtual void DropCache(FileHandle file) = 0;

  // Makes creations, renames and removals in a directory durable.
  virtual Status SyncDirectory(const std::string& path) = 0;
  Status Rename(const std::string& from, const std::string& to);
  virtual Status Unlink(const std::string& path) = 0;
  // Creates the directory and missing parents with mode 0700, durably; succeeds if it exists already.
  virtual Status MakeDirectory(const std::string& path) = 0;
  // Names in a directory, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> List(const std::string& path) = 0;

 protected:
  static constexpr int64_t kNotDone = INT64_MIN;  // the step was not requested or did not run
  struct Completion {
    int64_t write = 0;        // bytes or -errno
    int64_t sync = kNotDone;  // 0 or -errno (-ECANCELED: it did not run, because the write fell short)
  };
  struct Operation {
    FileHandle file = kNoFile;
    uint64_t offset = 0;
    std::span<const std::byte> data;
    bool then_sync = false;
    bool awaited = false;
  };

  // What an implementation provides: raw results, negative errno on failure, no judgement.
  virtual int RawOpen(const std::string& path, OpenMode mode) = 0;
  virtual Status RawRename(const std::string& from, const std::string& to) = 0;
  virtual void RawClose(FileHandle file) = 0;
  virtual int64_t RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) = 0;
  virtual int RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) = 0;
  virtual void RawSubmit(const Operation& operation) SUTRA_REQUIRES(in_flight_mutex_) = 0;
  virtual Completion RawReap() SUTRA_REQUIRES(in_flight_mutex_) = 0;
  virtual void RawBeginSync(FileHandle) {}   // plain system calls sync in RawSync, so what is written later counts too
  virtual int RawSync(FileHandle file) = 0;  // any number at once, beside a write

  std::string PathOf(FileHandle file);

  Mutex in_flight_mutex_;  // held from Submit to Reap

 private:
  Status JudgeLocked(const Operation& operation, Completion completion) SUTRA_REQUIRES(in_flight_mutex_);

  Operation in_flight_ SUTRA_GUARDED_BY(in_flight_mutex_);  // no file: nothing is in flight
  pthread_t submitter_ SUTRA_GUARDED_BY(in_flight_mutex_) = {};
  Mutex paths_mutex_;
  std::map<FileHandle, std::string> paths_ SUTRA_GUARDED_BY(paths_mutex_);  // for messages
};

// Whether an operation failed because no space is left, on the disk or of the user's quota.
bool IsDiskFull(const Status& status);
// The process may not write files of this size (RLIMIT_FSIZE), however much room the disk has.
bool IsFileTooLarge(const Status& status);

// Plain system calls. `direct` bypasses the page cache for log files (O_DIRECT).
std::unique_ptr<DiskIo> MakePosixDiskIo(bool direct);
// io_uring for writes, plain system calls for the rest; fails where the kernel or a sandbox forbids it.
// `log` gets a line when the ring breaks and plain system calls take over.
Result<std::unique_ptr<DiskIo>> MakeUringDiskIo(bool direct, LogLine log = {});

// kAuto takes io_uring where a real write, sync and read back work in `directory`, and otherwise gives the reason in
// one line to `log`. Creates the directory if it is missing. On a full disk nothing can be tried out: kAuto then takes
// plain system calls, and says so.
Result<std::unique_ptr<DiskIo>> MakeDiskIo(DiskIoKind kind, const std::string& directory, const LogLine& log);

// Writes one aligned block in `directory` through `io`, syncs it and reads it back; leaves nothing behind.
Status ProbeDiskIo(DiskIo* io, const std::string& directory);

// Block-aligned memory for log writes.
struct AlignedFree {
  size_t mapped_bytes = 0;  // 0: of the allocator
  void operator()(std::byte* memory) const;
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedFree>;
// Large pieces are mapped, so that what a busy moment took goes back to the machine: the allocator kept 50 MB after a
// million inserts at full speed.
AlignedBytes AllocateAligned(size_t bytes);  // bytes: a multiple of kDiskBlockBytes; contents unspecified

}  // namespace sutra
