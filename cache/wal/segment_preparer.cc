// The one reserve file: creating it or taking over an old segment, waiting for it, handing it over, trying again.
// `state_` says which thread may touch it.
#include "cache/wal/segment_preparer.h"

#include <pthread.h>

#include <cassert>
#include <cerrno>
#include <new>
#include <utility>

#include "cache/wal/wal_format.h"
#include "shm/base/checkpoint.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr uint64_t kRetryNs = kNsPerSecond;

Status OutOfMemory() { return Status(StatusCode::kOutOfMemory, "out of memory"); }  // short: needs none itself

}  // namespace

SegmentPreparer::SegmentPreparer(DiskIo* io, Clock* clock, std::string directory, uint64_t segment_bytes, bool threaded)
    : io_(io), clock_(clock), directory_(std::move(directory)), segment_bytes_(segment_bytes), threaded_(threaded) {
  assert(SegmentNumber("reserve.tmp") == 0);
  if (threaded_) thread_ = std::thread(&SegmentPreparer::Run, this);
}

SegmentPreparer::~SegmentPreparer() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
  if (file_ >= 0) io_->Close(file_);
}

Result<FileHandle> SegmentPreparer::Make(AllocateFill fill) {
  Status removed = io_->Unlink(path());
  if (!removed.ok() && removed.os_error() != ENOENT) return removed;
  Result<FileHandle> file = io_->Open(path(), OpenMode::kCreateLog);
  if (!file.ok()) return file;
  Status status = Fill(*file, fill);
  if (status.ok()) return file;
  io_->Close(*file);
  removed = io_->Unlink(path());  // an unfinished file must not take up the space
  return status;
}

Status SegmentPreparer::Fill(FileHandle file, AllocateFill fill) {
  try {
    if (Status status = io_->Allocate(file, segment_bytes_, fill); !status.ok()) return status;
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  }
  if (SUTRA_CHECKPOINT("segment.allocated")) {
    return Status(StatusCode::kStorageError, "checkpoint segment.allocated failed");
  }
  return {};
}

void SegmentPreparer::AttemptLocked() {
  assert(!working_ && file_ == kNoFile && (state_ == State::kWanted || state_ == State::kFailed));
  working_ = true;
  mutex_.Unlock();
  FileHandle file = kNoFile;
  Status failure;
  try {
    const Result<FileHandle> made = Make(AllocateFill::kZeroed);
    if (made.ok()) file = made.value();
    failure = made.status();
  } catch (const std::bad_alloc&) {
    failure = OutOfMemory();
  }
  mutex_.Lock();
  assert(working_ && file_ == kNoFile && state_ != State::kNone);  // Take waited
  working_ = false;
  failure_ = std::move(failure);
  if (failure_.ok()) {
    file_ = file;
    written_over_ = false;
    state_ = State::kReady;
  } else {
    state_ = State::kFailed;
    retry_at_ns_ = clock_->MonotonicNs() + kRetryNs;
  }
  has_room_.store(failure_.ok(), std::memory_order_relaxed);
  changed_.NotifyAll();
  if (!failure_.ok() && failure_hook_) failure_hook_();
}

Status SegmentPreparer::failure() {
  MutexLock lock(mutex_);
  return failure_;
}

void SegmentPreparer::SetFailureHook(std::function<void()> hook) {
  MutexLock lock(mutex_);
  failure_hook_ = std::move(hook);
}

void SegmentPreparer::Request() {
  MutexLock lock(mutex_);
  if (state_ == State::kReady || state_ == State::kWanted) return;
  if (state_ == State::kNone) state_ = State::kWanted;
  if (threaded_) {
    wake_.NotifyAll();
  } else {
    AttemptLocked();
  }
}

void SegmentPreparer::Retry() {
  MutexLock lock(mutex_);
  if (state_ != State::kFailed || working_) return;
  state_ = State::kWanted;
  has_room_.store(true, std::memory_order_relaxed);
  if (threaded_) {
    wake_.NotifyAll();
  } else {
    AttemptLocked();
  }
}

void SegmentPreparer::Poll() {
  MutexLock lock(mutex_);
  if (!threaded_ && state_ == State::kFailed && clock_->MonotonicNs() >= retry_at_ns_) AttemptLocked();
}

Result<SegmentPreparer::Reserve> SegmentPreparer::Take() {
  MutexLock lock(mutex_);
  while (working_ || (threaded_ && state_ == State::kWanted)) changed_.Wait(mutex_);
  const bool ready = state_ == State::kReady;
  state_ = State::kNone;
  if (ready) return Reserve{std::exchange(file_, kNoFile), written_over_};
  const Result<FileHandle> made = Make(AllocateFill::kUnwritten);
  if (!made.ok()) return made.status();
  return Reserve{made.value(), false};
}

bool SegmentPreparer::wants_file() {
  MutexLock lock(mutex_);
  return !working_ && (state_ == State::kNone || state_ == State::kFailed);
}

bool SegmentPreparer::Reuse(const std::string& path_before) {
  MutexLock lock(mutex_);
  if (working_ || (state_ != State::kNone && state_ != State::kFailed)) return false;
  const Result<FileHandle> file = io_->Open(path_before, OpenMode::kWriteLog);
  if (!file.ok()) return false;
  bool renamed = false;
  try {
    const Result<uint64_t> bytes = io_->Size(*file);
    renamed = bytes.ok() && *bytes == segment_bytes_ && io_->Rename(path_before, path()).ok();
  } catch (const std::bad_alloc&) {
    renamed = false;
  }
  if (!renamed) {
    io_->Close(*file);
    return false;
  }
  file_ = *file;
  written_over_ = true;
  state_ = State::kReady;
  failure_ = Status();
  has_room_.store(true, std::memory_order_relaxed);
  return true;
}

void SegmentPreparer::Discard() {
  MutexLock lock(mutex_);
  if (state_ != State::kReady || !written_over_) return;
  io_->Close(std::exchange(file_, kNoFile));
  state_ = State::kNone;
  const Status removed = io_->Unlink(path());
  static_cast<void>(removed);  // if it fails: whoever makes the next reserve begins with it
}

void SegmentPreparer::Run() {
  pthread_setname_np(pthread_self(), "sutra-zeros");
  MutexLock lock(mutex_);
  while (!stopping_) {
    const bool due = state_ == State::kWanted || (state_ == State::kFailed && clock_->MonotonicNs() >= retry_at_ns_);
    if (due) {
      AttemptLocked();
    } else if (state_ == State::kFailed) {
      clock_->WaitUntil(&wake_, &mutex_, retry_at_ns_);
    } else {
      wake_.Wait(mutex_);
    }
  }
}

}  // namespace sutra
