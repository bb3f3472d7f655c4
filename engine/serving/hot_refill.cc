// A few entries at a time, from the first to the last.
#include "engine/serving/hot_refill.h"

#include <pthread.h>

#include <cassert>
#include <new>
#include <string>

#include "shm/base/checkpoint.h"
#include "shm/base/thread_start.h"

namespace sutra {

HotRefill::~HotRefill() {
  if (!thread_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

Status HotRefill::Start() {
  assert(!thread_.joinable() && options_.model->hot != nullptr);
  return StartThread("the hot table", [this] { thread_ = std::thread([this] { Run(); }); });
}

bool HotRefill::StoppedWithin(uint64_t ns) {
  const uint64_t until_ns = MonotonicNs() + ns;
  MutexLock lock(mutex_);
  while (!stopping_ && changed_.WaitUntil(mutex_, until_ns)) {
  }
  return stopping_;
}

void HotRefill::Run() {
  pthread_setname_np(pthread_self(), "sutra-hot");
  while (options_.model->cache.Get() == nullptr) {
    if (StoppedWithin(options_.look_every_ns)) return;
  }
  Fill();
}

void HotRefill::Fill() {
  const uint64_t started_ns = MonotonicNs();
  uint64_t cursor = 0, filled = 0;
  Look look = Look::kMore;
  while (look == Look::kMore && !StoppedWithin(kPauseNs)) {
    look = FillSome(options_.model->cache.Get(), &cursor, &filled);
    static_cast<void>(SUTRA_CHECKPOINT("hot.refilled"));
  }
  if (!options_.log || filled == 0) return;
  options_.log(LogLevel::kInfo, "the hot table has " + std::to_string(filled) + " texts from the cache after " +
                                    std::to_string((MonotonicNs() - started_ns) / kNsPerMs) + " ms" +
                                    (look == Look::kFull ? ", and is full" : ""));
}

// What cannot be read or has no memory is missed there until somebody asks for it.
HotRefill::Look HotRefill::FillSome(CacheAdmin* shard, uint64_t* cursor, uint64_t* filled) const {
  const uint64_t removals = options_.model->cache.Removals();
  int left = kEntriesPerLook;
  bool full = false;
  const auto publish = [&](const CacheEntry& entry) {
    full = !options_.model->hot->Fill(entry.text, entry.variant, entry.vector, entry.value, removals);
    if (!full) ++*filled;
    return !full && --left > 0;
  };
  try {
    const Result<bool> all = shard->Visit(CacheAdmin::Which::kHot, cursor, publish);
    if (!all.ok()) return Look::kFailed;
    return full ? Look::kFull : all.value() ? Look::kAll : Look::kMore;
  } catch (const std::bad_alloc&) {
    return Look::kFailed;
  }
}

}  // namespace sutra
