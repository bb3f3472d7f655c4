// Turns a live entry into the record that replaces its old one.
#include "cache/recycler.h"

#include <algorithm>

#include "shm/base/clock.h"
#include "shm/base/time.h"

namespace sutra {

bool Recycler::CollectOlder(uint64_t through, uint64_t into, Cursor* cursor, std::unique_ptr<WalGroup>* group) {
  const uint64_t now = clock_->BootNs();
  const uint64_t wall = shared_->time.ForExpiry(*clock_);
  const auto append = [&](const EntryView& entry, uint64_t* segment) {
    if (entry.expires_ns <= now) {
      *segment = 0;
      return true;
    }
    const uint64_t remaining = entry.expires_ns - now;
    InsertBody body;
    body.wall_expiry_ns = wall + remaining;
    body.ttl_s = static_cast<uint32_t>(remaining / kNsPerSecond + 1);
    body.age_s = entry.ttl_s - std::min(entry.ttl_s, body.ttl_s);
    body.variant = entry.variant;
    body.text_bytes = static_cast<uint32_t>(entry.text.size());
    body.width = width_;
    body.token_count = entry.value.token_count;
    body.norm = entry.value.norm;
    body.flags = entry.value.truncated ? kInsertTruncated : 0;
    UnplacedRecord record = UnplacedRecord::Insert(body, entry.vector, entry.text);
    record.slot = entry.slot;
    if (record.length > segment_bytes_ - kSegmentDataStart) {
      *segment = 0;  // segments were larger when it was logged: it remains in memory only
      return true;
    }
    if (!(*group)->Fits(record.length)) {
      if (!(*group)->empty()) return false;
      *group = std::make_unique<WalGroup>(record.length);
    }
    (*group)->Append(record);
    *segment = into;
    return true;
  };
  bool done = false;
  for (uint32_t unread = 0; unread != SlotTable::kNoSlot;) {
    done = store_->VisitOlder(through, cursor, append, &unread);
    if (unread != SlotTable::kNoSlot) loader_->LoadOrDrop(unread);
  }
  (*group)->first_accepted_ns = clock_->MonotonicNs();
  return done;
}

void Recycler::ReadOlder(uint64_t through) {
  uint64_t cursor = 0;
  for (uint32_t slot; (slot = store_->NextUnread(&cursor, through)) != SlotTable::kNoSlot;) loader_->LoadOrDrop(slot);
}

}  // namespace sutra
