// What an event loop asks of a lane: the tickets that are done, and a descriptor that says when to ask.
// Thread rule: ...Locked functions need the lane's mutex.
// Invariants: a ticket is reported once, by sutra_poll or by sutra_wait; while one is known to be unreported, the
// descriptor is readable.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/client_lane.h"

namespace sutra::client {

// Writes up to `count` tickets that are done and were not reported before. RETURNS how many. Arms the event pipe when
// it found fewer than `count`.
size_t PollLocked(ClientLane* lane, sutra_ticket* tickets, size_t count, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex);
// RETURNS the descriptor for the caller's event loop of an open lane, armed from the first call on; -1 if the lane is
// closed, its engine gone, or no descriptor left.
int EventFdLocked(ClientLane* lane, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex);

}  // namespace sutra::client
