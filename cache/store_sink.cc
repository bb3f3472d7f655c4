// Computes the remaining lifetime of each record read.
#include "cache/store_sink.h"

#include <algorithm>
#include <cassert>

#include "cache/cache_shard.h"
#include "cache/wal/believed_time.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {

StoreSink::StoreSink(SlotTable* store, Clock* clock, uint64_t wall_now_ns, uint64_t clock_set_ns)
    : store_(store), boot_now_ns_(clock->BootNs()), wall_now_ns_(wall_now_ns), clock_set_ns_(clock_set_ns) {}

void StoreSink::InsertIndexed(const IndexEntry& entry, uint64_t segment) {
  const uint64_t ttl_ns = std::min<uint64_t>(entry.ttl_s, kTtlSecondsMax) * kNsPerSecond;
  uint64_t expiry_ns = entry.wall_expiry_ns;
  // Inserted later than now: the clock was ahead, and nobody believed it. The record's stamp says what was believed.
  const bool from_the_future = expiry_ns > wall_now_ns_ && expiry_ns - wall_now_ns_ > ttl_ns;
  if (from_the_future) expiry_ns = std::min(entry.wall_highest_ns, wall_now_ns_) + ttl_ns;
  // Inserted without a clock: at some time before the clock was first seen set, and nothing says more.
  if (wall_now_ns_ >= kClockSetNs && expiry_ns < kClockSetNs + ttl_ns) {
    expiry_ns = (clock_set_ns_ != 0 ? std::min(clock_set_ns_, wall_now_ns_) : wall_now_ns_) + ttl_ns;
    ++undated_;
  }
  const uint64_t remaining_ns = expiry_ns > wall_now_ns_ ? expiry_ns - wall_now_ns_ : 0;
  assert(remaining_ns <= ttl_ns);
  const KeyDigest digest{entry.digest_low, entry.digest_high};
  const MutexLock lock(store_->mutex());
  if (remaining_ns == 0) {
    store_->ClearLocked(entry.slot);                   // whoever was there had gone
    store_->EraseDigestLocked(digest, entry.variant);  // it still hides older inserts of the same text
    return;
  }
  SlotTable::Unread unread;
  unread.digest = digest;
  unread.variant = entry.variant;
  unread.text_bytes = entry.text_bytes;
  unread.token_count = entry.token_count;
  unread.truncated = entry.truncated != 0;
  const uint64_t ttl_s = uint64_t{entry.age_s} + std::min<uint64_t>(entry.ttl_s, kTtlSecondsMax);
  unread.lifetime = {boot_now_ns_ + remaining_ns, static_cast<uint32_t>(std::min<uint64_t>(ttl_s, SlotTable::kTtlMax))};
  unread.place = {segment, entry.place};
  if (!store_->PutUnreadLocked(entry.slot, unread)) ++beyond_bounds_;
}

void StoreSink::Clear(uint32_t slot) {
  const MutexLock lock(store_->mutex());
  store_->ClearLocked(slot);
}

void StoreSink::Erase(const EraseBody& key) {
  const MutexLock lock(store_->mutex());
  store_->EraseDigestLocked({key.digest_low, key.digest_high}, key.variant);
}

}  // namespace sutra
