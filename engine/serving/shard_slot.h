// Where the cache shard of a model appears. A normal start opens the shard before it serves, and it is here from the
// beginning. An engine that takes over from another serves from its model at once and opens the shard behind
// (shard_opener.h): until then a lookup finds nothing, and inserts wait here, in bounded memory.
//
// Thread rule: Get, Insert and the counts: any thread. Expect comes before any other thread uses the slot; Appear and
// Fail come from one thread, the one that opens.
// Invariants:
//  - Whoever sees the shard sees in it every insert that was accepted before: what waits is poured in first.
//  - What waits takes at most kWaitingBytesMax; what does not fit is dropped and counted.
//  - A shard that has appeared stays until the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/cache_shard.h"
#include "shm/base/mutex.h"
#include "shm/stats/labels.h"

namespace sutra {

class Clock;

class ShardSlot {
 public:
  // About 20,000 texts of 200 bytes with 768 floats: seconds of a busy model, longer than opening a shard takes.
  static constexpr uint64_t kWaitingBytesMax = 64ull << 20;

  // `shard`: null if there is none, and there will be none unless Expect says otherwise.
  explicit ShardSlot(CacheShard* shard) : shard_(shard), state_(shard == nullptr ? kShardNone : kShardOpen) {}

  // One will appear: inserts wait for it. `clock` tells how long.
  void Expect(Clock* clock);

  // Null: nothing is found and nothing is kept (yet).
  // SYNC E5 (acquire): the shard is whole, with what waited for it; pairs with SYNC E5 (release) in Appear.
  CacheShard* Get() const { return shard_.load(std::memory_order_acquire); }

  // As CacheShard::Insert, or the insert waits. REQUIRES: ttl_s > 0. Throws std::bad_alloc, and has then changed
  // nothing.
  void Insert(std::string_view text, uint32_t variant, std::span<const float> vector, const CacheValue& value,
              uint64_t ttl_s, uint64_t removals_seen = CacheShard::kRemovalsAllSeen);
  // As CacheShard::Removals; 0 before there is a shard, since nothing can be removed then.
  uint64_t Removals() const {
    const CacheShard* const shard = Get();
    return shard != nullptr ? shard->Removals() : 0;
  }

  // Pours in what waits, then shows the shard, which must outlive the slot's users.
  void Appear(CacheShard* shard);
  // It could not be opened. `finally`: it will not be tried again, so what waits is dropped.
  void Fail(bool finally);

  ShardState state() const { return state_.load(std::memory_order_relaxed); }  // relaxed: for display
  struct Counts {
    uint64_t waiting = 0;  // inserts
    uint64_t dropped = 0;
  };
  Counts GetCounts() const;

 private:
  struct Waiting {
    std::string text;
    uint32_t variant;
    std::vector<float> vector;
    CacheValue value;
    uint64_t ttl_s;
    uint64_t removals_seen;
    uint64_t since_boot_ns;
  };
  static uint64_t BytesOf(const Waiting& insert);
  bool Pour(const Waiting& insert, CacheShard* shard) const;

  std::atomic<CacheShard*> shard_;
  std::atomic<ShardState> state_;
  Clock* clock_ = nullptr;

  mutable Mutex mutex_;
  bool accepts_ SUTRA_GUARDED_BY(mutex_) = false;
  std::vector<Waiting> waiting_ SUTRA_GUARDED_BY(mutex_);
  uint64_t waiting_bytes_ SUTRA_GUARDED_BY(mutex_) = 0;  // of what is being poured, too
  Counts counts_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra
