// The engine's side of the hot table (shm/hot_table.h): which texts are in it, and from when on they are not.
//
// A text comes in when the shard has answered it to a client that maps the table, which is its second use at the
// earliest, or after a start, from what the shard knows to be hot (hot_refill.h). Where the table is full, a clock hand
// looks for a slot that nobody has asked for since it last came by. Clients say what they were answered from by hints
// in their own lanes, which do nothing but spare a slot for a round and count as a hit in the shard: a lie costs its
// teller and everybody else a vector that the shard still has.
//
// A removal takes its text out before it is confirmed; one by a filter, or of everything, empties the table, which may
// have texts that the shard has evicted and no filter sees. What was looked up before a removal is not published after
// it: whoever publishes says how many removals there were before its lookup.
//
// Thread rule: TryPublish, Mark, Beat and Close: the loop thread, which never waits here; Fill, the observer's calls
// and the figures: any thread. Invariants:
//  - The memory of the table is at most what was asked for; without memory for a further slot it is full.
//  - A text that a removal took out is in no slot once the observer's call has returned, nor later, unless by a lookup
//    that began after the removal.
//  - Nothing is published once the table is closed.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "cache/cache_shard.h"
#include "shm/base/mutex.h"
#include "shm/base/status.h"
#include "shm/hot_memory.h"
#include "shm/hot_writer.h"

namespace sutra {

class HotCache final : public RemovalObserver {
 public:
  // A full table exchanges at most so many vectors between two beats, 20,000 a second: a working set that does not fit
  // costs the loop a hundredth of its time.
  static constexpr uint32_t kExchangesPerBeat = 1000;
  static constexpr uint32_t kHandStepsMax = 64;  // then the hand takes what it points at

  // A table of `bytes` at most. kOutOfMemory; kRefused: not one vector of this width fits.
  static Result<std::unique_ptr<HotCache>> Create(uint32_t width, uint64_t bytes, uint64_t engine_generation);
  ~HotCache();  // closes

  int fd() const { return memory_.fd(); }  // for clients
  uint32_t slots() const { return memory_.view().geometry.slots; }
  uint64_t bytes() const { return memory_.view().geometry.bytes(); }  // once every slot was used

  // The shard has answered with this: `unit` and `value` are what the lookup gave, `removals` what CacheShard::Removals
  // said before it. Does nothing if another thread is at the table, or if it is full and enough was exchanged.
  void TryPublish(std::string_view text, uint32_t variant, std::span<const float> unit, const CacheValue& value,
                  uint64_t removals);
  // The same, but waits, and evicts nothing. False: there is no room.
  bool Fill(std::string_view text, uint32_t variant, std::span<const float> unit, const CacheValue& value,
            uint64_t removals);

  // A client's hints: slots + 1, or anything else, since it is the client who writes them.
  void Mark(std::span<const uint32_t> hints, CacheShard* shard);
  // With every heartbeat.
  void Beat();
  // For ever: clients no longer look there.
  void Close();

  void OnErased(std::string_view text, uint32_t variant, uint64_t removals) override;
  void OnManyErased(uint64_t removals) override;

  struct Figures {
    uint64_t slots = 0;
    uint64_t used = 0;
    uint64_t published = 0, evicted = 0, removed = 0;  // since the start
  };
  Figures figures() const;

 private:
  enum State : uint8_t { kFree, kUsed, kAskedFor };

  explicit HotCache(HotTableMemory memory);
  bool Stopped(const HotKey& key, uint64_t removals) const SUTRA_REQUIRES(mutex_);
  uint32_t TakeFree() SUTRA_REQUIRES(mutex_);
  uint32_t Evict() SUTRA_REQUIRES(mutex_);
  void Free(uint32_t slot) SUTRA_REQUIRES(mutex_);
  void Write(uint32_t slot, HotKey* key, std::span<const float> unit, const CacheValue& value) SUTRA_REQUIRES(mutex_);

  // When a key of this remainder was removed last: its neighbours lose a publication, and nothing else.
  static constexpr size_t kFences = 4096;

  Mutex mutex_;
  HotTableMemory memory_;                                      // Back: under the mutex
  HotWriter writer_;                                           // under the mutex, but for its single words
  std::vector<State> states_ SUTRA_GUARDED_BY(mutex_);         // of each slot
  std::vector<CacheHandle> handles_ SUTRA_GUARDED_BY(mutex_);  // the shard's, of each slot that is not free
  std::vector<uint32_t> freed_ SUTRA_GUARDED_BY(mutex_);       // of those below fresh_; has room for all
  uint32_t fresh_ SUTRA_GUARDED_BY(mutex_) = 0;                // slots from here on were never used
  uint32_t usable_ SUTRA_GUARDED_BY(mutex_) = 0;               // there is no memory for slots from here on
  uint32_t hand_ SUTRA_GUARDED_BY(mutex_) = 0;
  std::array<uint64_t, kFences> removed_at_ SUTRA_GUARDED_BY(mutex_) = {};
  uint64_t all_removed_at_ SUTRA_GUARDED_BY(mutex_) = 0;

  uint32_t exchanges_left_ = kExchangesPerBeat;  // the loop's
  std::atomic<bool> closed_{false};
  // Written under the mutex; relaxed: for display.
  std::atomic<uint64_t> used_{0}, published_{0}, evicted_{0}, removed_{0};
};

}  // namespace sutra
