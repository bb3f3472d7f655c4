// sutra_cancel_all: ending everything that is under way, from a signal handler too.
//
// A signal handler may take no lock, and the words that others sleep on lie in mappings that only a lock keeps. So the
// call itself only counts: each request carries the number of cancels from before it was submitted, and one that is not
// answered when that number has changed is cancelled, whoever looks (SettleSlot). The helper thread, which the call
// wakes by its eventfd, does the rest: it ends what nobody looks at, tells the engine, and wakes who sleeps.
//
// Thread rule: CancelAll from any thread and from a signal handler; CancelRounds belongs to the helper thread; the rest
// from any thread.
// Invariants: a request that was submitted after the call, by the same thread or behind anything that orders the two,
// is not cancelled by it; a request ends once, by ClientSlot::ended.
#pragma once

#include <stdint.h>

#include "producer/lane_pool.h"

namespace sutra::client {

void CancelAll(sutra_client* client);

// The number that a call's requests carry: taken before the call does anything else.
inline uint32_t CancelEpoch(const sutra_client* client) {
  return client->signals.cancel_epoch.load(std::memory_order_acquire);  // SYNC C6 (acquire): see CancelAll
}
inline bool IsCancelled(const ClientSignals& signals, uint32_t epoch) {
  return signals.cancel_epoch.load(std::memory_order_acquire) != epoch;  // SYNC C6 (acquire): see CancelAll
}
// Keeps the explanation of what sutra_cancel_all ended. RETURNS SUTRA_CANCELLED.
sutra_status FailCancelled();

// The helper thread's part.
class CancelRounds {
 public:
  explicit CancelRounds(sutra_client* client) : client_(client) {}

  // If there was a cancel since the last call: ends what it cancels, and makes the event descriptor readable. Then
  // wakes those who sleep on the lanes.
  void Step();
  // Whether Step is to be called again in a millisecond: a waiter that was between its last look and the kernel missed
  // the wake. Bounded by a waiter's slice, since others than the cancelled ones may sleep on the same words.
  bool due() const { return until_ns_ != 0; }

 private:
  bool WakeSleepers();

  sutra_client* const client_;
  uint32_t seen_ = 0;      // cancel_epoch
  uint64_t until_ns_ = 0;  // 0 = nobody is left to be woken
};

}  // namespace sutra::client
