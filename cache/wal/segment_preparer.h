// SegmentPreparer: keeps one nameless segment (reserve.tmp) ready, so that the committer never waits for its blocks,
// and so that removals stay possible on a full disk. While the log grows, it is a new file full of zeros, synced; once
// the log goes round, the file of the segment that is no longer needed. It stays on the disk when the engine ends, so
// that the next start finds room for its first segment: the file is replaced there, not used, because the engine that
// made it may have died with a write to it in flight.
//
// Thread rule: called by the committer; with `threaded` the work runs on its own thread, else inside Request and Poll.
// Invariants:
//  - At most one reserve exists, and it has no name that recovery would read.
//  - From Take to the next Request this class leaves path() alone: the caller is about to rename the file there.
//  - The thread sleeps without a time limit unless the last attempt failed. (Not asserted: it is Run's last branch.)
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "cache/disk/disk_io.h"
#include "shm/base/mutex.h"

namespace sutra {

class Clock;

class SegmentPreparer {
 public:
  SegmentPreparer(DiskIo* io, Clock* clock, std::string directory, uint64_t segment_bytes, bool threaded);
  ~SegmentPreparer();

  std::string path() const { return directory_ + "/reserve.tmp"; }

  // Asks for a reserve, if there is none and none is being created.
  void Request();
  // Repeats a failed attempt now instead of when it is due: there may be room again.
  void Retry();
  // Repeats a failed attempt when it is due (without a thread).
  void Poll();
  struct Reserve {
    FileHandle file = kNoFile;  // at path()
    bool written_over = false;  // it holds what it held as a segment; otherwise zeros
  };
  // The reserve, or else a file created on the spot. Fails only where the disk does.
  Result<Reserve> Take();
  // Whether Reuse would take a file, as it seems.
  bool wants_file();
  // Makes the segment at `path`, which this process has written and nobody needs, the reserve, by renaming it; false,
  // and the file is as it was, if there is a reserve or one is being made, or it is not as large as a segment. The
  // caller makes the new name durable before the reserve is written.
  bool Reuse(const std::string& path);
  // Removes a reserve that was a segment: its old name may have stayed on the disk for good.
  void Discard();
  // False when the last attempt to create a reserve has failed, until another succeeds or Retry asks for one.
  bool has_room() const { return has_room_.load(std::memory_order_relaxed); }  // relaxed: a hint, no data behind it
  // Why it has failed.
  Status failure();
  // Called after each failed attempt, on the thread that made it; it must not call back. Empty: nobody is told.
  void SetFailureHook(std::function<void()> hook);

 private:
  enum class State { kNone, kWanted, kReady, kFailed };
  Result<FileHandle> Make(AllocateFill fill);
  Status Fill(FileHandle file, AllocateFill fill);
  void AttemptLocked() SUTRA_REQUIRES(mutex_);  // releases the lock while it works
  void Run();

  DiskIo* const io_;
  Clock* const clock_;
  const std::string directory_;
  const uint64_t segment_bytes_;
  const bool threaded_;
  std::atomic<bool> has_room_{true};

  Mutex mutex_;
  CondVar wake_;
  CondVar changed_;
  State state_ SUTRA_GUARDED_BY(mutex_) = State::kNone;
  bool written_over_ SUTRA_GUARDED_BY(mutex_) = false;  // of file_
  bool working_ SUTRA_GUARDED_BY(mutex_) = false;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  uint64_t retry_at_ns_ SUTRA_GUARDED_BY(mutex_) = 0;
  FileHandle file_ SUTRA_GUARDED_BY(mutex_) = kNoFile;
  Status failure_ SUTRA_GUARDED_BY(mutex_);
  std::function<void()> failure_hook_ SUTRA_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sutra
