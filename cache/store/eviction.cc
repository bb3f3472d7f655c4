// Two intrusive lists over the slots, and the arithmetic of rounds.
#include "cache/store/eviction.h"

#include <algorithm>
#include <cassert>

namespace sutra {
namespace {

constexpr uint64_t kMeanOf = 256;  // about as many entries decide what is dear
constexpr uint32_t kRoundsCheap = 1, kRoundsOrdinary = 2, kRoundsDear = 3;
constexpr auto kRelaxed = std::memory_order_relaxed;  // states and means stand alone

}  // namespace

void EvictionQueues::Insert(uint32_t slot, uint64_t hash, const Cost& cost) {
  assert(slot < kNoSlot && StateOf(slot) == 0);
  TakeMainHits();
  if (ghosts_.Take(hash)) {
    MoveShare(kShareStep);
    const bool dear = RoundsFor(cost.tokens) == kRoundsDear;
    PushToMain(slot, cost, dear ? 1 : 0);
  } else {
    SetState(slot, kQueued);
    Push(&small_, slot, cost.bytes);
  }
}

void EvictionQueues::Hit(uint32_t slot, uint32_t tokens) {
  std::atomic<uint8_t>& state = NodeOf(slot).state;
  uint8_t before = state.load(kRelaxed);
  const uint32_t rounds = RoundsFor(tokens);
  do {
    // Most hits find it so, and leave the cache line clean.
    if ((before & kQueued) == 0 || ((before & kRounds) == rounds && (before & kWasHit) != 0)) return;
  } while (
      !state.compare_exchange_weak(before, static_cast<uint8_t>((before & ~kRounds) | rounds | kWasHit), kRelaxed));
  if ((before & kInMain) != 0 && (before & kRounds) == 0) main_hits_.fetch_add(1, kRelaxed);
}

void EvictionQueues::TakeMainHits() {
  if (main_hits_.load(kRelaxed) == 0) return;
  MoveShare(-kShareStep * main_hits_.exchange(0, kRelaxed));
}

void EvictionQueues::Remove(uint32_t slot, uint64_t bytes) {
  assert((StateOf(slot) & kQueued) != 0);
  Unlink(&QueueOf(slot), slot, bytes);
  SetState(slot, 0);
}

void EvictionQueues::Restore(uint32_t slot, uint8_t heat, const Cost& cost) {
  const uint32_t rounds = heat & kRounds;
  if ((heat & kInMain) != 0 && !IsInMain(slot)) {
    Unlink(&small_, slot, cost.bytes);
    PushToMain(slot, cost, std::max(rounds, RoundsOf(slot)));
  } else if (rounds > RoundsOf(slot)) {
    SetState(slot, (StateOf(slot) & ~uint32_t{kRounds}) | rounds);
  }
  if ((heat & kWasHit) != 0) NodeOf(slot).state.fetch_or(kWasHit, kRelaxed);
}

bool EvictionQueues::Spare(uint32_t slot, uint64_t hash, const Cost& cost) {
  assert((StateOf(slot) & kQueued) != 0);  // it was the candidate; hits since may have made another one that
  const uint32_t rounds = RoundsOf(slot);
  if (rounds == 0 || spared_ == kSparedMax) {
    spared_ = 0;
    if (!IsInMain(slot)) ghosts_.Add(hash, entries());
    return false;
  }
  ++spared_;
  if (IsInMain(slot)) {
    Unlink(&main_, slot, cost.bytes);
    MoveState(slot, kQueued | kInMain | (rounds - 1));
    Push(&main_, slot, cost.bytes);
  } else {
    Unlink(&small_, slot, cost.bytes);
    PushToMain(slot, cost, 0);  // the hit has paid for the way here
  }
  return true;
}

void EvictionQueues::PushToMain(uint32_t slot, const Cost& cost, uint32_t rounds) {
  const uint64_t mean = tokens_mean_.load(kRelaxed);
  tokens_mean_.store(mean == 0 ? cost.tokens * kMeanOf : mean - mean / kMeanOf + cost.tokens, kRelaxed);
  MoveState(slot, kQueued | kInMain | rounds);
  Push(&main_, slot, cost.bytes);
}

void EvictionQueues::MoveShare(double entries) {
  const double all = static_cast<double>(std::max<uint64_t>(this->entries(), 1));
  small_share_ = std::clamp(small_share_ + entries / all, kSmallShareMin, kSmallShareMax);
}

// Without a mean yet, everything is ordinary.
uint32_t EvictionQueues::RoundsFor(uint32_t tokens) const {
  const uint64_t scaled = 2 * kMeanOf * tokens;
  const uint64_t mean = tokens_mean_.load(kRelaxed);
  if (mean == 0) return kRoundsOrdinary;
  return scaled < mean ? kRoundsCheap : scaled <= 3 * mean ? kRoundsOrdinary : kRoundsDear;
}

void EvictionQueues::Push(Queue* queue, uint32_t slot, uint64_t bytes) {
  NodeOf(slot).older = queue->newest;
  NodeOf(slot).newer = kNoSlot;
  if (queue->newest != kNoSlot) {
    NodeOf(queue->newest).newer = slot;
  } else {
    queue->oldest = slot;
  }
  queue->newest = slot;
  ++queue->entries;
  queue->bytes += bytes;
}

void EvictionQueues::Unlink(Queue* queue, uint32_t slot, uint64_t bytes) {
  assert(queue->entries > 0 && queue->bytes >= bytes);
  const uint32_t older = NodeOf(slot).older, newer = NodeOf(slot).newer;
  (older != kNoSlot ? NodeOf(older).newer : queue->oldest) = newer;
  (newer != kNoSlot ? NodeOf(newer).older : queue->newest) = older;
  --queue->entries;
  queue->bytes -= bytes;
  assert(queue->entries > 0 || (queue->bytes == 0 && queue->oldest == kNoSlot && queue->newest == kNoSlot));
}

}  // namespace sutra
