#include "bench/wal_disks.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace sutra::bench {
namespace {

using Steady = std::chrono::steady_clock;

constexpr uint64_t kFileBytes = 32 << 20;

[[noreturn]] void FailWith(const char* what) {
  std::perror(what);
  std::exit(1);
}

}  // namespace

BareFile::BareFile(const std::string& directory, BareAppend kind)
    : kind_(kind), block_(AllocateAligned(kDiskBlockBytes)) {
  const std::string path = directory + "/bare";
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file_ < 0) FailWith("bare file");
  const std::vector<char> zeros(kFileBytes);
  if (write(file_, zeros.data(), zeros.size()) != static_cast<ssize_t>(zeros.size()) || fsync(file_) != 0) {
    FailWith("zeros of the bare file");
  }
  if (kind != BareAppend::kBuffered) {
    close(file_);
    file_ = open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file_ < 0) FailWith("bare file with O_DIRECT");
  }
  unlink(path.c_str());
  std::memset(block_.get(), 1, kDiskBlockBytes);
}

BareFile::~BareFile() { close(file_); }

void BareFile::Append(int count, std::vector<double>* us) {
  for (int i = 0; i < count; ++i) {
    const iovec block{block_.get(), kDiskBlockBytes};
    const Steady::time_point start = Steady::now();
    const int flags = kind_ == BareAppend::kDirectDsync ? RWF_DSYNC : 0;
    if (pwritev2(file_, &block, 1, static_cast<off_t>(position_), flags) != static_cast<ssize_t>(kDiskBlockBytes)) {
      FailWith("bare append");
    }
    if (flags == 0 && fdatasync(file_) != 0) FailWith("bare sync");
    us->push_back(std::chrono::duration<double, std::micro>(Steady::now() - start).count());
    position_ = (position_ + kDiskBlockBytes) % kFileBytes;
  }
}

void CountingDisk::RawSubmit(const Operation& operation) {
  bytes_.fetch_add(operation.data.size(), std::memory_order_relaxed);
  PosixDiskIo::RawSubmit(operation);
}

int CountingDisk::RawAllocate(FileHandle file, uint64_t bytes, AllocateFill fill) {
  if (fill == AllocateFill::kZeroed) bytes_.fetch_add(bytes, std::memory_order_relaxed);
  return PosixDiskIo::RawAllocate(file, bytes, fill);
}

Status SlowDisk::SyncDirectory(const std::string& path) {
  std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms_));
  return PosixDiskIo::SyncDirectory(path);
}

int SlowDisk::RawSync(FileHandle file) {
  std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms_));
  return PosixDiskIo::RawSync(file);
}

}  // namespace sutra::bench
