// Inserts that wait, and the moment from which they need not.
#include "engine/serving/shard_slot.h"

#include <cassert>
#include <new>
#include <utility>

#include "shm/base/clock.h"
#include "shm/base/numbers.h"
#include "shm/base/time.h"

namespace sutra {

void ShardSlot::Expect(Clock* clock) {
  assert(Get() == nullptr);
  clock_ = clock;
  state_.store(kShardOpening, std::memory_order_relaxed);  // relaxed: for display
  const MutexLock lock(mutex_);
  accepts_ = true;
}

uint64_t ShardSlot::BytesOf(const Waiting& insert) {
  return sizeof(Waiting) + insert.text.size() + insert.vector.size() * sizeof(float);
}

void ShardSlot::Insert(std::string_view text, uint32_t variant, std::span<const float> vector, const CacheValue& value,
                       uint64_t ttl_s, uint64_t removals_seen) {
  CacheShard* shard = Get();
  if (shard == nullptr && clock_ == nullptr) return;  // none is expected
  if (shard == nullptr) {
    Waiting insert{std::string(text), variant,         {vector.begin(), vector.end()}, value, ttl_s,
                   removals_seen,     clock_->BootNs()};
    const uint64_t bytes = BytesOf(insert);
    const MutexLock lock(mutex_);
    shard = Get();  // it may have appeared meanwhile
    if (shard == nullptr) {
      if (!accepts_ || bytes > kWaitingBytesMax - waiting_bytes_) {
        ++counts_.dropped;
        return;
      }
      waiting_.push_back(std::move(insert));
      waiting_bytes_ += bytes;
      ++counts_.waiting;
      return;
    }
  }
  shard->Insert(text, variant, vector, value, ttl_s, removals_seen);
}

// An entry lives no longer for having waited: seconds are rounded up.
bool ShardSlot::Pour(const Waiting& insert, CacheShard* shard) const {
  const uint64_t waited_s = DivideRoundUp(clock_->BootNs() - insert.since_boot_ns, kNsPerSecond);
  if (waited_s >= insert.ttl_s) return true;  // expired
  try {
    shard->Insert(insert.text, insert.variant, insert.vector, insert.value, insert.ttl_s - waited_s,
                  insert.removals_seen);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void ShardSlot::Appear(CacheShard* shard) {
  assert(Get() == nullptr && clock_ != nullptr);
  std::vector<Waiting> some;
  uint64_t poured_bytes = 0, poured = 0, dropped = 0;
  for (;;) {
    {
      const MutexLock lock(mutex_);
      assert(waiting_bytes_ >= poured_bytes && counts_.waiting >= poured);
      waiting_bytes_ -= poured_bytes;
      counts_.waiting -= poured;
      counts_.dropped += dropped;
      if (waiting_.empty()) {
        // SYNC E5 (release): everything that waited is in it; pairs with SYNC E5 (acquire) in Get. Under the mutex:
        // an insert that found no shard before has waited, and was poured.
        shard_.store(shard, std::memory_order_release);
        state_.store(kShardOpen, std::memory_order_relaxed);  // relaxed: for display
        return;
      }
      some.swap(waiting_);
    }
    poured_bytes = dropped = 0;
    poured = some.size();
    for (const Waiting& insert : some) {
      poured_bytes += BytesOf(insert);
      if (!Pour(insert, shard)) ++dropped;
    }
    some.clear();
  }
}

void ShardSlot::Fail(bool finally) {
  state_.store(kShardFailed, std::memory_order_relaxed);  // relaxed: for display
  if (!finally) return;
  std::vector<Waiting> dropped;
  const MutexLock lock(mutex_);
  accepts_ = false;
  dropped.swap(waiting_);
  counts_.dropped += counts_.waiting;
  counts_.waiting = waiting_bytes_ = 0;
}

ShardSlot::Counts ShardSlot::GetCounts() const {
  const MutexLock lock(mutex_);
  return counts_;
}

}  // namespace sutra
