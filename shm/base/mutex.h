// Mutex, MutexLock and CondVar whose rules clang's -Wthread-safety checks (tools/test runs it). clang 14 cannot read
// std::mutex, which is therefore banned outside this file, and so is pthread_mutex_t.
//
// Header-only, constant-initialised and free of the C++ runtime, so that the client library may use it too.
// Thread rule: thread-safe; a Mutex is not recursive. SUTRA_GUARDED_BY(mutex_) on a member and SUTRA_REQUIRES(mutex_)
// on a ...Locked function state who must hold what.
#pragma once

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "shm/base/cpu_pause.h"

#if defined(__clang__)
#define SUTRA_THREAD_ATTRIBUTE(attribute) __attribute__((attribute))
#else
#define SUTRA_THREAD_ATTRIBUTE(attribute)
#endif
#define SUTRA_CAPABILITY(name) SUTRA_THREAD_ATTRIBUTE(capability(name))
#define SUTRA_SCOPED_CAPABILITY SUTRA_THREAD_ATTRIBUTE(scoped_lockable)
#define SUTRA_GUARDED_BY(mutex) SUTRA_THREAD_ATTRIBUTE(guarded_by(mutex))
#define SUTRA_PT_GUARDED_BY(mutex) SUTRA_THREAD_ATTRIBUTE(pt_guarded_by(mutex))
#define SUTRA_REQUIRES(...) SUTRA_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define SUTRA_EXCLUDES(...) SUTRA_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define SUTRA_ACQUIRE(...) SUTRA_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define SUTRA_RELEASE(...) SUTRA_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define SUTRA_TRY_ACQUIRE(...) SUTRA_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define SUTRA_RETURN_CAPABILITY(mutex) SUTRA_THREAD_ATTRIBUTE(lock_returned(mutex))
#define SUTRA_ASSERT_CAPABILITY(mutex) SUTRA_THREAD_ATTRIBUTE(assert_capability(mutex))
// For a function whose rule clang cannot express; a comment beside it says which and why.
#define SUTRA_NO_THREAD_SAFETY_ANALYSIS SUTRA_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace sutra {

class SUTRA_CAPABILITY("mutex") Mutex {
 public:
  constexpr Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() SUTRA_ACQUIRE() {
    [[maybe_unused]] const int error = pthread_mutex_lock(&mutex_);
    assert(error == 0);
  }
  bool TryLock() SUTRA_TRY_ACQUIRE(true) { return pthread_mutex_trylock(&mutex_) == 0; }
  // For a thread that must not wait for another to be scheduled: tries for about a microsecond, which is longer than a
  // short critical section takes and much shorter than the milliseconds for which its holder may lose its CPU.
  bool TryLockBriefly() SUTRA_TRY_ACQUIRE(true) {
    for (int i = 0; i < 64; ++i) {
      if (TryLock()) return true;
      CpuPause();
    }
    return false;
  }
  void Unlock() SUTRA_RELEASE() {
    [[maybe_unused]] const int error = pthread_mutex_unlock(&mutex_);
    assert(error == 0);
  }

 private:
  friend class CondVar;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
};

// Holds a Mutex for a scope; can release and reacquire it meanwhile.
class SUTRA_SCOPED_CAPABILITY MutexLock {
 public:
  struct Held {};  // the caller has it already
  explicit MutexLock(Mutex& mutex) SUTRA_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  MutexLock(Mutex& mutex, Held) SUTRA_REQUIRES(mutex) : mutex_(mutex) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() SUTRA_RELEASE() {
    if (held_) mutex_.Unlock();
  }

  void Unlock() SUTRA_RELEASE() {
    assert(held_);
    held_ = false;
    mutex_.Unlock();
  }
  void Lock() SUTRA_ACQUIRE() {
    assert(!held_);
    mutex_.Lock();
    held_ = true;
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

// Deadlines are CLOCK_MONOTONIC. A wait may return spuriously: the caller tests its condition in a loop.
class CondVar {
 public:
  constexpr CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex& mutex) SUTRA_REQUIRES(mutex) {
    [[maybe_unused]] const int error = pthread_cond_wait(&condition_, &mutex.mutex_);
    assert(error == 0);
  }
  // False when the deadline (nanoseconds) passed.
  bool WaitUntil(Mutex& mutex, uint64_t deadline_ns) SUTRA_REQUIRES(mutex) {
    const timespec deadline = {static_cast<time_t>(deadline_ns / 1'000'000'000),
                               static_cast<long>(deadline_ns % 1'000'000'000)};
    const int error = pthread_cond_clockwait(&condition_, &mutex.mutex_, CLOCK_MONOTONIC, &deadline);
    assert(error == 0 || error == ETIMEDOUT);
    return error == 0;
  }
  void NotifyOne() { pthread_cond_signal(&condition_); }
  void NotifyAll() { pthread_cond_broadcast(&condition_); }

 private:
  pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

}  // namespace sutra
