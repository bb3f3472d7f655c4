// One try after another, until one succeeds, none can, or the engine stops.
#include "engine/shard_opener.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <string>
#include <utility>

#include "shm/base/thread_start.h"

namespace sutra {

Status ShardOpener::Start() {
  return StartThread("the shard", [this] { thread_ = std::thread([this] { Run(); }); });
}

Status ShardOpener::Finish(std::unique_ptr<CacheShard>* shard) {
  if (!thread_.joinable()) return {};
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
  *shard = std::move(shard_);
  if (*shard == nullptr) options_.slot->Fail(true);
  assert(options_.slot->Get() == shard->get());
  return status_;
}

void ShardOpener::Run() {
  pthread_setname_np(pthread_self(), "sutra-shard");
  uint64_t retry_ns = options_.retry_ns_first;
  while (Try(&retry_ns)) {
    MutexLock lock(mutex_);
    const uint64_t until_ns = MonotonicNs() + retry_ns;
    while (!stopping_ && changed_.WaitUntil(mutex_, until_ns)) {
    }
    if (stopping_) return;
    retry_ns = std::min(2 * retry_ns, options_.retry_ns_max);
  }
}

Result<std::unique_ptr<CacheShard>> ShardOpener::Open() const {
  try {
    return options_.open();
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory, "out of memory");
  }
}

bool ShardOpener::Try(uint64_t* retry_ns) {
  Result<std::unique_ptr<CacheShard>> opened = Open();
  if (opened.ok()) {
    shard_ = std::move(opened).value();
    options_.slot->Appear(shard_.get());
    status_ = {};
    return false;
  }
  const bool may_help = opened.status().code() != StatusCode::kRefused;
  if (opened.status().message() != status_.message()) {  // the same is logged once, however often it is tried
    options_.log(LogLevel::kError,
                 "the cache cannot be opened, so every text is computed: " + opened.status().message() +
                     (may_help ? "; it is tried again in " + std::to_string(*retry_ns / kNsPerMs) + " ms"
                               : "; start the engine again when that is mended"));
  }
  status_ = opened.status();
  options_.slot->Fail(!may_help);
  return may_help;
}

}  // namespace sutra
