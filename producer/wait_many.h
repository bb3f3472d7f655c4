// Waiting for several tickets: for one of them, or for all.
//
// Thread rule: any thread; waits with tickets in common may run at once, and nothing is locked while one sleeps.
// Invariants: a thread that sleeps on the words of several lanes counts among the sleepers of each; a wake that reaches
// it is passed on (shm/sleep_wake.h).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/lane_pool.h"
#include "producer/sized_struct.h"

namespace sutra::client {

// SUTRA_OK, or SUTRA_BAD_ARGUMENT and its explanation if one of the tickets is stale.
sutra_status CheckTickets(sutra_client* client, const sutra_ticket* tickets, size_t count);

// Waits at most timeout_ns (0 = look once). RETURNS SUTRA_OK and the index of the first ticket that is done, of which
// the caller knows from here on; or SUTRA_NOT_READY. REQUIRES CheckTickets, and at least one ticket.
sutra_status WaitAny(sutra_client* client, const sutra_ticket* tickets, size_t count, uint64_t timeout_ns,
                     size_t* index);
// Waits for all of them and writes every result. RETURNS SUTRA_OK if each ended so; SUTRA_NOT_READY if one is not done
// after timeout_ns; else the status of the first that failed, which is the one explained. REQUIRES CheckTickets.
sutra_status WaitAll(sutra_client* client, const sutra_ticket* tickets, size_t count, uint64_t timeout_ns,
                     const ResultSink& results);

}  // namespace sutra::client
