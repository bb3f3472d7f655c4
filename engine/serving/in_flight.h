// Equal texts in flight are computed once: the first request starts a computation, later ones join it. Equal means the
// same variant and the same bytes.
//
// Thread-safe. An ordering makes "once" exact: the worker stores a result in the cache before it calls Finish, and the
// loop calls Join before it asks the cache, so a text is found in one of the two.
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
  enum class JoinResult { kNone, kJoined, kJoinedRaised, kTooLong };

  // Adds `waiter` to the computation of this text, if one is under way. kJoinedRaised: its class rose, so *computation
  // must be queued again. kTooLong: it is under way, but truncated, and the waiter refuses truncation (kOptionReject);
  // nothing was added. The lock is not taken while nothing is under way.
  JoinResult Join(std::string_view text, uint32_t variant, const Waiter& waiter, ComputationPtr* computation);

  // The computation is under way from here on, and `first` waits for it. REQUIRES: Join returned kNone for this text
  // (only the loop thread starts computations).
  void Start(const ComputationPtr& computation, Waiter first);

  // Removes the waiters for which `gone` is true and hands them to the caller. False: no waiter is left, and the
  // computation is no longer under way.
  bool Prune(const ComputationPtr& computation, const std::function<bool(const Waiter&)>& gone,
             std::vector<Waiter>* removed);

  // Ends the computation: it can no longer be joined. All waiters are handed to the caller.
  std::vector<Waiter> Finish(const ComputationPtr& computation);

  // How long to store the result: the longest of the lifetimes asked for; nothing if no waiter wants it stored. Call it
  // after the vector exists and before Finish.
  std::optional<uint64_t> LifetimeToStore(const ComputationPtr& computation) const;

  // Takes all waiters (at the end of a drain that timed out).
  std::vector<Waiter> TakeAll();

  size_t size() const { return count_.load(std::memory_order_acquire); }

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

  void EraseLocked(const ComputationPtr& computation) SUTRA_REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::unordered_map<Key, ComputationPtr, KeyHash> computations_ SUTRA_GUARDED_BY(mutex_){16, KeyHash{RandomSeed()}};
  // Entries of the map. Lowered (release) after the removal, and the removal follows the insert into the cache: a loop
  // that reads 0 (acquire) finds the result in the cache.
  std::atomic<size_t> count_{0};
};

}  // namespace sutra
