// Recycler: the log's walk over the store. Before the log removes its oldest segment, the entries that live in it are
// appended again from memory, or evicted. Those that are unread still come to memory first.
//
// Thread rule: called on the log's thread; the store takes its own locks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "cache/entry_loader.h"
#include "cache/store/slot_table.h"
#include "cache/wal/live_entries.h"
#include "cache/wal/wal_log.h"

namespace sutra {

class Recycler final : public LiveEntries {
 public:
  // `segment_bytes`: the size of new segments; an entry that does not fit into one remains in memory only.
  Recycler(SlotTable* store, EntryLoader* loader, Clock* clock, WalShared* shared, uint32_t width,
           uint64_t segment_bytes)
      : store_(store), loader_(loader), clock_(clock), shared_(shared), width_(width), segment_bytes_(segment_bytes) {}

  bool CollectOlder(uint64_t through, uint64_t into, Cursor* cursor, std::unique_ptr<WalGroup>* group) override;
  void ReadOlder(uint64_t through) override;
  uint64_t EvictOlder(uint64_t through) override { return store_->EvictOlder(through, clear_); }
  void LetGo(uint64_t through) override { loader_->LetGo(through); }
  void HoldBy(uint64_t number) override { store_->HoldBy(number); }

  // `clear` logs that a slot is empty: the record of an evicted entry may be in a later segment than the one it counts
  // for, since that is where the log stood when it was accepted. Not needed before others insert.
  void SetClear(std::function<void(uint32_t)> clear) { clear_ = std::move(clear); }

 private:
  SlotTable* const store_;
  EntryLoader* const loader_;
  Clock* const clock_;
  WalShared* const shared_;
  const uint32_t width_;
  const uint64_t segment_bytes_;
  std::function<void(uint32_t)> clear_;
};

}  // namespace sutra
