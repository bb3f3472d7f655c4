// DiskIo through plain system calls.
#include "cache/disk/disk_io_posix.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sutra {
namespace {

constexpr uint64_t kZeroWriteBytes = 1u << 20;  // larger writes would block everything behind them in the device queue

Status StorageErrno(const std::string& operation) {
  return Status::FromErrno(StatusCode::kStorageError, operation, errno);
}

int WriteZeros(int file, uint64_t bytes) {
  const AlignedBytes zeros = AllocateAligned(kZeroWriteBytes);
  std::memset(zeros.get(), 0, kZeroWriteBytes);
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t result = pwrite(file, zeros.get(), std::min(kZeroWriteBytes, bytes - at), static_cast<off_t>(at));
    if (result < 0 && errno != EINTR) return -errno;
    if (result == 0) return -ENOSPC;
    if (result > 0) at += static_cast<uint64_t>(result) - static_cast<uint64_t>(result) % kDiskBlockBytes;
    if (result > 0 && static_cast<uint64_t>(result) < kDiskBlockBytes) return -ENOSPC;
  }
  return 0;
}

}  // namespace

int PosixDiskIo::RawOpen(const std::string& path, OpenMode mode) {
  int flags = O_CLOEXEC | (mode == OpenMode::kRead ? O_RDONLY : O_RDWR);
  if (CreatesFile(mode)) flags |= O_CREAT | O_EXCL;
  if (IsLogFile(mode) && direct_) flags |= O_DIRECT;
  const int file = open(path.c_str(), flags, 0600);
  if (file >= 0) return file;
  const int error = errno;
  // A file system that refuses O_DIRECT has created the file by the time it fails.
  if (error == EINVAL && mode == OpenMode::kCreateLog) unlink(path.c_str());
  return -error;
}

void PosixDiskIo::RawClose(FileHandle file) { close(file); }

Result<uint64_t> PosixDiskIo::Size(FileHandle file) {
  struct stat info {};
  if (fstat(file, &info) != 0) return StorageErrno("reading the size of " + PathOf(file));
  return static_cast<uint64_t>(info.st_size);
}

void PosixDiskIo::DropCache(FileHandle file) { posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED); }

int64_t PosixDiskIo::RawRead(FileHandle file, uint64_t offset, std::span<std::byte> into) {
  const ssize_t result = pread(file, into.data(), into.size(), static_cast<off_t>(offset));
  return result < 0 ? -errno : result;
}

int PosixDiskIo::RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) {
  const auto size = static_cast<off_t>(bytes);
  if (fallocate(file, 0, 0, size) != 0) {
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    fill = AllocateFill::kZeroed;  // only writing proves that the blocks are there
  }
  if (fill == AllocateFill::kUnwritten) return 0;
  const int result = WriteZeros(file, bytes);
  if (result < 0) return result;
  return fsync(file) == 0 ? 0 : -errno;
}

void PosixDiskIo::RawSubmit(const Operation& operation) {
  completion_ = Completion{};
  const ssize_t result =
      pwrite(operation.file, operation.data.data(), operation.data.size(), static_cast<off_t>(operation.offset));
  completion_.write = result < 0 ? -errno : result;
  if (operation.then_sync && completion_.write == static_cast<int64_t>(operation.data.size())) {
    completion_.sync = RawSync(operation.file);
  }
}

DiskIo::Completion PosixDiskIo::RawReap() { return completion_; }

int PosixDiskIo::RawSync(FileHandle file) { return fdatasync(file) == 0 ? 0 : -errno; }

Status PosixDiskIo::SyncDirectory(const std::string& path) {
  const int directory = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return StorageErrno("opening the directory " + path);
  const int error = fsync(directory) == 0 ? 0 : errno;
  close(directory);
  if (error == 0) return {};
  return Status::FromErrno(StatusCode::kStorageError, "syncing the directory " + path, error);
}

Status PosixDiskIo::RawRename(const std::string& from, const std::string& to) {
  return rename(from.c_str(), to.c_str()) == 0 ? Status() : StorageErrno("renaming " + from + " to " + to);
}

Status PosixDiskIo::Unlink(const std::string& path) {
  return unlink(path.c_str()) == 0 ? Status() : StorageErrno("removing " + path);
}

Status PosixDiskIo::MakeDirectory(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (part.empty()) continue;
    if (mkdir(part.c_str(), 0700) == 0) {
      const size_t slash = part.rfind('/');
      const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : part.substr(0, slash);
      if (Status status = SyncDirectory(parent); !status.ok()) return status;  // P2: the new name
    } else if (errno != EEXIST) {
      const int error = errno;
      struct stat info {};
      // For a parent that exists but is not writable, some file systems report EACCES or EROFS instead of EEXIST.
      if (stat(part.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        return Status::FromErrno(StatusCode::kStorageError, "creating the directory " + part, error);
      }
    }
    if (end == std::string::npos) break;
  }
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return StorageErrno("looking at " + path);
  if (!S_ISDIR(info.st_mode)) {
    return Status(StatusCode::kStorageError, path + " is not a directory", ENOTDIR);
  }
  return {};
}

Result<std::vector<std::string>> PosixDiskIo::List(const std::string& path) {
  const auto close_directory = [](DIR* directory) { closedir(directory); };
  const std::unique_ptr<DIR, decltype(close_directory)> directory(opendir(path.c_str()), close_directory);
  if (directory == nullptr) return StorageErrno("listing " + path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  const int error = errno;
  if (error != 0) return Status::FromErrno(StatusCode::kStorageError, "listing " + path, error);
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<DiskIo> MakePosixDiskIo(bool direct) { return std::make_unique<PosixDiskIo>(direct); }

}  // namespace sutra
