// RunningSync: a sync of the open segment that goes on beside writes. The log's holder begins it, some thread runs it
// without holding the log, and whoever holds the log then ends it: once it has run, or earlier and waiting for it.
//
//   Begin (holder) -> Run (any thread) -> End (holder) -> ...
//
// Thread rule: Begin, End and begun belong to the holder of the log; Run to one thread, once for each Begin. Without
// threads nobody calls Run: End does.
// Invariants (asserted):
//  - At most one sync is begun. The file stays open until End.
#pragma once

#include <cassert>
#include <functional>
#include <utility>

#include "shm/base/mutex.h"
#include "shm/base/status.h"

namespace sutra {

class RunningSync {
 public:
  // `sync` waits for the disk; it must not throw, and must not touch what the holder changes meanwhile.
  RunningSync(bool threaded, std::function<Status()> sync) : threaded_(threaded), sync_(std::move(sync)) {}

  void Begin() {
    assert(!begun_);
    begun_ = true;
    MutexLock lock(mutex_);
    done_ = false;
  }
  bool begun() const { return begun_; }
  // Whether End would return at once.
  bool ran() const {
    MutexLock lock(mutex_);
    return done_;
  }

  void Run() {
    Status result = sync_();
    MutexLock lock(mutex_);
    assert(!done_);
    result_ = std::move(result);
    done_ = true;
    changed_.NotifyAll();
  }

  // Waits for Run, and returns its result. Needs no memory.
  Status End() {
    assert(begun_);
    if (!threaded_) Run();
    begun_ = false;
    MutexLock lock(mutex_);
    while (!done_) changed_.Wait(mutex_);
    return std::move(result_);
  }

 private:
  const bool threaded_;
  const std::function<Status()> sync_;
  bool begun_ = false;
  mutable Mutex mutex_;
  CondVar changed_;
  bool done_ SUTRA_GUARDED_BY(mutex_) = true;
  Status result_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra
