// Runs the cache commands of control sessions, one at a time, beside the loop: they wait for the disk. The loop hands a
// job over and goes on; a descriptor tells it that the reply is there.
//
//   idle -> waiting (Begin) -> running (the thread) -> done (the thread) -> idle (Take)
//
// Thread rule: Begin, AskerGone, Take and busy: the loop thread. Start and Stop: the thread that owns it. Shut and
// progress: any. Turn belongs to the command that runs.
// Invariants: one job at a time; nothing runs any more once Stop has returned; the reply of a job stays until it is
// taken, and goes with this object otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "engine/control/control_frame.h"
#include "engine/lanes/peer.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"
#include "shm/base/unique_fd.h"

namespace sutra {

struct CacheJob {
  CacheCall call;
  std::string payload;
  Peer peer;
};

struct CacheReply {
  Status status;
  uint32_t retry_after_ms = 0;  // of `overloaded`
  CacheAnswerBody body = {};
  UniqueFd payload;
};

class AdminThread {
 public:
  // What a command that runs is told, and tells.
  class Turn {
   public:
    explicit Turn(AdminThread* owner) : owner_(*owner) {}
    // False: the command ends as soon as it can, since the engine leaves, or, unless `to_the_end`, its asker is gone.
    bool GoOn(uint64_t done, uint64_t total, bool to_the_end = false) const;
    bool leaving() const;
    // Until `until_ns` (CLOCK_MONOTONIC); false if the engine leaves before.
    bool WaitUntil(uint64_t until_ns) const;

   private:
    AdminThread& owner_;
  };
  using Run = std::function<CacheReply(const CacheJob&, Turn&)>;

  explicit AdminThread(Run run);
  ~AdminThread() { Stop(); }
  AdminThread(const AdminThread&) = delete;
  AdminThread& operator=(const AdminThread&) = delete;

  // Starts the thread. kOutOfMemory: there is none, or no descriptor.
  Status Start();
  // Readable when Take has a reply.
  int fd() const { return event_.get(); }

  // False, and nothing happened, if a job is under way or the engine leaves.
  bool Begin(CacheJob job);
  // Nobody waits for the reply any more.
  void AskerGone();
  std::optional<CacheReply> Take();
  bool busy() const;
  struct Progress {
    uint64_t done = 0;
    uint64_t total = 0;
  };
  Progress progress() const;

  // No job begins from here on, and the one under way ends as soon as it can. Does not wait.
  void Shut();
  // The same, and waits for it.
  void Stop();
  // What the thread does with a job that waits; false if none does. For tests without a thread.
  bool RunOne();

 private:
  enum class State : uint8_t { kIdle, kWaiting, kRunning, kDone };
  void Loop();
  CacheReply RunCaught(const CacheJob& job);

  const Run run_;
  const UniqueFd event_;
  // relaxed, both: what is seen late is seen at the next question
  std::atomic<bool> asker_gone_{false}, leaving_{false};
  std::atomic<uint64_t> done_{0}, total_{0};  // relaxed: for display
  mutable Mutex mutex_;
  CondVar changed_;
  State state_ SUTRA_GUARDED_BY(mutex_) = State::kIdle;
  CacheJob job_ SUTRA_GUARDED_BY(mutex_);
  CacheReply reply_ SUTRA_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace sutra
