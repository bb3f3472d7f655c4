// A lane's engine is gone: who is told, what ends with it, and how the requests that are left go on at the next engine.
//
// The pass, in the order that was checked as a model; the same names are checkpoints:
//   move.evidence   the engine's word or the kernel's lock says that it is gone (CheckAliveLocked, any thread)
//   move.gone       marked under the mutex: no submit enters the lane from here on
//   move.woken      a full fence, and wakes until nobody sleeps on the dead engine's word
//   move.attached   the next engine is there (AttachLane, with backoff)
//   move.settled    under the mutex, once for the rest: what was answered is taken, what is late or cancelled ends
//   move.copied     the texts of all others lie in the new lane's memory, in the same slots
//   move.home       per request, in the order of their sequences: pinned, and its home is the new attachment
//   move.published  its ring entry
//   move.opened     the lane takes submits again
//   move.bumped     whoever waited for the move looks again
//   move.rung       one doorbell
// A death in between starts the pass again: the source of a copy is always the memory of the request's home.
//
// Thread rule: the helper thread; before it is started, the thread that attaches.
// Invariants: a request is published to at most one living engine at a time; one that was answered is never copied;
// what moves keeps slot, sequence and ticket.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"

namespace sutra::client {

// If the lane's engine is gone and nobody was told: wakes everyone who sleeps on it, and ends the requests that end
// with it. RETURNS how it ended (a sutra_status), or 0 if there was nothing to tell.
sutra_status TellDeath(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);

// Whether requests wait in a lane without an engine.
bool HasWaiting(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);

// Opens a lost lane to the engine of `connection`, and moves the requests to it that are left. RETURNS SUTRA_OK, and
// the lane owns the connection, or SUTRA_OUT_OF_MEMORY, and it is closed and nothing has changed. *moved grows by their
// number before any of them can be answered.
sutra_status MoveLane(ClientLane* lane, const LaneConnection& connection, uint64_t now_ns, std::atomic<uint64_t>* moved)
    SUTRA_EXCLUDES(lane->mutex);

// The next engine is none for this lane: whatever is left in it ends with SUTRA_ENGINE_GONE and the reason.
void EndWaiting(ClientLane* lane, sutra_reason reason) SUTRA_EXCLUDES(lane->mutex);

}  // namespace sutra::client
