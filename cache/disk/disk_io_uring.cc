// DiskIo with writes through io_uring, where nobody waits for them. Everything else is a plain system call: syncs,
// which the ring would only hand to a kernel thread, and writes that somebody waits for. A direct write of the ring is
// completed by a kernel thread of everyone's priority, one change of thread more, and behind whatever computes on all
// CPUs, however high the priority of who waits; a plain call is completed by its caller.
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
    const bool usable = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_WRITE);
    if (probe != nullptr) io_uring_free_probe(probe);
    if (!usable) return Status::FromErrno(StatusCode::kStorageError, "io_uring has no write", ENOSYS);
    return {};
  }

 protected:
  void RawSubmit(const Operation& operation) override SUTRA_REQUIRES(in_flight_mutex_) {
    assert(!in_ring_);
    completion_ = Completion{};
    plain_ = operation.awaited || broken_.load(kRelaxed);
    if (plain_) {
      PosixDiskIo::RawSubmit(operation);
      return;
    }
    io_uring_sqe* write = io_uring_get_sqe(&ring_);
    assert(write != nullptr);  // one write is in flight at a time
    const auto size = static_cast<unsigned>(operation.data.size());
    io_uring_prep_write(write, operation.file, operation.data.data(), size, operation.offset);
    EnterKernel();
  }

  Completion RawReap() override SUTRA_REQUIRES(in_flight_mutex_) {
    if (plain_) return PosixDiskIo::RawReap();
    while (in_ring_) {
      io_uring_cqe* completed = nullptr;
      const int result = io_uring_wait_cqe(&ring_, &completed);
      if (result == -EINTR || result == -EAGAIN) continue;
      in_ring_ = false;
      if (result < 0) {
        // What is in flight is unknown, so it does not count as written.
        completion_.write = result;
        Break(result);
      } else {
        completion_.write = completed->res;
        io_uring_cqe_seen(&ring_, completed);
      }
    }
    return completion_;
  }

 private:
  const LogLine log_;
  static constexpr auto kRelaxed = std::memory_order_relaxed;  // broken_: a flag, no data behind it
  static constexpr unsigned kEntries = 1;
  static constexpr int kStallsMax = 1000;

  void Break(int negative_errno) SUTRA_REQUIRES(in_flight_mutex_) {
    broken_.store(true, kRelaxed);
    if (!log_) return;
    log_(LogLevel::kWarn, std::string("io_uring is out of use from here on (") + std::strerror(-negative_errno) +
                              "): plain system calls take over; start again to use it, or choose --disk-io posix");
  }

  // Submits the prepared entry. A ring that refuses it permanently is never used again, because it would submit it
  // together with the next one: plain system calls take over.
  void EnterKernel() SUTRA_REQUIRES(in_flight_mutex_) {
    for (int stalls = 0; !in_ring_;) {
      const int result = io_uring_submit(&ring_);
      if (result > 0) {
        in_ring_ = true;
      } else if ((result != -EINTR && result != -EAGAIN && result != -EBUSY) || ++stalls > kStallsMax) {
        completion_.write = result < 0 ? result : -EIO;
        Break(static_cast<int>(completion_.write));
        break;
      }
    }
  }

  io_uring ring_ SUTRA_GUARDED_BY(in_flight_mutex_) = {};
  bool ready_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;
  std::atomic<bool> broken_{false};                          // the ring is out of use; name() reads it any time
  bool plain_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;    // the operation in flight uses plain system calls
  bool in_ring_ SUTRA_GUARDED_BY(in_flight_mutex_) = false;  // its completion is still to arrive
  Completion completion_ SUTRA_GUARDED_BY(in_flight_mutex_);
};

}  // namespace

Result<std::unique_ptr<DiskIo>> MakeUringDiskIo(bool direct, LogLine log) {
  auto io = std::make_unique<UringDiskIo>(direct, std::move(log));
  if (Status status = io->Start(); !status.ok()) return status;
  return std::unique_ptr<DiskIo>(std::move(io));
}

}  // namespace sutra
