// The client's helper thread, "sutra-client": it opens lanes for calls that must not wait for a handshake, and watches
// the sockets of all lanes, so that whoever sleeps learns of an engine's death within milliseconds, and requests go on
// at the next engine.
//
// Rules for the program around it: all signals are blocked in it, so handlers run in the program's own threads; it
// holds no lock while it waits and takes no other than the library's own; a forked child does not have it (calls return
// SUTRA_FORKED there); exec ends it, and its descriptors are close-on-exec. One per client, from sutra_attach to
// sutra_detach.
//
// Thread rule: StartHelper and StopHelper by the thread that attaches or detaches; AskForLane by any.
// Invariants: while the client has no usable lane, or requests wait in one without an engine, an attempt to open one is
// under way or due at open_after_ns; between StartHelper and StopHelper no other thread opens lanes.
#pragma once

#include <stdint.h>

#include "producer/lane_pool.h"

namespace sutra::client {

// Makes what the first lane needs to be watched. RETURNS SUTRA_OK or SUTRA_OUT_OF_MEMORY (no descriptors).
sutra_status OpenHelper(sutra_client* client);
// After the first lane. RETURNS SUTRA_OK or SUTRA_OUT_OF_MEMORY (no thread).
sutra_status StartHelper(sutra_client* client);
// Ends the thread and joins it, unless `forked`; then, or if there is none, only closes its descriptors. Waits at most
// for an attempt that is under way (kReopenTimeoutNs, and only if the engine is stopped).
void StopHelper(sutra_client* client, bool forked);

// Never waits. The helper counts the lanes itself and opens one if there is none, or if `more` are allowed.
void AskForLane(sutra_client* client, bool more);

}  // namespace sutra::client
