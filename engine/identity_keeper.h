// Looks after the caches of other models in the data directory, while the engine serves (thread `sutra-data`): from a
// second after its start on, once the shard is open, and then once a minute, since entries expire and the served log
// grows.
//
// The thread takes its turn behind everything else, for CPU and disk (nice 19, idle I/O class): nobody waits for it.
// Thread rule: Start and the end come from the main thread, figures from any.
// Invariants:
//  - Nothing of it touches the data directory once the destructor has returned, which waits for one removal of a file
//    or one reading of a segment at most.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "cache/other_identities.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"
#include "shm/base/time.h"

namespace sutra {

class IdentityKeeper {
 public:
  struct Options {
    OtherIdentities::Options identities;  // `may_go_on` speaks of the lock only: the end of the keeper is added to it
    std::function<bool()> ready;          // the shard is open
    uint64_t first_ns = kNsPerSecond;     // from Start to the first look, and between questions whether it is ready
    uint64_t every_ns = 60 * kNsPerSecond;
  };

  explicit IdentityKeeper(Options options);
  ~IdentityKeeper();  // stops
  IdentityKeeper(const IdentityKeeper&) = delete;
  IdentityKeeper& operator=(const IdentityKeeper&) = delete;

  // Starts the thread. kOutOfMemory: there is none.
  Status Start();
  OtherIdentities::Figures figures() const { return others_.figures(); }

 private:
  OtherIdentities::Options WithEnd(OtherIdentities::Options options);
  void Run();
  bool Stopping();

  void Wait(uint64_t ns);

  const std::function<bool()> ready_;
  const uint64_t first_ns_, every_ns_;
  const LogLine log_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  OtherIdentities others_;
  std::thread thread_;
};

}  // namespace sutra
