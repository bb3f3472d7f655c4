// LiveEntries: what the log needs from the entries in memory before it removes its oldest segment; it keeps the log
// independent of the store. cache/recycler implements it.
//
// Thread rule: called on the log's thread.
#pragma once

#include <cstdint>
#include <memory>

#include "cache/wal/wal_group.h"

namespace sutra {

class LiveEntries {
 public:
  // The position of a walk over the entries; a new one is at the beginning.
  using Cursor = uint64_t;

  virtual ~LiveEntries() = default;

  // Fills `group` with records of live entries that segments up to `through` hold, from `cursor` on; from now on
  // segment `into` holds them. A record larger than the group gets a group of its size. True when no more entries
  // follow.
  virtual bool CollectOlder(uint64_t through, uint64_t into, Cursor* cursor, std::unique_ptr<WalGroup>* group) = 0;

  // Brings to memory what a segment up to `through` alone holds: it is removed next, before anything can be appended.
  virtual void ReadOlder(uint64_t through) = 0;

  // Evicts every entry that a segment up to `through` holds, and returns how many there were.
  virtual uint64_t EvictOlder(uint64_t through) = 0;

  // Before segments up to `through` are removed: nothing holds their files open from now on, since the disk gets no
  // room from a file that is open.
  virtual void LetGo(uint64_t through) = 0;

  // Makes every logged entry count as held by segment `number` at the latest, so that it is appended again when that
  // segment is removed. Called after the loss of records that were to hold entries.
  virtual void HoldBy(uint64_t number) = 0;
};

}  // namespace sutra
