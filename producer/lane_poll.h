// What an event loop asks of a client: the tickets that are done, and the descriptor that says when to ask.
//
// Thread rule: any thread; ...Locked functions need the lane's mutex.
// Invariants: a ticket is reported once, by sutra_poll or by sutra_wait. After a poll every lane's engine rings for the
// next answer and the timer is set for the earliest deadline, or the descriptor is readable: after one that filled its
// room, and while the caller polls so often that answers are found without a sleep.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/lane_pool.h"
#include "producer/sized_struct.h"

namespace sutra::client {

// Where a poll puts what it reports: the first results of a sink, in place.
struct PollRoom {
  const ResultSink& results;
  size_t count = 0;
  size_t found = 0;
  bool full() const { return found == count; }
};

// Reports tickets of the client that are done and were not reported before, until the room is full.
void PollClient(sutra_client* client, PollRoom* room, uint64_t now_ns);
// The same of one lane. Stops the engine's ringing when it finds something. If `arm`, asks for it again before its
// last look when room is left.
void PollLocked(ClientLane* lane, PollRoom* room, uint64_t now_ns, bool arm) SUTRA_REQUIRES(lane->mutex);
// RETURNS the descriptor for the caller's event loop, the same one at each call; -1 if no descriptor is left.
int EventFdOf(sutra_client* client);

}  // namespace sutra::client
