// One look after another, until the engine stops.
#include "engine/identity_keeper.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cassert>
#include <new>
#include <utility>

#include "shm/base/thread_start.h"

namespace sutra {
namespace {

// Of the calling thread alone; where it is not allowed, the thread works as any other.
void YieldToOthers() {
  constexpr int kProcess = 1, kIdleClass = 3 << 13;  // linux/ioprio.h, which older systems lack
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  static_cast<void>(setpriority(PRIO_PROCESS, thread, 19));
  static_cast<void>(syscall(SYS_ioprio_set, kProcess, thread, kIdleClass));
}

}  // namespace

IdentityKeeper::IdentityKeeper(Options options)
    : ready_(std::move(options.ready)),
      first_ns_(options.first_ns),
      every_ns_(options.every_ns),
      log_(options.identities.log),
      others_(WithEnd(std::move(options.identities))) {}

IdentityKeeper::~IdentityKeeper() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

OtherIdentities::Options IdentityKeeper::WithEnd(OtherIdentities::Options options) {
  options.may_go_on = [this, holds_lock = std::move(options.may_go_on)] { return !Stopping() && holds_lock(); };
  return options;
}

Status IdentityKeeper::Start() {
  assert(!thread_.joinable());
  return StartThread("the data directory", [this] { thread_ = std::thread([this] { Run(); }); });
}

bool IdentityKeeper::Stopping() {
  const MutexLock lock(mutex_);
  return stopping_;
}

// Until then, or the end.
void IdentityKeeper::Wait(uint64_t ns) {
  const uint64_t until_ns = MonotonicNs() + ns;
  MutexLock lock(mutex_);
  while (!stopping_ && changed_.WaitUntil(mutex_, until_ns)) {
  }
}

void IdentityKeeper::Run() {
  pthread_setname_np(pthread_self(), "sutra-data");
  YieldToOthers();
  do {
    Wait(first_ns_);
  } while (!Stopping() && !ready_());
  while (!Stopping()) {
    try {
      others_.Look();
    } catch (const std::bad_alloc&) {  // the next look tries again
      if (log_) log_(LogLevel::kWarn, "out of memory while looking at the caches of other models");
    }
    Wait(every_ns_);
  }
}

}  // namespace sutra
