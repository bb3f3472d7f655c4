// DiskIo with writes through io_uring: a write that is to be synced and its sync go down in one call as a linked pair.
// Everything else is a plain system call; so is a sync of its own, which may run beside a write, and which the ring
// would only hand to a kernel thread.
//
// Thread rule and invariants: disk_io.h. The ring is used by one thread at a time (the one that holds the write in
// flight), but not always by the same one, so it is set up without SINGLE_ISSUER, which would bind it to the thread
// that opened the cache. Results come from completions only; errno means nothing after a ring call.
#include <liburing.h>

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "cache/disk/disk_io_posix.h"

namespace sutra {
namespace {

class UringDiskIo final : public PosixDiskIo {
 public:
  UringDiskIo(bool direct, LogLine log) : PosixDiskIo(direct), log_(std::move(log)) {}
  ~UringDiskIo() override {
    if (ready_) io_uring_queue_exit(&ring_);
  }
  const char* name() const override { return broken_.load(kRelaxed) ? PosixDiskIo::name() : "io_uring"; }

  Status Start() {
    MutexLock lock(in_flight_mutex_);
    const int result = io_uring_queue_init(kEntries, &ring_, 0);
    if (result < 0) return Status::FromErrno(StatusCode::kStorageError, "setting up io_uring", -result);
    ready_ = true;
    io_uring_ring_dontfork(&ring_);
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool usable = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
                        io_uring_opcode_supported(probe, IORING_OP_FSYNC);
    if (probe != nullptr) io_uring_free_probe(probe);
    if (!usable) return Status::FromErrno(StatusCode::kStorageError, "io_uring has no write or fsync", ENOSYS);
    return {};
  }

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    assert(expected_ == 0);
    completion_ = Completion{};
    plain_ = broken_.load(kRelaxed);
    if (plain_) {
      PosixDiskIo::RawSubmit(operation);
      return;
    }
    io_uring_sqe* write = NextEntry();
    const auto size = static_cast<unsigned>(operation.data.size());
    io_uring_prep_write(write, operation.file, operation.data.data(), size, operation.offset);
    io_uring_sqe_set_data64(write, kWriteTag);
    if (operation.then_sync) {
      io_uring_sqe_set_flags(write, IOSQE_IO_LINK);
      io_uring_sqe* sync = NextEntry();
      io_uring_prep_fsync(sync, operation.file, IORING_FSYNC_DATASYNC);
      io_uring_sqe_set_data64(sync, kSyncTag);
    }
    EnterKernel(operation.then_sync ? 2 : 1);
  }

  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_) {
    if (plain_) return PosixDiskIo::RawReap();
    while (expected_ > 0) {
      io_uring_cqe* completed = nullptr;
      const int result = io_uring_wait_cqe(&ring_, &completed);
      if (result == -EINTR || result == -EAGAIN) continue;
      if (result < 0) {
        // What is in flight is unknown, so nothing may count as written.
        completion_.write = result;
        expected_ = 0;
        Break(result);
        break;
      }
      if (io_uring_cqe_get_data64(completed) == kWriteTag) {
        completion_.write = completed->res;
      } else {
        completion_.sync = completed->res;
      }
      io_uring_cqe_seen(&ring_, completed);
      --expected_;
    }
    // A sync that was not linked may have run before its write.
    if (split_ && completion_.sync == 0) completion_.sync = kNotDone;
    return completion_;
  }

 private:
  const LogLine log_;
  static constexpr auto kRelaxed = std::memory_order_relaxed;  // broken_: a flag, no data behind it
  static constexpr unsigned kEntries = 8;
  static constexpr int kStallsMax = 1000;
  static constexpr uint64_t kWriteTag = 1;
  static constexpr uint64_t kSyncTag = 2;

  void Break(int negative_errno) SUTRA_REQUIRES(in_flight_mutex_) {
    broken_.store(true, kRelaxed);
    if (!log_) return;
    log_(LogLevel::kWarn, std::string("io_uring is out of use from here on (") + std::strerror(-negative_errno) +
                              "): plain system calls take over; start again to use it, or choose --disk-io posix");
  }

  // One is always free: at most two are in use while one write is in flight.
  io_uring_sqe* NextEntry() SUTRA_REQUIRES(in_flight_mutex_) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    assert(entry != nullptr);
    return entry;
  }

  // Submits the `count` prepared entries. A ring that refuses them permanently is never used again, because it would
  // submit them together with the next ones: plain system calls take over.
  void EnterKernel(unsigned count) SUTRA_REQUIRES(in_flight_mutex_) {
    unsigned submitted = 0;
    int stalls = 0;
    split_ = false;
    while (submitted < count) {
      const int result = io_uring_submit(&ring_);
      if (result > 0) {
        submitted += static_cast<unsigned>(result);
        split_ = submitted < count;
      } else if ((result != -EINTR && result != -EAGAIN && result != -EBUSY) || ++stalls > kStallsMax) {
        completion_.write = result < 0 ? result : -EIO;
        Break(static_cast<int>(completion_.write));
        break;
      }
    }
    expected_ = submitted;
  }

  io_uring ring_ SUTRA_GUARDED_BY(in_flight_mutex_) = {};
  bool ready_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;
  std::atomic<bool> broken_{false};                           // the ring is out of use; name() reads it any time
  bool plain_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;     // the operation in flight uses plain system calls
  bool split_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;     // the last pair did not enter the kernel in one call
  unsigned expected_ SUTRA_GUARDED_BY(in_flight_mutex_) = 0;  // completions still to arrive
  Completion completion_ SUTRA_GUARDED_BY(in_flight_mutex_);
};

}  // namespace

Result<std::unique_ptr<DiskIo>> MakeUringDiskIo(bool direct, LogLine log) {
  auto io = std::make_unique<UringDiskIo>(direct, std::move(log));
  if (Status status = io->Start(); !status.ok()) return status;
  return std::unique_ptr<DiskIo>(std::move(io));
}

}  // namespace sutra
