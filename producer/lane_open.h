// Opening lanes: the first one in sutra_attach, every other one by the client's helper thread, so that no call of the
// caller waits for an engine's handshake.
//
// Thread rule: one thread at a time: the one that attaches, and from StartHelper on the helper thread.
// Invariants: only that thread adds lanes to the client's table; no mutex is held during a handshake.
#pragma once

#include <stdint.h>

#include "producer/lane_pool.h"

namespace sutra::client {

// Opens the first lane, and keeps what the engine said of itself. RETURNS what sutra_attach returns.
sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns);
// Opens a lane within kReopenTimeoutNs: a lost one in which requests wait, which move; else another lost one, else a
// new one. After it calls that wait look again; a failure sets the time of the next attempt (backoff) and the reason
// that calls without a lane return. If the engine is none for the client, whatever waits in lost lanes ends. While an
// engine does not answer, go_on(context) is called, which may take lanes' mutexes (AttachPatience).
bool OpenLane(sutra_client* client, bool (*go_on)(void* context) = nullptr, void* context = nullptr)
    SUTRA_EXCLUDES(client->attempt_mutex);

// What the lanes look like as of now.
struct LaneCount {
  uint32_t usable = 0;
  size_t free_slots = 0;  // of the usable ones
  uint32_t waiting = 0;   // lost lanes in which requests wait for an engine
  bool stalled = false;   // the engine's heartbeat is old: it would not answer an attach
};
LaneCount CountLanes(sutra_client* client, uint64_t now_ns);
// The same at a glance: lanes that have an engine, as far as is known.
uint32_t OpenLanes(const sutra_client* client);

}  // namespace sutra::client
