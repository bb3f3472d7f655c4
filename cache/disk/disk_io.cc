// Judging completions, which all implementations share, and choosing an implementation.
#include "cache/disk/disk_io.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "shm/base/log_line.h"

namespace sutra {
namespace {

constexpr size_t kMappedMin = 256 << 10;
constexpr int kStallsMax = 16;  // results without progress (EINTR, EAGAIN, nothing written) before giving up

Status StorageError(const std::string& operation, int64_t negative_errno) {
  return Status::FromErrno(StatusCode::kStorageError, operation, static_cast<int>(-negative_errno));
}

}  // namespace

bool IsDiskFull(const Status& status) { return status.os_error() == ENOSPC || status.os_error() == EDQUOT; }

bool IsFileTooLarge(const Status& status) { return status.os_error() == EFBIG; }

void AlignedFree::operator()(std::byte* memory) const {
  if (mapped_bytes != 0) {
    munmap(memory, mapped_bytes);
  } else {
    ::operator delete (memory, std::align_val_t{kDiskBlockBytes});
  }
}

AlignedBytes AllocateAligned(size_t bytes) {
  if (bytes < kMappedMin) {
    return AlignedBytes(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kDiskBlockBytes})));
  }
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return AlignedBytes(static_cast<std::byte*>(memory), AlignedFree{bytes});
}

std::string DiskIo::PathOf(FileHandle file) {
  MutexLock lock(paths_mutex_);
  const auto found = paths_.find(file);
  return found != paths_.end() ? found->second : "(closed file)";
}

Result<FileHandle> DiskIo::Open(const std::string& path, OpenMode mode) {
  const int file = RawOpen(path, mode);
  if (file < 0) return StorageError((CreatesFile(mode) ? "creating " : "opening ") + path, file);
  try {
    MutexLock lock(paths_mutex_);
    paths_[file] = path;
  } catch (const std::bad_alloc&) {
    Close(file);
    throw;
  }
  return file;
}

void DiskIo::Close(FileHandle file) {
  {
    MutexLock lock(paths_mutex_);
    paths_.erase(file);
  }
  RawClose(file);
}

Status DiskIo::Rename(const std::string& from, const std::string& to) {
  if (Status status = RawRename(from, to); !status.ok()) return status;
  MutexLock lock(paths_mutex_);
  for (auto& [file, path] : paths_) {
    if (path == from) path = to;
  }
  return {};
}

Result<size_t> DiskIo::Read(FileHandle file, uint64_t offset, std::span<std::byte> into) {
  size_t done = 0;
  int stalls = 0;
  while (done < into.size()) {
    const int64_t result = RawRead(file, offset + done, into.subspan(done));
    if (result == 0) break;
    if (result > 0) {
      done += static_cast<size_t>(result);
    } else if ((result != -EINTR && result != -EAGAIN) || ++stalls > kStallsMax) {
      return StorageError("reading " + PathOf(file) + " at byte " + std::to_string(offset + done), result);
    }
  }
  return done;
}

Status DiskIo::Allocate(FileHandle file, uint64_t bytes, AllocateFill fill) {
  const int result = RawAllocate(file, bytes, fill);
  if (result < 0) return StorageError("allocating " + std::to_string(bytes) + " bytes for " + PathOf(file), result);
  return {};
}

void DiskIo::Submit(FileHandle file, uint64_t offset, std::span<const std::byte> data, bool then_sync, bool awaited) {
  in_flight_mutex_.Lock();
  assert(in_flight_.file == kNoFile && file != kNoFile);
  in_flight_ = Operation{file, offset, data, then_sync, awaited || then_sync};
  submitter_ = pthread_self();
  RawSubmit(in_flight_);
}

Status DiskIo::Reap() {
  assert(in_flight_.file != kNoFile && pthread_equal(submitter_, pthread_self()));
  const Operation operation = in_flight_;
  const Completion completion = RawReap();
  in_flight_ = Operation{};  // here, because a message needs memory, and there may be none
  try {
    Status status = JudgeLocked(operation, completion);
    in_flight_mutex_.Unlock();
    return status;
  } catch (...) {
    in_flight_mutex_.Unlock();
    throw;
  }
}

Status DiskIo::Write(FileHandle file, uint64_t offset, std::span<const std::byte> data, bool then_sync) {
  Submit(file, offset, data, then_sync);
  return Reap();
}

Status DiskIo::Sync(FileHandle file) {
  BeginSync(file);
  return EndSync(file);
}

Status DiskIo::EndSync(FileHandle file) {
  const int result = RawSync(file);
  if (result < 0) return StorageError("syncing " + PathOf(file), result);
  return {};
}

Status DiskIo::JudgeLocked(const Operation& operation, Completion completion) {
  uint64_t written = 0;
  int stalls = 0;
  bool whole_at_once = true;
  while (true) {
    const int64_t result = completion.write;
    if (result < 0 && result != -EINTR && result != -EAGAIN) {
      return StorageError("writing " + std::to_string(operation.data.size()) + " bytes to " + PathOf(operation.file) +
                              " at byte " + std::to_string(operation.offset),
                          result);
    }
    const bool sync_ran = completion.sync != kNotDone && completion.sync != -ECANCELED;
    if (sync_ran && completion.sync < 0) {
      return StorageError("syncing " + PathOf(operation.file), completion.sync);
    }
    if (result > 0) written += static_cast<uint64_t>(result);
    if (written >= operation.data.size()) break;
    whole_at_once = false;
    if (result > 0 && static_cast<uint64_t>(result) >= kDiskBlockBytes) {
      stalls = 0;
    } else if (++stalls > kStallsMax) {
      return StorageError("writing to " + PathOf(operation.file) + " (no progress)", result < 0 ? result : -ENOSPC);
    }
    // The rest starts at a block boundary, because a file that bypasses the page cache accepts nothing else.
    written -= written % kDiskBlockBytes;
    RawSubmit(Operation{operation.file, operation.offset + written, operation.data.subspan(written), false,
                        operation.awaited});
    completion = RawReap();
  }
  // A sync that ran along with a short write does not cover the rest, which needs a sync of its own.
  const bool synced = completion.sync == 0 && whole_at_once;
  return operation.then_sync && !synced ? Sync(operation.file) : Status();
}

Status ProbeDiskIo(DiskIo* io, const std::string& directory) {
  const std::string path = directory + "/probe-" + std::to_string(getpid()) + ".tmp";
  const AlignedBytes written = AllocateAligned(kDiskBlockBytes);
  std::memset(written.get(), 0x5a, kDiskBlockBytes);
  std::vector<std::byte> seen(kDiskBlockBytes);
  Result<FileHandle> file = io->Open(path, OpenMode::kCreateLog);
  if (!file.ok()) return file.status();
  Status status = io->Allocate(*file, kDiskBlockBytes, AllocateFill::kUnwritten);
  if (status.ok()) status = io->Write(*file, 0, {written.get(), kDiskBlockBytes}, false);  // not awaited: by the ring
  if (status.ok()) status = io->Sync(*file);
  io->Close(*file);
  if (status.ok()) {
    Result<FileHandle> again = io->Open(path, OpenMode::kRead);
    if (again.ok()) {
      const Result<size_t> read = io->Read(*again, 0, seen);
      io->Close(*again);
      if (!read.ok()) {
        status = read.status();
      } else if (*read != seen.size() || std::memcmp(seen.data(), written.get(), seen.size()) != 0) {
        status = Status(StatusCode::kStorageError, path + " does not read back what was written to it");
      }
    } else {
      status = again.status();
    }
  }
  const Status removed = io->Unlink(path);
  return status.ok() ? removed : status;
}

Result<std::unique_ptr<DiskIo>> MakeDiskIo(DiskIoKind kind, const std::string& directory, const LogLine& log) {
  // Plain system calls first: whatever fails with them is the directory's fault, not io_uring's.
  std::unique_ptr<DiskIo> posix;
  bool direct = true;
  Status probed;
  for (;; direct = false) {
    posix = MakePosixDiskIo(direct);
    Status status = posix->MakeDirectory(directory);
    if (status.ok()) status = probed = ProbeDiskIo(posix.get(), directory);
    if (status.ok() || IsDiskFull(probed)) break;
    if (direct && status.os_error() == EINVAL) continue;  // this file system cannot bypass the page cache
    std::string fix;
    if (status.os_error() == EACCES || status.os_error() == EPERM || status.os_error() == EROFS) {
      fix =
          "; user " + std::to_string(geteuid()) + " must be able to write there: change its owner or name another one";
    } else if (IsDiskFull(status)) {
      fix = "; free some space there or name another one";
    }
    return Status(StatusCode::kStorageError,
                  "the data directory " + directory + " is not usable: " + status.message() + fix, status.os_error());
  }
  if (kind == DiskIoKind::kPosix) return posix;
  Result<std::unique_ptr<DiskIo>> uring = MakeUringDiskIo(direct, log);
  Status status = !uring.ok() ? uring.status() : !probed.ok() ? probed : ProbeDiskIo(uring->get(), directory);
  if (status.ok() || (uring.ok() && kind == DiskIoKind::kUring && IsDiskFull(status))) return uring;
  if (kind == DiskIoKind::kUring) {
    return Status(status.code(),
                  "io_uring is not usable in " + directory + ": " + status.message() +
                      "; use auto or posix, or allow io_uring (kernel.io_uring_disabled, seccomp)",
                  status.os_error());
  }
  if (log)
    log(LogLevel::kWarn,
        "io_uring is not usable in " + directory + " (" + status.message() + "): using plain system calls");
  return posix;
}

}  // namespace sutra
