#include "producer/lane_death.h"

#include <assert.h>
#include <poll.h>
#include <sched.h>

#include "producer/no_cancel.h"
#include "shm/peer_liveness.h"

namespace sutra::client {

bool CheckAlive(ClientLane* lane, uint64_t now_ns) {
  if (IsGone(lane)) return false;
  lane->alive_checked_ns.store(now_ns, std::memory_order_relaxed);  // relaxed: only paces the checks
  const EngineLine& engine = lane->connection.mapping.reply.engine();
  // SYNC L7 (acquire): close_reason and all answers; meets the engine's release of the state.
  bool closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;
  if (!closed && LockHolderAlive(lane->connection.reply_fd)) return true;
  // Once more: between the two looks it may have closed the lane in order and left, which is not a crash.
  if (!closed) closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;  // SYNC L7 (acquire)
  uint32_t reason = SUTRA_ENGINE_GONE;
  if (closed) {
    const uint32_t said = engine.close_reason.load(std::memory_order_relaxed);  // relaxed: ordered by the state
    if (said == SUTRA_SHUTTING_DOWN || said == SUTRA_PROTOCOL_VIOLATION) reason = said;
  }
  // SYNC C1 (release): a thread that sees `gone` sees the answers that preceded it; meets IsGone.
  lane->gone.store(reason, std::memory_order_release);
  return false;
}

bool HungUp(const ClientLane* lane) {
  const NoCancel no_cancel;
  pollfd item = {lane->connection.socket, 0, 0};  // hang-up and error are reported unasked
  return poll(&item, 1, 0) > 0;
}

bool Pin(ClientLane* lane) {
  const MutexLock lock(lane->mutex);
  if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) return false;  // relaxed: under the mutex
  ++lane->ring_pins;
  return true;
}

void Unpin(ClientLane* lane) {
  const MutexLock lock(lane->mutex);
  assert(lane->ring_pins > 0);
  --lane->ring_pins;
  if (IsGone(lane)) RetireLocked(lane);
}

// A waiter that was between its last look and the kernel misses a wake, and a dead engine makes no other: so wakes go
// on until the last one has left, which finds the lane gone before it sleeps again. Bounded, since the engine made the
// memory and may still write to it: then the waiters leave at the end of their slices.
void TellDeath(ClientLane* lane) {
  assert(IsGone(lane));
  {
    const MutexLock lock(lane->mutex);
    if (lane->death_told) return;
    lane->death_told = true;
    // Its end is of no more interest to an event loop, and would keep the descriptor readable for ever.
    if (lane->pipe_watched) ForgetPipe(lane->signals, lane->connection.event_fd);
    lane->pipe_watched = false;
  }
  const SharedWord<uint32_t>& sleepers = lane->connection.mapping.request.client().sleepers;
  const SharedWord<uint32_t>& word = lane->connection.mapping.reply.engine().futex_word;
  const uint64_t until_ns = MonotonicNs() + kSleepSliceNs;
  FullFence();  // `gone` before the loads of sleepers; meets the fence of SYNC L4 in WaitUntil
  // relaxed: ordered by the fence
  for (int round = 0; sleepers.load(std::memory_order_relaxed) != 0 && MonotonicNs() < until_ns; ++round) {
    FutexWakeAll(word.futex_address());  // allowed on a read-only mapping
    if (round < 16) {
      sched_yield();
    } else {
      poll(nullptr, 0, 1);
    }
  }
}

}  // namespace sutra::client
