// What an operator does with the entries of a shard: look at them, and take them out. The engine's control sessions
// call it on a live shard, sutra-cache on files at rest.
//
// Thread-safe beside every call of CacheShard; one thread at a time calls it, but for Visit, which any may. None of
// these may be called on the loop thread: they wait for the disk, and take up to seconds. They hold the store's mutex
// for microseconds at a time.
// `go_on` is asked every few milliseconds with how much is done of how much, and ends the call where it says no: with
// kCancelled, and with what was removed until then removed durably.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/cache_filter.h"
#include "cache/store/cache_value.h"
#include "shm/base/status.h"

namespace sutra {

// An entry with all that is known of it.
struct CacheEntry {
  std::string text;
  uint32_t variant = 0;
  std::vector<float> vector;  // of unit length, or all zero
  CacheValue value;
  uint64_t age_s = 0;   // since it was inserted
  uint64_t left_s = 0;  // until it expires
  bool hit = false;     // somebody was answered from it since it was inserted
  bool hot = false;  // the store would keep it: in the main queue, or hit since it was last asked to pay for its place
};

// Told of every removal, after it has taken effect in the store and before it is confirmed: whoever serves the same
// vectors from elsewhere stops. `removals`: CacheShard::Removals() from then on.
// Thread rule: any thread; under no lock of the shard.
class RemovalObserver {
 public:
  virtual ~RemovalObserver() = default;
  virtual void OnErased(std::string_view text, uint32_t variant, uint64_t removals) = 0;
  // A filter took out an unknown part of everything.
  virtual void OnManyErased(uint64_t removals) = 0;
};

class CacheAdmin {
 public:
  using GoOn = std::function<bool(uint64_t done, uint64_t total)>;

  struct Preview {
    uint64_t token = 0;     // for Commit: random, never 0
    uint64_t entries = 0;   // that match
    uint64_t bytes = 0;     // of memory that they take
    uint64_t examined = 0;  // entries
    uint64_t lost = 0;      // of those: their texts cannot be read, so nobody knows; the commit takes them out, too
  };
  // Finds the entries that match now, and remembers them until the next preview, the commit or kPreviewSecondsMax. What
  // is not in memory yet is read first. kBadOption: a filter without a condition, or a contradictory one.
  virtual Result<Preview> PreviewRemoval(const CacheFilter& filter, const GoOn& go_on) = 0;

  struct Removal {
    uint64_t entries = 0;
    uint64_t bytes = 0;
  };
  // Takes out what the preview of this token found: where the filter is about texts alone, these texts, whoever has
  // computed them again meanwhile; otherwise what is still the same entry; with `everything` all that is there, the
  // log's older records included. Returns when that is durable and observed. No computation that began
  // before stores its result afterwards. kBadOption: no such preview, or no longer: make another one. kStorageError: it
  // is out of memory, but the log refuses the record, so a restart may bring it back; the preview is used up.
  virtual Result<Removal> CommitRemoval(uint64_t token, const GoOn& go_on) = 0;
  static constexpr uint64_t kPreviewSecondsMax = 300;

  // Calls `visit` with entries from *cursor (0: the first) on, in no order that means anything, until it returns false;
  // *cursor is then where to go on, behind the entry visited last. True: that was all. An entry that is inserted or
  // moved meanwhile may be left out; one that is there all the time is not, and none comes twice. Unread ones are read.
  enum class Which : uint8_t { kAll, kHot };
  virtual Result<bool> Visit(Which which, uint64_t* cursor, const std::function<bool(const CacheEntry&)>& visit) = 0;

  // The entry of exactly this text; kBadOption with the message "not cached" if there is none. Does not count as a hit.
  virtual Result<CacheEntry> Get(std::string_view text, uint32_t variant) = 0;

  struct Compaction {
    uint64_t bytes_before = 0, bytes_after = 0;  // of the log's files
  };
  // Writes the log anew so that it holds little but what lives: removed and expired texts are on the disk no longer.
  // Returns when that is durable. kStorageError.
  virtual Result<Compaction> Compact(const GoOn& go_on) = 0;

 protected:
  ~CacheAdmin() = default;
};

}  // namespace sutra
