// EvictionQueues: which entry goes when room is needed. S3-FIFO over slot numbers, weighted by what an entry cost.
//
//              no ghost                   a hit since              no round left
//   Insert ----------------> small queue -------------> main queue ---------------> evicted
//      |                          | no hit               ^   ^  | a round left: one less
//      |                          v                      |   +--+
//      |                   evicted, a ghost              |
//      +-------------------------------------------------+
//              a ghost
//
// New entries wait in a small queue, so a bulk job that asks for every text once passes through it and leaves the main
// queue alone. Whatever is hit there, or comes back while its ghost is remembered, goes to the main queue. The main
// queue goes round: an entry at its end that has a round left pays with it and goes to the front.
//
// The small queue has a tenth of the bytes as long as the main queue is hit. A ghost that comes back says that the
// small queue was too short for it, an entry of the main queue that is hit (the first time since it last paid) says
// that the main queue is worth its room: the share moves by a step either way, between a tenth and a half. Without
// that, a hot set that moves on finds the main queue full of the former one, and fewer texts are found than with LRU.
//
// Weight: a hit gives an entry 1 round if it was cheap to compute, 2 if it was ordinary and 3 if it was dear (in
// tokens, beside the mean of the entries that went to the main queue: under a half, up to one and a half, more). One
// that is dear and comes back as a ghost starts with a round. Nothing else depends on cost: an entry without a hit is
// no more worth for having been dear, or a scan of long texts would push out everything. (S3-FIFO is usually written
// with a count of hits up to 3, promotion at the second hit and a fixed tenth; bench/README.md compares.)
//
// Entries are named by slot number; what the queues keep of one, nine bytes, lies in the owner's memory for the slot.
// Two more are for its ghost. Bounds are the owner's: it asks for candidates until its new entry fits.
//
// Thread rule: the owner's lock, but for Hit, which any thread may call at any time: a slot may have left meanwhile, or
// have another entry, and the hit is then wasted or the other's. Invariants:
//  - A slot is in one queue from Insert to Remove, and in none otherwise.
//  - `bytes` of a queue is the sum over its entries; a queue without entries has none.
//  - Spare moves at most kSparedMax entries on before one is evicted, so an eviction takes a bounded time however many
//    entries were hit.
//  - kSmallShareMin <= small_share() <= kSmallShareMax.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "cache/store/ghost_table.h"

namespace sutra {

class EvictionQueues {
 public:
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  // What the queues keep of a slot.
  struct Node {
    uint32_t older = kNoSlot, newer = kNoSlot;
    std::atomic<uint8_t> state{0};
  };
  static constexpr uint32_t kSparedMax = 128;
  static constexpr double kSmallShareMin = 0.1, kSmallShareMax = 0.5;
  static constexpr double kShareStep = 4;  // entries for each one that says so

  // What an entry takes from the bounds, and what it took to compute it.
  struct Cost {
    uint64_t bytes = 0;
    uint32_t tokens = 0;
  };

  // The node of slot n lies `stride` bytes behind that of slot n - 1. Throws std::bad_alloc.
  EvictionQueues(Node* first, size_t stride, uint64_t slots) : first_(first), stride_(stride), ghosts_(slots) {}

  // The slot has a new entry, whose key has this hash.
  void Insert(uint32_t slot, uint64_t hash, const Cost& cost);
  // Its entry was found. Any thread.
  void Hit(uint32_t slot, uint32_t tokens);
  // Somebody was answered from its entry since Insert, or ForgetHit.
  bool WasHit(uint32_t slot) const { return (StateOf(slot) & kWasHit) != 0; }
  // Its entry is replaced by a newer one of the same key, which keeps the place.
  void ForgetHit(uint32_t slot) {
    NodeOf(slot).state.fetch_and(static_cast<uint8_t>(~kWasHit), std::memory_order_relaxed);
  }
  // Its entry leaves.
  void Remove(uint32_t slot, uint64_t bytes);

  // What is kept of a slot over a restart: whether its entry is in the main queue, the rounds that it has left, and
  // whether it was ever hit.
  uint8_t HeatOf(uint32_t slot) const { return StateOf(slot) & (kInMain | kRounds | kWasHit); }
  // The entry of this slot, which a start has put into the small queue, had this heat.
  void Restore(uint32_t slot, uint8_t heat, const Cost& cost);

  // The entry whose turn it is. There is one unless there are no entries.
  uint32_t Candidate() {
    TakeMainHits();
    return TurnOf().oldest;
  }
  // True when the candidate has earned to stay; another one is the candidate then. False when it is to be removed; it
  // is a ghost from now on if it was in the small queue.
  bool Spare(uint32_t slot, uint64_t hash, const Cost& cost);

  uint64_t entries() const { return small_.entries + main_.entries; }
  uint64_t small_bytes() const { return small_.bytes; }
  uint64_t main_bytes() const { return main_.bytes; }
  double small_share() {
    TakeMainHits();
    return small_share_;
  }
  bool IsInMain(uint32_t slot) const { return (StateOf(slot) & kInMain) != 0; }
  uint32_t RoundsOf(uint32_t slot) const { return StateOf(slot) & kRounds; }
  uint64_t ghosts_max() const { return ghosts_.keys_max(); }

 private:
  // A state byte.
  static constexpr uint8_t kRounds = 3, kInMain = 4, kQueued = 8, kWasHit = 16;
  struct Queue {
    uint32_t oldest = kNoSlot, newest = kNoSlot;
    uint64_t entries = 0, bytes = 0;
  };

  Node& NodeOf(uint32_t slot) const {
    return *static_cast<Node*>(static_cast<void*>(static_cast<char*>(static_cast<void*>(first_)) + slot * stride_));
  }
  // relaxed: a state stands alone
  uint8_t StateOf(uint32_t slot) const { return NodeOf(slot).state.load(std::memory_order_relaxed); }
  void SetState(uint32_t slot, uint32_t state) {
    NodeOf(slot).state.store(static_cast<uint8_t>(state), std::memory_order_relaxed);
  }
  // The same where the slot's entry stays: whether it was hit stays with it.
  void MoveState(uint32_t slot, uint32_t state) {
    uint8_t before = StateOf(slot);
    while (!NodeOf(slot).state.compare_exchange_weak(before, static_cast<uint8_t>(state | (before & kWasHit)),
                                                     std::memory_order_relaxed)) {
    }
  }
  Queue& QueueOf(uint32_t slot) { return IsInMain(slot) ? main_ : small_; }
  const Queue& TurnOf() const {
    const double all = static_cast<double>(small_.bytes + main_.bytes);
    return main_.entries == 0 || static_cast<double>(small_.bytes) > small_share_ * all ? small_ : main_;
  }
  void Push(Queue* queue, uint32_t slot, uint64_t bytes);
  void Unlink(Queue* queue, uint32_t slot, uint64_t bytes);
  void PushToMain(uint32_t slot, const Cost& cost, uint32_t rounds);
  uint32_t RoundsFor(uint32_t tokens) const;
  void MoveShare(double entries);
  void TakeMainHits();

  Node* const first_;
  const size_t stride_;
  Queue small_, main_;
  GhostTable ghosts_;
  double small_share_ = kSmallShareMin;
  uint32_t spared_ = 0;  // since the last eviction
  // First hits of entries of the main queue since they last paid, not yet in small_share_. relaxed: a count
  std::atomic<uint32_t> main_hits_{0};
  std::atomic<uint64_t> tokens_mean_{
      0};  // of those that went to the main queue, times kMeanOf, the last ones weighing most
};

}  // namespace sutra
