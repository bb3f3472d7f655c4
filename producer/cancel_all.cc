#include "producer/cancel_all.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "producer/lane_wait.h"
#include "producer/slot_end.h"

namespace sutra::client {
namespace {

constexpr int kYields = 16;  // between the first wakes: most waiters are on their way to the kernel

// All of an older number than `epoch`. The engine is asked to drop them: it may not have begun.
void EndCancelled(ClientLane* lane, [[maybe_unused]] uint32_t epoch) {
  {
    const MutexLock lock(lane->mutex);
    for (uint32_t i = 0; i < lane->slot_count; ++i) {
      const ClientSlot& slot = lane->slots[i];
      if (slot.phase != SlotPhase::kTicket && slot.phase != SlotPhase::kCall) continue;
      const sutra_status status = SettleSlot(lane, i, 0);
      assert(status != SUTRA_NOT_READY || static_cast<int32_t>(slot.cancel_epoch - epoch) >= 0);
      if (status == SUTRA_CANCELLED) CancelLocked(lane, i);
    }
  }
  BumpMoves(lane);  // for those whose engine is gone
}

// RETURNS whether anybody sleeps on the word of the lane's engine.
bool WakeLane(ClientLane* lane) {
  Attachment* const attachment = Pin(lane);
  if (attachment == nullptr) return false;
  const LaneMapping& mapping = attachment->connection.mapping;
  // relaxed: ordered by the caller's fence
  const bool any = mapping.request.client().sleepers.load(std::memory_order_relaxed) != 0;
  if (any) FutexWakeAll(mapping.reply.engine().futex_word.futex_address());
  Unpin(lane, attachment);
  return any;
}

}  // namespace

// Nothing here but atomic words of this process and one system call that is no cancellation point: not even the
// thread's own state, whose first use may allocate it.
void CancelAll(sutra_client* client) {
  const int error = errno;
  // SYNC C6 (release): what the caller did before is not cancelled by an earlier number; meets CancelEpoch,
  // IsCancelled.
  client->signals.cancel_epoch.fetch_add(1, std::memory_order_acq_rel);
  const uint64_t one = 1;
  (void)!syscall(SYS_write, client->signals.wake_fd, &one, sizeof(one));
  errno = error;
}

sutra_status FailCancelled() {
  return Fail(SUTRA_CANCELLED,
              "sutra_cancel_all, or a sutra_cancel without an engine, ended the request before it was answered");
}

void CancelRounds::Step() {
  const uint32_t epoch = CancelEpoch(client_);
  if (epoch != seen_) {
    seen_ = epoch;
    ForEachLane(client_, [&](ClientLane* lane) { EndCancelled(lane, epoch); });
    LanesChanged(&client_->signals, true);
    until_ns_ = MonotonicNs() + kSleepSliceNs;
    for (int i = 0; i < kYields && WakeSleepers(); ++i) sched_yield();
  }
  if (until_ns_ == 0) return;
  if (!WakeSleepers() || MonotonicNs() >= until_ns_) until_ns_ = 0;
}

bool CancelRounds::WakeSleepers() {
  bool any = false;
  FullFence();  // what was ended before the loads of sleepers; meets the fence of SYNC L4 in a waiter
  ForEachLane(client_, [&](ClientLane* lane) { any = WakeLane(lane) || any; });
  return any;
}

}  // namespace sutra::client
