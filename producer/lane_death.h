// The end of a lane's engine: asking the kernel, and telling everyone who sleeps on the lane.
//
// Thread rule: any thread that holds a slot of the lane or a pin on it; TellDeath by the helper thread.
// Invariants: only the kernel's lock, or the engine's own word, says that an engine is gone, never a closed socket or
// an old heartbeat; `gone` is set once; whoever sees it sees the answers that preceded it.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"

namespace sutra::client {

// True if the engine's end of the socket is closed: a hint to call CheckAlive now.
bool HungUp(const ClientLane* lane);

// Keeps an open lane's mapping and descriptors until Unpin. RETURNS false if the lane is empty.
bool Pin(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);
void Unpin(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);
// Of a pinned lane whose engine is gone: wakes everyone who sleeps on it, once.
void TellDeath(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);

}  // namespace sutra::client
