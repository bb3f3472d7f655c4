// The steps of a wake in one call, for tests in which one thread stands for the engine, or for a client.
#pragma once

#include "shm/sleep_wake.h"

namespace sutra::test {

inline void WakeSleepers(const ReplyLane& reply) { WakeFirstSleepers(reply, BumpFutexWord(reply)); }

// After publishing. RETURNS false if the engine hung up.
inline bool RingDoorbell(const EnginePage* page, const ReplyLane& reply, int socket) {
  return !NeedsDoorbell(page, reply) || SendDoorbell(socket);
}

}  // namespace sutra::test
