// Opens the cache shard of an engine that took over, while that engine serves already (thread `sutra-shard`).
//
// A shard that cannot be opened does not end an engine that serves: it goes on without its cache, says so (an error in
// the log, `shard_state` and `storage_failed` in the stats segment) and tries again where that may help: not if the
// directory belongs to another model, or is damaged and --strict-recovery asks for a person.
//
// Thread rule: the main thread. Invariant: the slot shows the shard, or never will, once Finish has returned.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "cache/cache_shard.h"
#include "engine/serving/shard_slot.h"
#include "shm/base/log_line.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"
#include "shm/base/time.h"

namespace sutra {

class ShardOpener {
 public:
  struct Options {
    std::function<Result<std::unique_ptr<CacheShard>>()> open;
    ShardSlot* slot = nullptr;
    LogLine log;
    uint64_t retry_ns_first = kNsPerSecond;  // doubled after each further failure
    uint64_t retry_ns_max = 30 * kNsPerSecond;
  };

  explicit ShardOpener(Options options) : options_(std::move(options)) {}
  ~ShardOpener() { static_cast<void>(Finish(&shard_)); }
  ShardOpener(const ShardOpener&) = delete;
  ShardOpener& operator=(const ShardOpener&) = delete;

  // Starts the thread. kOutOfMemory: there is none.
  Status Start();
  // Waits for the try that is under way, if any; there is no other. The shard is moved to *shard, which must outlive
  // the slot's users; null if it is not open, and then the last error is returned. A second call returns kOk.
  Status Finish(std::unique_ptr<CacheShard>* shard);

 private:
  void Run();
  Result<std::unique_ptr<CacheShard>> Open() const;
  bool Try(uint64_t* retry_ns);  // false: no other try

  const Options options_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  std::unique_ptr<CacheShard> shard_;  // this and the next: the thread's until it is joined
  Status status_;
  std::thread thread_;
};

}  // namespace sutra
