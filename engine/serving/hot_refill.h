// Fills the hot table after a start with what the shard knows to be hot, so that clients find it before anybody has
// asked this engine (thread `sutra-hot`). It waits for the shard, reads what is still to be read, and ends when the
// table is full, everything was seen, or the engine stops. It leaves the CPU to others by pauses: a low priority would
// let it lose its CPU with a lock of the shard.
//
// Thread rule: one thread starts and stops it. Invariant: it evicts nothing, and publishes nothing that was removed
// since it looked: it looks at few entries at a time, and asks before each look how many removals there were.
#pragma once

#include <cstdint>
#include <thread>

#include "engine/serving/served_model.h"
#include "shm/base/log_line.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"
#include "shm/base/time.h"

namespace sutra {

class HotRefill {
 public:
  struct Options {
    ServedModel* model = nullptr;  // with a hot table
    LogLine log;
    uint64_t look_every_ns = 20 * kNsPerMs;  // whether the shard is open
  };

  explicit HotRefill(Options options) : options_(std::move(options)) {}
  ~HotRefill();  // stops
  HotRefill(const HotRefill&) = delete;
  HotRefill& operator=(const HotRefill&) = delete;

  // Starts the thread. kOutOfMemory: there is none.
  Status Start();

 private:
  static constexpr int kEntriesPerLook = 64;  // tenths of a millisecond, if they are in memory
  static constexpr uint64_t kPauseNs = kNsPerMs;
  enum class Look : uint8_t { kMore, kAll, kFull, kFailed };

  void Run();
  bool StoppedWithin(uint64_t ns);
  void Fill();
  Look FillSome(CacheAdmin* shard, uint64_t* cursor, uint64_t* filled) const;

  const Options options_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sutra
