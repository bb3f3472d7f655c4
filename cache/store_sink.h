// StoreSink: puts what recovery reads into the store, with its remaining lifetime.
//
// Thread rule: one thread, before the shard serves.
// Invariants:
//  - No entry gets more than its own TTL, nor more than kTtlSecondsMax.
//  - Every entry is judged from the same time, so one strange record shortens no other's lifetime.
#pragma once

#include <cstdint>

#include "cache/store/entry_store.h"
#include "cache/wal/recovery.h"

namespace sutra {

class StoreSink final : public RecoverySink {
 public:
  // `wall_now_ns`: the later of the wall clock and the highest time that the log says was believed. As long as the
  // latter is not known, the result is provisional: see LoggedShard::OpenLog.
  StoreSink(EntryStore* store, Clock* clock, uint64_t wall_now_ns);

  void Insert(const WalRecord& record, uint64_t segment) override;
  void Erase(const WalRecord& record) override;
  uint64_t DropAll() override { return store_->DropAll(); }

 private:
  EntryStore* const store_;
  const uint64_t boot_now_ns_;
  const uint64_t wall_now_ns_;
};

}  // namespace sutra
