// Tickets: numbers that name a request in a slot of a lane, and waiting for one.
//
// Thread rule: a ticket is used by one thread at a time; waiting takes no lock.
// Invariants: a ticket of a released request is no longer found, unless 2^46 sequences later in the same slot.
#pragma once

#include <assert.h>
#include <stdint.h>

#include "producer/lane_pool.h"

namespace sutra::client {

// sequence | lane | slot; 0 is never one, because sequences start at 1.
inline constexpr int kTicketSlotBits = 12, kTicketLaneBits = 6;
inline constexpr uint64_t kTicketSequenceMask = (uint64_t{1} << (64 - kTicketSlotBits - kTicketLaneBits)) - 1;
inline sutra_ticket MakeTicket(const ClientLane* lane, uint32_t slot) {
  assert(lane->index < kLaneTableSize && slot < lane->slot_count);
  const uint64_t sequence = lane->slots[slot].sequence.load(std::memory_order_relaxed);  // relaxed: ours
  return (sequence & kTicketSequenceMask) << (kTicketSlotBits + kTicketLaneBits) |
         uint64_t{lane->index} << kTicketSlotBits | slot;
}

// RETURNS false if it is not a live ticket of this client.
bool FindTicket(sutra_client* client, sutra_ticket ticket, ClientLane** lane, uint32_t* slot);
// RETURNS the status for a ticket that FindTicket did not find.
sutra_status FailTicket(sutra_ticket ticket);

// Waits for a live slot until `until_ns` (0 = check once) or its deadline. RETURNS its final status or SUTRA_NOT_READY.
sutra_status WaitSlot(sutra_client* client, ClientLane* lane, uint32_t slot, uint64_t until_ns);

}  // namespace sutra::client
