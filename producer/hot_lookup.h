// Looks for a text in the hot table of a lane's engine, before it is sent.
//
// Thread rule: under the lane's mutex, which the call that would send it has anyway; nothing is waited for.
// Invariants: a hit is counted in the client line and is the only thing that is; a miss costs a hash of the text and
// one line of the table, and changes nothing but what `vector` points to.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"

namespace sutra::client {

struct HotAnswer {
  uint32_t token_count = 0;
  bool truncated = false;
  uint64_t found_ns = 0;  // our clock
};

// RETURNS true with the vector as the request wants it, which is as wide as the model's, in `vector`; it was there at
// found_ns, not expired and not removed, and the engine was alive. False: nobody knows, and `vector` is as it was.
// REQUIRES a lane that is open (UsableLocked).
bool FindHotLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request, float* vector,
                   HotAnswer* answer) SUTRA_REQUIRES(lane->mutex);
// Fills all of *result, but for its ticket.
void FillHotResult(const HotAnswer& answer, uint64_t tag, uint64_t submitted_ns, const float* vector, uint32_t width,
                   sutra_result* result);

}  // namespace sutra::client
