// StoreSink: puts what recovery reads into the store, with its remaining lifetime.
//
// Thread rule: one thread, before the shard serves.
// Invariants:
//  - No entry gets more than its own TTL, nor more than kTtlSecondsMax.
//  - Every entry is judged from the same time, so one strange record shortens no other's lifetime.
#pragma once

#include <cstdint>

#include "cache/store/slot_table.h"
#include "cache/wal/recovery.h"

namespace sutra {

class Clock;

class StoreSink final : public RecoverySink {
 public:
  // `wall_now_ns`: the later of the wall clock and the highest time that the log says was believed. As long as the
  // latter is not known, the result is provisional: see LoggedShard::Recover.
  // `clock_set_ns`: RecoveryPlan::clock_set_ns, if it is known already.
  StoreSink(SlotTable* store, Clock* clock, uint64_t wall_now_ns, uint64_t clock_set_ns = 0);

  void Begin(uint64_t hash_seed) override { store_->BeginReplay(hash_seed); }
  void Insert(const WalRecord& record, uint64_t segment) override {
    InsertIndexed(IndexEntryOf(record, store_->seed()), segment);
  }
  void InsertIndexed(const IndexEntry& entry, uint64_t segment) override;
  void Expect(const IndexEntry& entry) override { store_->Prefetch(entry.slot, entry.digest_low); }
  void Clear(uint32_t slot) override;
  void Erase(const EraseBody& key) override;
  uint64_t DropAll() override { return store_->DropAll(); }
  // Inserts that were written without a clock, so that nothing in them says how old they are.
  uint64_t undated() const { return undated_; }
  // Inserts for which the store is too small: its bounds were lowered.
  uint64_t beyond_bounds() const { return beyond_bounds_; }

 private:
  SlotTable* const store_;
  const uint64_t boot_now_ns_;
  const uint64_t wall_now_ns_;
  const uint64_t clock_set_ns_;
  uint64_t undated_ = 0, beyond_bounds_ = 0;
};

}  // namespace sutra
