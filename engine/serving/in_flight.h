// Equal texts in flight are computed once: the first request starts a computation, later ones join it. Equal means the
// same variant and the same bytes.
//
// Out of memory, a call throws std::bad_alloc and has changed nothing.
//
// Thread-safe. The loop never waits here: a worker that loses its CPU while it has the lock keeps it for milliseconds,
// in which the loop has others to serve (Join and Start say kBusy then).
//
// An ordering makes "once" exact: the worker stores a result in the cache before it ends the computation. The loop asks
// the cache first, so that a hit touches nothing here, then joins; if neither has the text and a computation ended in
// between (ended()), it may have been this one, and the cache is asked once more.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/lanes/request.h"
#include "shm/base/mutex.h"
#include "shm/base/random.h"

namespace sutra {

class InFlight {
 public:
  enum class JoinResult {
    kNone,
    kJoined,
    kTooLong,
    kBusy,  // nothing happened: a worker holds the lock, and does not give it back at once
    kFull,  // nothing happened: kWaitersMax wait for it
  };
  // Of one computation: about two milliseconds of answers.
  static constexpr size_t kWaitersMax = 4096;

  // Adds `waiter` to the computation of this text, if one is under way. kTooLong: it is under way, but known to be
  // truncated, and the waiter refuses truncation (kOptionReject); nothing was added. The lock is not taken while
  // nothing is under way. The loop thread.
  JoinResult Join(std::string_view text, uint32_t variant, const Waiter& waiter, ComputationPtr* computation);

  // The computation is under way from here on, and `first` waits for it. REQUIRES: Join returned kNone for this text
  // (only the loop thread starts computations). False, and nothing happened, when a worker holds the lock.
  [[nodiscard]] bool Start(const ComputationPtr& computation, Waiter first);

  // Removes the waiters for which `gone` is true and hands them to the caller. RETURNS how many are left; with none the
  // computation is no longer under way.
  size_t Prune(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
               std::vector<Waiter>* removed);

  // The text proved longer than the model's limit. Hands the waiters that refuse truncation to the caller; later ones
  // cannot join. False: no waiter is left, and the computation is no longer under way.
  bool Truncate(const ComputationPtr& computation, std::vector<Waiter>* removed);

  // Ends the computation: it can no longer be joined. All waiters are handed to the caller. Allocates nothing.
  std::vector<Waiter> Finish(const ComputationPtr& computation);

  // How long to store the result: the longest of the lifetimes asked for; nothing if no waiter wants it stored. Call it
  // after the vector exists and before FinishStored.
  std::optional<uint64_t> LifetimeToStore(const ComputationPtr& computation) const;

  // Finish, if the result is stored for as long as its waiters want (`stored` is what LifetimeToStore said). Nothing is
  // done, and nothing returned, when a request has joined since that wants it stored, or for longer.
  std::optional<std::vector<Waiter>> FinishStored(const ComputationPtr& computation, std::optional<uint64_t> stored);

  // Takes all waiters (at the end of a drain that timed out).
  std::vector<Waiter> TakeAll();

  // SYNC E3 (acquire): a result that is not counted any more is in the cache; meets SYNC E3 (release) in EraseLocked.
  size_t size() const { return count_.load(std::memory_order_acquire); }
  // Computations that have ended. A loop that reads the same number before a lookup in the cache that misses and after
  // a Join that finds nothing knows that the text is neither cached nor under way. (acquire: the lookup comes after
  // it.)
  uint64_t ended() const { return ended_.load(std::memory_order_acquire); }

 private:
  struct Key {
    std::string_view text;  // points into the computation
    uint32_t variant;
    bool operator==(const Key& other) const { return variant == other.variant && text == other.text; }
  };
  struct KeyHash {
    uint64_t seed;  // random: otherwise a client could send texts that all land in one bucket
    size_t operator()(const Key& key) const;
  };

  size_t PruneLocked(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
                     std::vector<Waiter>* removed) SUTRA_REQUIRES(mutex_);
  void EraseLocked(const ComputationPtr& computation) SUTRA_REQUIRES(mutex_);
  void CheckCanaries() const SUTRA_REQUIRES(mutex_);

  // Words on both sides of the map that nobody writes to. A damaged map was seen once (a division by its number of
  // buckets); if it is damaged again, the message tells a stray write from a fault of ours.
  static constexpr uint64_t kCanary = 0x5355545241434152;

  mutable Mutex mutex_;
  uint64_t canary_before_ = kCanary;
  std::unordered_map<Key, ComputationPtr, KeyHash> computations_ SUTRA_GUARDED_BY(mutex_){16, KeyHash{RandomSeed()}};
  uint64_t canary_after_ = kCanary;
  std::atomic<size_t> count_{0};    // entries of the map
  std::atomic<uint64_t> ended_{0};  // raised under the lock
};

}  // namespace sutra
