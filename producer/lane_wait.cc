#include "producer/lane_wait.h"

namespace sutra::client {
namespace {

constexpr uint32_t kSpinMissesMax = 3;  // in a row, before waits stop spinning
constexpr uint32_t kSpinSkipMax = 32;   // waits between two tries to spin again

}  // namespace

// Spinning shorter than the typical wait is worse than not spinning: both ends burn the budget and sleep anyway. So a
// lane whose waits keep outlasting the budget spins only now and then, to notice when the engine has become fast.
bool WorthSpinning(ClientLane* lane) {
  // relaxed: a heuristic; lost updates do not matter
  const uint32_t skip = lane->spin_skip.load(std::memory_order_relaxed);
  if (skip == 0) return true;
  lane->spin_skip.store(skip - 1, std::memory_order_relaxed);
  return false;
}

void NoteSpin(ClientLane* lane, bool hit) {
  if (hit) {
    if (lane->spin_misses.load(std::memory_order_relaxed) != 0) lane->spin_misses.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t misses = lane->spin_misses.load(std::memory_order_relaxed) + 1;
  lane->spin_misses.store(misses, std::memory_order_relaxed);
  if (misses < kSpinMissesMax) return;
  const uint32_t exponent = misses - kSpinMissesMax;
  lane->spin_skip.store(exponent < 5 ? 2u << exponent : kSpinSkipMax, std::memory_order_relaxed);
}

// After a death the request is answered in its old home, ends, or gets a new one: a pass of the helper thread decides,
// and bumps `moves` also when it changed nothing for this waiter. Waiting for a change of the home alone would sleep
// for ever on an answer that the pass found in the old one.
WaitEnd WaitForSlot(ClientLane* lane, uint32_t slot_index, uint64_t until_ns, uint64_t spin_ns) {
  const ClientSlot& slot = lane->slots[slot_index];
  for (;;) {
    // SYNC C4 (acquire): before the looks at home and end: what a pass changed before its bump is seen by them, and a
    // bump after this load ends the wait below. Meets BumpMoves.
    const uint32_t moves = lane->moves.load(std::memory_order_acquire);
    Attachment* const home = HomeOf(lane, slot_index);
    const ReplyLane& reply = home->connection.mapping.reply;
    const WaitEnd end = WaitUntil(lane, home, until_ns, spin_ns, [&] {
      return ResultWordSequence(LoadResultWord(reply, slot_index)) == slot.sequence ||
             slot.ended.load(std::memory_order_relaxed) != 0;  // relaxed: ends the wait; SettleSlot reads it again
    });
    if (end != WaitEnd::kGone) return end;
    // relaxed: WaitUntil has seen that it is set
    const bool for_good = (home->gone.load(std::memory_order_relaxed) & kGoneForGood) != 0;
    if (slot.fail_fast || for_good) return WaitEnd::kDone;  // SettleSlot ends it
    if (HomeOf(lane, slot_index) != home) continue;
    if (MonotonicNs() >= until_ns) return WaitEnd::kTime;
    FutexWait(lane->moves.futex_address(), moves, until_ns);
  }
}

void BumpMoves(ClientLane* lane) {
  // SYNC C4 (release): homes and ends that the pass stored; meets WaitForSlot.
  lane->moves.fetch_add(1, std::memory_order_release);
  FutexWakeAll(lane->moves.futex_address());
}

}  // namespace sutra::client
