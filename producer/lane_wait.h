// Waiting for a request: spin a little, sleep on the engine's futex word, and when the engine is gone, on the lane's
// counter of moves, until the request has ended or its next engine is there.
//
// Thread rule: any thread that holds a slot of the lane; nothing is locked while it sleeps.
// Nobody sleeps on the word of an engine that is known to be gone, or on a move that has been made.
#pragma once

#include <stdint.h>

#include "producer/client_lane.h"
#include "shm/sleep_wake.h"

namespace sutra::client {

enum class WaitEnd : uint8_t { kDone, kTime, kGone };

bool WorthSpinning(ClientLane* lane);
void NoteSpin(ClientLane* lane, bool hit);

// Waits until a held slot's request has ended, or `until_ns` has passed. RETURNS kDone or kTime.
WaitEnd WaitForSlot(ClientLane* lane, uint32_t slot, uint64_t until_ns, uint64_t spin_ns);
// After requests of a gone engine have ended or moved: everyone who waits for it looks again.
void BumpMoves(ClientLane* lane);

// Waits until done(), or `until_ns` passed, or the attachment, which the caller pins, is gone and still not done().
template <typename Done>
WaitEnd WaitUntil(ClientLane* lane, Attachment* attachment, uint64_t until_ns, uint64_t spin_ns, const Done& done) {
  if (done()) return WaitEnd::kDone;
  uint64_t now_ns = CycleNs();
  if (spin_ns > 0 && WorthSpinning(lane)) {
    const uint64_t spin_until_ns = now_ns + spin_ns < until_ns ? now_ns + spin_ns : until_ns;
    while (now_ns < spin_until_ns) {
      for (int i = 0; i < 16; ++i) {
        if (done()) {
          NoteSpin(lane, true);
          return WaitEnd::kDone;
        }
        CpuPause();
      }
      now_ns = CycleNs();
    }
    NoteSpin(lane, false);
  }
  SharedWord<uint32_t>& sleepers = attachment->connection.mapping.request.client().sleepers;
  const EngineLine& engine = attachment->connection.mapping.reply.engine();
  uint64_t passed_on = UINT64_MAX;  // the value slept on when this waiter last woke the others
  for (;;) {
    if (IsGone(*attachment)) return done() ? WaitEnd::kDone : WaitEnd::kGone;
    now_ns = MonotonicNs();
    if (now_ns >= until_ns) return done() ? WaitEnd::kDone : WaitEnd::kTime;
    const uint64_t left_ns = until_ns - now_ns;
    sleepers.fetch_add(1, std::memory_order_relaxed);  // relaxed: ordered by the fence
    FullFence();                                       // SYNC L4: the store before the loads of the result
    // SYNC L4 (acquire): a bumped word shows the answers that were published before.
    const uint32_t word = engine.futex_word.load(std::memory_order_acquire);
    const bool ready = done();
    // SYNC L7 (acquire): all answers of a closed lane are visible; meets the engine's release of the state.
    const bool closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;
    bool woken = false;
    // `gone` after the fence: a thread that tells of a death sees this sleeper, or is seen here (WakeUntilNoneSleeps).
    if (!ready && !closed && !IsGone(*attachment)) {
      const uint64_t slice_ns = left_ns < kSleepSliceNs ? left_ns : kSleepSliceNs;
      woken = FutexWait(engine.futex_word.futex_address(), word, now_ns + slice_ns);
    }
    sleepers.fetch_sub(1, std::memory_order_relaxed);  // relaxed: an engine that sees it late makes one needless wake
    // First of all: the engine has woken only some, and they wake the rest.
    if (woken) {
      WakeOtherSleepers(attachment->connection.mapping.request, attachment->connection.mapping.reply, word,
                        passed_on == word);
      passed_on = word;
    }
    if (ready || done()) return WaitEnd::kDone;
    // relaxed: only asks whether anything moved
    if (closed || engine.futex_word.load(std::memory_order_relaxed) == word) {
      CheckAlive(lane, attachment, MonotonicNs());
    }
  }
}

}  // namespace sutra::client
