// A mutex and a condition; the eventfd never leaves the process.
#include "engine/control/admin_thread.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <new>
#include <utility>

#include "shm/base/thread_start.h"
#include "shm/base/time.h"

namespace sutra {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

bool AdminThread::Turn::GoOn(uint64_t done, uint64_t total, bool to_the_end) const {
  owner_.done_.store(done, kRelaxed);
  owner_.total_.store(total, kRelaxed);
  return !leaving() && (to_the_end || !owner_.asker_gone_.load(kRelaxed));
}

bool AdminThread::Turn::leaving() const { return owner_.leaving_.load(kRelaxed); }

bool AdminThread::Turn::WaitUntil(uint64_t until_ns) const {
  const MutexLock lock(owner_.mutex_);
  while (MonotonicNs() < until_ns) {
    if (leaving()) return false;
    static_cast<void>(owner_.changed_.WaitUntil(owner_.mutex_, until_ns));
  }
  return true;
}

AdminThread::AdminThread(Run run) : run_(std::move(run)), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Status AdminThread::Start() {
  if (!event_) return Status::FromErrno(StatusCode::kOutOfMemory, "creating the event of the cache commands", errno);
  return StartThread("the cache commands", [this] { thread_ = std::thread([this] { Loop(); }); });
}

bool AdminThread::Begin(CacheJob job) {
  const MutexLock lock(mutex_);
  if (state_ != State::kIdle || leaving_.load(kRelaxed)) return false;
  job_ = std::move(job);
  state_ = State::kWaiting;
  asker_gone_.store(false, kRelaxed);
  done_.store(0, kRelaxed);
  total_.store(0, kRelaxed);
  changed_.NotifyAll();
  return true;
}

void AdminThread::AskerGone() { asker_gone_.store(true, kRelaxed); }

std::optional<CacheReply> AdminThread::Take() {
  uint64_t count;
  static_cast<void>(!read(event_.get(), &count, sizeof(count)));
  const MutexLock lock(mutex_);
  if (state_ != State::kDone) return std::nullopt;
  state_ = State::kIdle;
  job_ = {};
  return std::exchange(reply_, {});
}

bool AdminThread::busy() const {
  const MutexLock lock(mutex_);
  return state_ != State::kIdle;
}

AdminThread::Progress AdminThread::progress() const { return {done_.load(kRelaxed), total_.load(kRelaxed)}; }

void AdminThread::Shut() {
  const MutexLock lock(mutex_);
  leaving_.store(true, kRelaxed);
  changed_.NotifyAll();
}

void AdminThread::Stop() {
  Shut();
  if (thread_.joinable()) thread_.join();
}

CacheReply AdminThread::RunCaught(const CacheJob& job) {
  Turn turn(this);
  try {
    return run_(job, turn);
  } catch (const std::bad_alloc&) {
    CacheReply reply;
    reply.status = Status(StatusCode::kOutOfMemory, "out of memory");
    return reply;
  }
}

bool AdminThread::RunOne() {
  CacheJob job;
  {
    const MutexLock lock(mutex_);
    if (state_ != State::kWaiting) return false;
    state_ = State::kRunning;
    job = std::move(job_);
  }
  CacheReply reply = RunCaught(job);
  const MutexLock lock(mutex_);
  assert(state_ == State::kRunning);
  reply_ = std::move(reply);
  state_ = State::kDone;
  const uint64_t one = 1;
  static_cast<void>(!write(event_.get(), &one, sizeof(one)));
  return true;
}

// A job that waits when the engine begins to leave is still run, to its first question.
void AdminThread::Loop() {
  pthread_setname_np(pthread_self(), "sutra-admin");
  for (;;) {
    if (RunOne()) continue;
    const MutexLock lock(mutex_);
    while (state_ != State::kWaiting && !leaving_.load(kRelaxed)) changed_.Wait(mutex_);
    if (state_ != State::kWaiting) return;
  }
}

}  // namespace sutra
