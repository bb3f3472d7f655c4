// Sweeper: takes expired entries out of the table within the hour, whether anybody asks for them or not: their texts
// are nobody's business then, and their memory is others'.
//
// Once a minute it looks at a share of the slots, and does what its owner wants done as often. Thread rule: a thread of
// its own; without one (`threaded` false, for simulation) the caller drives it with RunDue.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "cache/store/slot_table.h"
#include "shm/base/mutex.h"

namespace sutra {

class Clock;

class Sweeper {
 public:
  // All slots in half an hour, so that an hour is kept on a busy machine too.
  static constexpr uint64_t kRounds = 30;

  // Throws std::system_error if there is no thread.
  Sweeper(SlotTable* table, Clock* clock, bool threaded, std::function<void()> each_minute = {});
  ~Sweeper() { Close(); }
  void Close();
  void RunDue();

 private:
  void Run();

  SlotTable* const table_;
  Clock* const clock_;
  const std::function<void()> each_minute_;
  uint64_t due_ns_;  // monotonic
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ SUTRA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace sutra
