// Two intrusive lists over arrays of slots, and the arithmetic of rounds.
#include "cache/store/eviction.h"

#include <algorithm>
#include <cassert>

namespace sutra {
namespace {

constexpr uint64_t kMeanOf = 256;  // about as many entries decide what is dear
constexpr uint32_t kRoundsCheap = 1, kRoundsOrdinary = 2, kRoundsDear = 3;

}  // namespace

void EvictionQueues::Reserve(uint64_t slots) {
  assert(slots < kNoSlot);
  if (slots <= states_.size()) return;
  links_.reserve(slots);
  states_.reserve(slots);
  ghosts_.Reserve(slots);
  links_.resize(slots);
  states_.resize(slots);
}

void EvictionQueues::Insert(uint32_t slot, uint64_t hash, const Cost& cost) {
  assert(slot < states_.size() && states_[slot] == 0);
  if (ghosts_.Take(hash)) {
    MoveShare(kShareStep);
    const bool dear = RoundsFor(cost.tokens) == kRoundsDear;
    PushToMain(slot, cost, dear ? 1 : 0);
  } else {
    states_[slot] = kQueued;
    Push(&small_, slot, cost.bytes);
  }
}

void EvictionQueues::Hit(uint32_t slot, uint32_t tokens) {
  assert((states_[slot] & kQueued) != 0);
  if (IsInMain(slot) && RoundsOf(slot) == 0) MoveShare(-kShareStep);
  const uint8_t state = static_cast<uint8_t>((states_[slot] & ~kRounds) | RoundsFor(tokens));
  if (states_[slot] != state) states_[slot] = state;  // most hits find it so, and leave the cache line clean
}

void EvictionQueues::Remove(uint32_t slot, uint64_t bytes) {
  assert((states_[slot] & kQueued) != 0);
  Unlink(&QueueOf(slot), slot, bytes);
  states_[slot] = 0;
}

void EvictionQueues::Clear() {
  small_ = main_ = Queue{};
  small_share_ = kSmallShareMin;
  states_.assign(states_.size(), 0);
  spared_ = 0;
}

bool EvictionQueues::Spare(uint32_t slot, uint64_t hash, const Cost& cost) {
  assert(slot == Candidate());
  const uint32_t rounds = RoundsOf(slot);
  if (rounds == 0 || spared_ == kSparedMax) {
    spared_ = 0;
    if (!IsInMain(slot)) ghosts_.Add(hash, entries());
    return false;
  }
  ++spared_;
  if (IsInMain(slot)) {
    Unlink(&main_, slot, cost.bytes);
    states_[slot] = static_cast<uint8_t>(kQueued | kInMain | (rounds - 1));
    Push(&main_, slot, cost.bytes);
  } else {
    Unlink(&small_, slot, cost.bytes);
    PushToMain(slot, cost, 0);  // the hit has paid for the way here
  }
  return true;
}

void EvictionQueues::PushToMain(uint32_t slot, const Cost& cost, uint32_t rounds) {
  tokens_mean_ = tokens_mean_ == 0 ? cost.tokens * kMeanOf : tokens_mean_ - tokens_mean_ / kMeanOf + cost.tokens;
  states_[slot] = static_cast<uint8_t>(kQueued | kInMain | rounds);
  Push(&main_, slot, cost.bytes);
}

void EvictionQueues::MoveShare(double entries) {
  const double all = static_cast<double>(std::max<uint64_t>(this->entries(), 1));
  small_share_ = std::clamp(small_share_ + entries / all, kSmallShareMin, kSmallShareMax);
}

// Without a mean yet, everything is ordinary.
uint32_t EvictionQueues::RoundsFor(uint32_t tokens) const {
  const uint64_t scaled = 2 * kMeanOf * tokens;
  if (tokens_mean_ == 0) return kRoundsOrdinary;
  return scaled < tokens_mean_ ? kRoundsCheap : scaled <= 3 * tokens_mean_ ? kRoundsOrdinary : kRoundsDear;
}

void EvictionQueues::Push(Queue* queue, uint32_t slot, uint64_t bytes) {
  links_[slot] = Links{queue->newest, kNoSlot};
  if (queue->newest != kNoSlot) {
    links_[queue->newest].newer = slot;
  } else {
    queue->oldest = slot;
  }
  queue->newest = slot;
  ++queue->entries;
  queue->bytes += bytes;
}

void EvictionQueues::Unlink(Queue* queue, uint32_t slot, uint64_t bytes) {
  assert(queue->entries > 0 && queue->bytes >= bytes);
  const Links links = links_[slot];
  (links.older != kNoSlot ? links_[links.older].newer : queue->oldest) = links.newer;
  (links.newer != kNoSlot ? links_[links.newer].older : queue->newest) = links.older;
  --queue->entries;
  queue->bytes -= bytes;
  assert(queue->entries > 0 || (queue->bytes == 0 && queue->oldest == kNoSlot && queue->newest == kNoSlot));
}

}  // namespace sutra
