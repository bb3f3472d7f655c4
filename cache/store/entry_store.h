// EntryStore: the entries in memory, found by text and variant, bounded in number and bytes.
//
// Up to 16 stripes, each with its own lock, hash table and share of the bounds, so that threads rarely contend. An
// entry is one slot of a fixed size (header, short text, vector) and a heap block for a longer text. Placement is
// XXH3-128 with a random seed per process, so that no client can aim at a bucket; identity is the full text and the
// variant. Eviction is S3-FIFO weighted by tokens (eviction.h): a bulk job that asks for every text once leaves the hot
// entries alone, and what was dear to compute stays longer. Expired entries go as soon as their turn comes.
//
// Long texts (more than kLongTextBytes) are neither copied nor compared nor freed under a lock, since that takes
// milliseconds in which nobody would find the entries beside them: their blocks are counted references, and a key whose
// text is known to be stored points at the stored bytes (Pin).
//
// Thread rule: every call may come from any thread, except those named ...Locked, which need the lock of the key's
// stripe. No lock is held while waiting for a disk. Invariants:
//  - A hit has the same bytes of text and the same variant, and is not expired.
//  - entries <= entries_max and bytes <= bytes_max at all times (bytes: entries, long texts, table and queues).
//    Freed memory is kept for new entries, so resident memory may exceed this after a change from many short texts to
//    few long ones.
//  - Only InsertLocked (a new entry) and Reserve need memory; an insert that finds none stores nothing and changes
//    nothing (but for entries evicted to make room).
//  - `segment` of an entry is the oldest log segment that may hold its newest logged record; 0: none does. (Not
//    asserted: only the files could tell. tests/sim/power_cut_test.cc would lose entries if it did not hold.)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "cache/store/cache_value.h"
#include "shm/base/mutex.h"

namespace sutra {

class Clock;

struct EntryKey {
  uint64_t low = 0;
  uint64_t high = 0;
  uint32_t variant = 0;
  std::string_view text;
};

// An entry as the log needs it; the views are valid under the stripe's lock only.
struct EntryView {
  std::string_view text;
  uint32_t variant = 0;
  std::span<const float> vector;
  CacheValue value;
  uint64_t expires_ns = 0;  // on the boot clock, like every time in the store
};

class EntryStore {
 public:
  static constexpr size_t kLongTextBytes = 64 << 10;

  class TextBlock;
  // A reference to a text that has a block of its own.
  struct TextBlockRelease {
    void operator()(TextBlock* block) const;
  };
  using TextBlockPtr = std::unique_ptr<TextBlock, TextBlockRelease>;

  struct Limits {
    uint32_t width = 0;
    uint64_t entries_max = 0;
    uint64_t bytes_max = 0;
    uint64_t hash_mask = ~0ull;  // tests narrow it to force collisions
  };
  explicit EntryStore(const Limits& limits);
  ~EntryStore();

  EntryKey KeyOf(std::string_view text, uint32_t variant) const;
  // Before a call with this key: if its text is long and stored, the key's text is the stored one afterwards, which the
  // call recognises without comparing, for as long as the result lives. Null otherwise; the call compares if it must.
  TextBlockPtr Pin(EntryKey* key) const;
  // A copy of the key's text for InsertLocked to take, if it is long; else null. Throws std::bad_alloc.
  static TextBlockPtr CopyLongText(const EntryKey& key);
  // Frees the long texts that left the key's stripe. Call it without the lock, after a call that may have removed some.
  void FreeRemoved(const EntryKey& key) { FreeRemovedOf(&StripeOf(key)); }
  // The lock of the key's stripe.
  Mutex& MutexOf(const EntryKey& key) const;

  bool Lookup(const EntryKey& key, Clock* clock, float* vector, CacheValue* value);
  // Nothing if another thread holds the stripe's lock and does not give it back at once.
  std::optional<bool> TryLookup(const EntryKey& key, Clock* clock, float* vector, CacheValue* value);

  // Stores or replaces. False when the entry alone exceeds its stripe's bounds, or when no memory is left. `text`: what
  // CopyLongText gave; taken if there is a new entry. Without it a long text is copied here.
  bool InsertLocked(const EntryKey& key, std::span<const float> vector, const CacheValue& value, uint64_t expires_ns,
                    uint64_t now_ns, uint64_t segment, TextBlockPtr* text = nullptr) SUTRA_REQUIRES(MutexOf(key));
  // The same for a vector given as bytes.
  bool InsertLocked(const EntryKey& key, std::span<const std::byte> vector, const CacheValue& value,
                    uint64_t expires_ns, uint64_t now_ns, uint64_t segment, TextBlockPtr* text = nullptr)
      SUTRA_REQUIRES(MutexOf(key));
  bool EraseLocked(const EntryKey& key) SUTRA_REQUIRES(MutexOf(key));
  // Whether an entry of this size could be stored at all.
  bool CanHold(size_t text_bytes) const;

  uint64_t DropAll();
  void Reserve(uint64_t entries);

  // Visits entries whose segment is at most `through` (and not 0), from `cursor` on, under their stripe's lock: `visit`
  // sets the segment that holds the entry from now on, or returns false to stop before it. Returns true when all were
  // visited.
  struct Cursor {
    size_t stripe = 0;
    size_t position = 0;
  };
  bool VisitOlder(uint64_t through, Cursor* cursor, const std::function<bool(const EntryView&, uint64_t*)>& visit);
  // Makes every logged entry count as held by segment `number` at the latest, so that it is appended again when that
  // segment is removed. Called after the loss of records that were to hold entries.
  void HoldBy(uint64_t number);
  // Evicts every entry whose segment is at most `through` (and not 0).
  uint64_t EvictOlder(uint64_t through);

  struct Counts {
    uint64_t entries = 0, bytes = 0, evictions = 0, expirations = 0;
  };
  Counts GetCounts() const;

 private:
  struct Entry;
  struct Stripe;
  mutable Mutex counts_mutex_;
  static void FreeRemovedOf(Stripe* stripe);
  bool LookupIn(Stripe* stripe, const EntryKey& key, Clock* clock, float* vector, CacheValue* value);
  Stripe& StripeOf(const EntryKey& key) const { return *stripes_[key.high & stripe_mask_]; }

  const Limits limits_;
  const uint64_t seed_;
  size_t stripe_mask_ = 0;
  std::vector<std::unique_ptr<Stripe>> stripes_;
};

}  // namespace sutra
