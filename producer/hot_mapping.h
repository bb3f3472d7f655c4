// The client's side of a hot table's memory: mapped once per engine, read-only, and shared by the client's lanes. A
// table about which anything is odd is no table: texts are sent to the engine then, and no call fails. Libc only.
//
// Thread rule: any thread; one may be held by whoever has a reference to it. Invariants: memory is mapped only when
// seals forbid its truncation and any writing but the engine's own, its size is the one that both sides compute, and
// its header agrees with the welcome; no mapping exists in a forked child.
#pragma once

#include <stdint.h>

#include <atomic>

#include "shm/handshake_messages.h"
#include "shm/hot_table.h"

namespace sutra::client {

struct HotMapping {
  HotTableView view;
  uint64_t engine_generation = 0;
  std::atomic<uint32_t> references = 1;
};

// RETURNS the table of a welcome with one reference, or nullptr. The caller keeps the descriptor.
HotMapping* MapHotTable(const WelcomeMessage& welcome, int fd);
void HoldHotTable(HotMapping* mapping);
// Unmaps it with the last reference. `forked`: there is nothing to unmap. `mapping` may be nullptr.
void DropHotTable(HotMapping* mapping, bool forked);

}  // namespace sutra::client
