// Which bank of the stats segment a thread counts in: each thread that counts has one of its own, so that counting is a
// load and a store and no locked addition. Observers add the banks up (stats_reader.cc).
//
//   0 .. kStatsBankShared - 1   of one thread, from its first count to its end; then of the next thread that counts
//   kStatsBankShared            of all threads that found the others taken; they add with a locked instruction
//
// Thread rule: any thread. A bank is one thread's in every segment of the process.
// Invariants: two living threads never have the same bank, except the shared one; a thread that gets the bank of one
// that ended sees its last counts.
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>

namespace sutra {

inline constexpr uint32_t kStatsBanks = 4;  // an engine counts in its loop, its worker and its helper threads
inline constexpr uint32_t kStatsBankShared = kStatsBanks - 1;

namespace stats_bank {

inline std::atomic<uint32_t> taken{0};                     // one bit per bank
inline constinit thread_local uint32_t own = kStatsBanks;  // kStatsBanks: none yet

// Takes a free bank for the calling thread, and gives it back at the thread's end.
inline uint32_t Take() {
  struct Holder {
    Holder() {
      // relaxed first look: the exchange decides
      uint32_t bits = taken.load(std::memory_order_relaxed);
      do {
        index = 0;
        while (index < kStatsBankShared && (bits >> index & 1) != 0) ++index;
        // SYNC T2 (acquire): the counts of the bank's former thread; meets SYNC T2 (release) in ~Holder.
      } while (
          index < kStatsBankShared &&
          !taken.compare_exchange_weak(bits, bits | 1u << index, std::memory_order_acquire, std::memory_order_relaxed));
    }
    ~Holder() {
      own = kStatsBankShared;  // whatever this thread counts after it
      if (index == kStatsBankShared) return;
      assert((taken.load(std::memory_order_relaxed) >> index & 1) != 0);  // relaxed: our own bit
      // SYNC T2 (release): this thread's counts; meets SYNC T2 (acquire) in Holder.
      taken.fetch_and(~(1u << index), std::memory_order_release);
    }
    uint32_t index = kStatsBankShared;
  };
  static thread_local const Holder holder;
  own = holder.index;
  return own;
}

}  // namespace stats_bank

// The calling thread's bank.
inline uint32_t StatsBankOfThread() { return stats_bank::own < kStatsBanks ? stats_bank::own : stats_bank::Take(); }

}  // namespace sutra
