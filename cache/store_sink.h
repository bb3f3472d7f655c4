// StoreSink: puts what recovery reads into the store, with its remaining lifetime.
//
// Thread rule: one thread, before the shard serves.
// Invariants:
//  - A clock that was set back revives nothing and lengthens no lifetime: time never counts as earlier than the latest
//    time seen, in the log or on the machine's clock.
//  - No entry gets more than kTtlSecondsMax.
#pragma once

#include <cstdint>

#include "cache/store/entry_store.h"
#include "cache/wal/recovery.h"

namespace sutra {

class StoreSink final : public RecoverySink {
 public:
  StoreSink(EntryStore* store, Clock* clock);

  void Insert(const WalRecord& record, uint64_t segment) override;
  void Erase(const WalRecord& record) override;
  uint64_t DropAll() override { return store_->DropAll(); }

  // Shortens the lifetime of entries that were read before a later time was seen. Call when recovery is over.
  void Conclude(uint64_t wall_highest_ns);

 private:
  EntryStore* const store_;
  const uint64_t boot_now_;
  uint64_t wall_now_;
  uint64_t wall_used_lowest_ = UINT64_MAX;
};

}  // namespace sutra
