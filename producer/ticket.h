// Tickets: numbers that name a request in a slot of a lane, and waiting for one.
//
// Thread rule: a ticket is used by one thread at a time; waiting takes no lock.
// Invariants: a ticket is found only while the request that it was given for holds its slot.
#pragma once

#include <stdint.h>

#include "producer/lane_pool.h"

namespace sutra::client {

// RETURNS false if it is not a live ticket of this client. Another thread may release it at any time: what needs the
// slot to stay is done under the lane's mutex, after IsTicketLocked.
bool FindTicket(sutra_client* client, sutra_ticket ticket, ClientLane** lane, uint32_t* slot);
bool IsTicketLocked(const ClientLane* lane, uint32_t slot, sutra_ticket ticket) SUTRA_REQUIRES(lane->mutex);
// RETURNS the status for a ticket that FindTicket did not find.
sutra_status FailTicket(sutra_ticket ticket);

inline constexpr uint64_t kUntilDeadline = UINT64_MAX;
// Waits for a held slot at most timeout_ns (0 = look once) and at most until its deadline. RETURNS the status that it
// ended with, which it explains (sutra_error_text), or SUTRA_NOT_READY.
sutra_status WaitSlot(sutra_client* client, ClientLane* lane, uint32_t slot, uint64_t timeout_ns);
// Keeps the explanation of requests that end with `status` because no answer came; `reason` is that of
// SUTRA_ENGINE_GONE. RETURNS the status.
sutra_status FailUnanswered(const sutra_client* client, sutra_status status, sutra_reason reason);
// Keeps the explanation of a request that ended with `status`.
void ExplainEnd(const sutra_client* client, const ClientLane* lane, uint32_t slot, sutra_status status);

}  // namespace sutra::client
