// Computes the remaining lifetime of each record read.
#include "cache/store_sink.h"

#include <algorithm>
#include <cassert>
#include <new>

#include "cache/cache_shard.h"
#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {
StoreSink::StoreSink(EntryStore* store, Clock* clock)
    : store_(store), boot_now_(clock->BootNs()), wall_now_(clock->WallNs()) {}

void StoreSink::Insert(const WalRecord& record, uint64_t segment) {
  const InsertBody& body = record.insert;
  const EntryKey key = store_->KeyOf(record.text, record.variant);
  MutexLock lock(store_->MutexOf(key));
  wall_now_ = std::max(wall_now_, record.header.wall_highest_ns);
  const uint64_t left = body.wall_expiry_ns > wall_now_ ? body.wall_expiry_ns - wall_now_ : 0;
  const uint64_t ttl_ns = std::min<uint64_t>(body.ttl_s, kTtlSecondsMax) * kNsPerSecond;
  const uint64_t remaining = std::min(left, ttl_ns);
  if (remaining == 0) {
    store_->EraseLocked(key);  // it still hides older inserts of the same text
    return;
  }
  const CacheValue value{body.norm, body.token_count, (body.flags & kInsertTruncated) != 0};
  const bool stored = store_->InsertLocked(key, record.vector, value, boot_now_ + remaining, boot_now_, segment);
  // A start without the memory for what the log holds fails, instead of forgetting some of it.
  if (!stored && store_->CanHold(record.text.size())) throw std::bad_alloc();
  wall_used_lowest_ = std::min(wall_used_lowest_, wall_now_);
}

void StoreSink::Erase(const WalRecord& record) {
  const EntryKey key = store_->KeyOf(record.text, record.variant);
  MutexLock lock(store_->MutexOf(key));
  store_->EraseLocked(key);
}

void StoreSink::Conclude(uint64_t wall_highest_ns) {
  const uint64_t wall = std::max(wall_now_, wall_highest_ns);
  if (wall_used_lowest_ == UINT64_MAX) return;  // nothing was read
  assert(wall_used_lowest_ <= wall);
  if (wall_used_lowest_ < wall) store_->AgeAll(wall - wall_used_lowest_);
}

}  // namespace sutra
