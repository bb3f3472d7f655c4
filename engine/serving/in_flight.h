// Equal texts in flight are computed once: the first request starts a computation, later ones join it. Equal means the
// same variant and the same bytes, and that nothing was removed from the cache in between: a request that comes after a
// removal gets no answer of a computation that began before it. What was removed is not asked, so any removal starts
// every text anew; who joined before stays.
//
// Out of memory, a call throws std::bad_alloc and has changed nothing.
//
// Thread-safe. The loop never waits here: a worker that loses its CPU while it has the lock keeps it for milliseconds,
// in which the loop has others to serve (Join and Start say kBusy then). Long texts have a table and a lock of their
// own, which the loop never takes: to compare them takes milliseconds. Hashing is done without a lock, and once.
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

#include "engine/lanes/lane_reader.h"
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

  // Adds `waiter` to the computation of this text that began after `removals` (CacheShard::Removals, read since the
  // request came), if one is under way. kTooLong: it is under way, but known to be
  // truncated, and the waiter refuses truncation (kOptionReject); nothing was added. The lock is not taken while
  // nothing is under way. The loop thread; for a long text, the thread of the long texts.
  JoinResult Join(std::string_view text, uint32_t variant, uint64_t removals, const Waiter& waiter,
                  ComputationPtr* computation);

  // The computation is under way from here on, and `first` waits for it. REQUIRES: Join returned kNone for this text
  // and its `removals_seen` (each text is started by one thread only, see Join). False, and nothing happened, when a
  // worker holds the lock.
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
  size_t size() const {
    return short_.count.load(std::memory_order_acquire) + long_.count.load(std::memory_order_acquire);
  }
  // Computations of texts as long as this one that have ended. Who reads the same number before a lookup in the cache
  // that misses and after a Join that finds nothing knows that the text is neither cached nor under way. (acquire: the
  // lookup comes after it.)
  uint64_t ended(std::string_view text) const {
    return (IsLong(text) ? long_ : short_).ended.load(std::memory_order_acquire);
  }

 private:
  struct Key {
    std::string_view text;  // points into the computation
    uint32_t variant;
    uint64_t removals;  // seen when it began
    uint64_t hash;
    bool operator==(const Key& other) const {
      if (hash != other.hash || variant != other.variant || removals != other.removals) return false;
      if (text.size() != other.text.size()) return false;
      return text.data() == other.text.data() || text == other.text;
    }
  };
  struct KeyHash {
    size_t operator()(const Key& key) const noexcept { return key.hash; }
  };

  // Words on both sides of the map that nobody writes to. A damaged map was seen once (a division by its number of
  // buckets); if it is damaged again, the message tells a stray write from a fault of ours.
  static constexpr uint64_t kCanary = 0x5355545241434152;

  struct Table {
    bool intact() const { return canary_before == kCanary && canary_after == kCanary; }

    mutable Mutex mutex;
    uint64_t canary_before = kCanary;
    std::unordered_map<Key, ComputationPtr, KeyHash> computations SUTRA_GUARDED_BY(mutex){16};
    uint64_t canary_after = kCanary;
    std::atomic<size_t> count{0};    // entries of the map
    std::atomic<uint64_t> ended{0};  // raised under the lock
  };

  static Key KeyOf(const Computation& computation) {
    return {computation.text, computation.variant, computation.removals_seen, computation.hash};
  }
  static bool IsLong(std::string_view text) { return text.size() > kLongTextBytes; }
  Table& TableOf(const ComputationPtr& computation) { return computation->is_long ? long_ : short_; }
  const Table& TableOf(const ComputationPtr& computation) const { return computation->is_long ? long_ : short_; }
  uint64_t HashOf(std::string_view text, uint32_t variant) const;

  static size_t PruneLocked(Table* table, const ComputationPtr& computation,
                            const std::function<bool(const Waiter&)>& gone, std::vector<Waiter>* removed)
      SUTRA_REQUIRES(table->mutex);
  static void EraseLocked(Table* table, const ComputationPtr& computation) SUTRA_REQUIRES(table->mutex);
  static size_t WaitersLocked(const Table& table) SUTRA_REQUIRES(table.mutex);
  static void TakeAllLocked(Table* table, std::vector<Waiter>* all) SUTRA_REQUIRES(table->mutex);
  void CheckCanaries(const Table& table) const SUTRA_REQUIRES(table.mutex);

  const uint64_t seed_ = RandomSeed();  // otherwise a client could send texts that all land in one bucket
  Table short_;
  Table long_;  // texts of more than kLongTextBytes
};

}  // namespace sutra
