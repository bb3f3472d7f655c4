// Mutex, MutexLock and CondVar: mutual exclusion, releasing inside a scope, deadlines.
#include "shm/base/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "shm/base/time.h"

namespace sutra {
namespace {

struct Counter {
  Mutex mutex;
  CondVar changed;
  int value SUTRA_GUARDED_BY(mutex) = 0;
};

TEST(Mutex, ThreadsExcludeEachOther) {
  Counter counter;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) {
        const MutexLock lock(counter.mutex);
        ++counter.value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const MutexLock lock(counter.mutex);
  EXPECT_EQ(counter.value, 40'000);
}

// Whether another thread could take it now.
bool IsFree(Mutex& mutex) {
  bool is_free = false;
  std::thread([&] {
    if (mutex.TryLock()) {
      is_free = true;
      mutex.Unlock();
    }
  }).join();
  return is_free;
}

TEST(Mutex, ScopeMayGiveTheMutexUpAndTakeItAgain) {
  Mutex mutex;
  {
    MutexLock lock(mutex);
    EXPECT_FALSE(IsFree(mutex));
    lock.Unlock();
    EXPECT_TRUE(IsFree(mutex));
    lock.Lock();
    EXPECT_FALSE(IsFree(mutex));
  }
  EXPECT_TRUE(IsFree(mutex));
}

TEST(CondVar, WaitEndsAtTheDeadline) {
  Counter counter;
  const MutexLock lock(counter.mutex);
  const uint64_t deadline_ns = MonotonicNs() + 2'000'000;
  while (counter.changed.WaitUntil(counter.mutex, deadline_ns)) {
  }
  EXPECT_GE(MonotonicNs(), deadline_ns);
}

TEST(CondVar, NotifiedWaiterSeesTheChange) {
  Counter counter;
  std::thread other([&] {
    const MutexLock lock(counter.mutex);
    counter.value = 7;
    counter.changed.NotifyAll();
  });
  {
    const MutexLock lock(counter.mutex);
    while (counter.value != 7) counter.changed.Wait(counter.mutex);
  }
  other.join();
}

}  // namespace
}  // namespace sutra
