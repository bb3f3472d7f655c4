// SlotTable: the entries in memory, found by text and variant, bounded in number and bytes.
//
//   cells (key -> slot)          slots (64 bytes each)            vectors           text heap
//   [tag | slot] ---------------> version, hash, expiry, ... ---> by slot number    by offset, or a LongText
//
// An entry has a slot number for as long as it lives, and the log names it: replayed, the log brings each entry back to
// its slot, and whoever was there before is gone, which is the record of that eviction. Nothing moves or grows: cells,
// slots, vectors and texts lie in reserved ranges whose pages come when they are first used.
//
// Lookups take no lock. A slot has a version that is odd while it is written; a reader copies what it needs and looks
// at the version again. A removal moves cells, so whoever found nothing looks at `moves_` again. Writers take turns
// under one mutex, which a lookup never takes, except for a text of more than kLongTextBytes, whose bytes are freed
// with its entry: it takes a reference under the mutex.
//
// After a start an entry may be unread: its text and vector are in the log still, at a place that its slot names. It
// counts like every other one, a lookup finds it by its digest, and whoever may wait then reads it (entry_loader.h).
//
// Placement is XXH3-128 with a random seed, so that no client can aim at a place; identity is the full text and the
// variant. The seed stands in the log, which removes keys by their digest. Eviction is S3-FIFO weighted by tokens
// (eviction.h). Expired entries go when their turn comes, or when the sweep comes past.
//
// Thread rule: every call may come from any thread, except those named ...Locked, which need mutex(), and BeginReplay,
// PutUnreadLocked and FinishReplay, which belong to the time before the table is shared. Invariants:
//  - A hit has the same bytes of text and the same variant, is not expired, and its vector and value belong together.
//    No unread entry is a hit.
//  - entries <= entries_max and bytes <= bytes_max at all times (bytes: slots, cells, vectors, texts).
//  - A slot is used by one entry or free; a used one is in one cell and in one queue, a free one has no text. Cells are
//    at most 4/5 full.
//  - No call needs memory but Put, for a long text that its caller has not copied.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/key_digest.h"
#include "cache/store/cache_value.h"
#include "cache/store/eviction.h"
#include "cache/store/guarded_words.h"
#include "cache/store/long_text.h"
#include "cache/store/reserved_memory.h"
#include "cache/store/text_heap.h"
#include "shm/base/mutex.h"

namespace sutra {

struct EntryKey {
  uint64_t hash = 0;
  KeyDigest digest;
  uint32_t variant = 0;
  std::string_view text;
};

// An entry as the log needs it; the views are valid under the mutex only.
struct EntryView {
  uint32_t slot = 0;
  std::string_view text;
  uint32_t variant = 0;
  std::span<const std::byte> vector;
  CacheValue value;
  uint64_t expires_ns = 0;  // on the boot clock, like every time in the table
  uint32_t ttl_s = 0;       // its whole lifetime: what is left of it tells its age
};

// What a walk sees of an entry that is there. The view is valid under the mutex only.
struct EntryFacts {
  uint32_t slot = 0;
  uint32_t birth = 0;     // tells this entry from one that comes to the slot later
  uint64_t hash = 0;      // of the key
  std::string_view text;  // empty if it is unread or long
  uint32_t text_bytes = 0;
  uint64_t expires_ns = 0;
  uint32_t ttl_s = 0;
  uint64_t bytes = 0;  // of memory
  bool unread = false, is_long = false, hit = false;
  bool hot = false;  // eviction would keep it
};

// A copy of an entry with all that is known of it.
struct EntryCopy {
  EntryFacts facts;  // without the text
  std::string text;
  uint32_t variant = 0;
  std::vector<float> vector;
  CacheValue value;
};

class SlotTable {
 public:
  static constexpr uint32_t kNoSlot = EvictionQueues::kNoSlot;
  static constexpr size_t kLongTextBytes = 64 << 10;

  struct Limits {
    uint32_t width = 0;
    uint64_t entries_max = 0;
    uint64_t bytes_max = 0;
    uint64_t hash_mask = ~0ull;  // tests narrow it to force collisions
  };
  // Throws std::bad_alloc if there is no address space for it.
  explicit SlotTable(const Limits& limits);
  ~SlotTable();

  uint64_t seed() const { return seed_; }
  // A log with this seed is replayed from here to FinishReplay. REQUIRES: there are no entries.
  void BeginReplay(uint64_t seed);
  EntryKey KeyOf(std::string_view text, uint32_t variant) const;
  // A copy of the key's text for PutLocked to take, if it is long; else null. Throws std::bad_alloc.
  static LongText::Ptr CopyLongText(const EntryKey& key) {
    return key.text.size() > kLongTextBytes ? LongText::Copy(key.text) : nullptr;
  }
  // Whether an entry of this size could be stored at all.
  bool CanHold(size_t text_bytes) const { return text_bytes <= UINT32_MAX && BytesOf(text_bytes) <= limits_.bytes_max; }
  uint64_t slots_max() const { return slots_max_; }

  // Copies out the vector and its value; false if there is no such entry or it has expired. Waits for a writer that is
  // in the middle of this very entry. `read` is called, without a lock, to read an unread one; where it cannot, the
  // entry is not found.
  bool Lookup(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
              const std::function<void(uint32_t slot)>& read = {});
  // The same without waiting: nothing if a writer was in the way for too long, or the entry is unread.
  // *unread: its slot then, else kNoSlot.
  std::optional<bool> TryLookup(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
                                uint32_t* unread = nullptr);

  Mutex& mutex() const SUTRA_RETURN_CAPABILITY(mutex_) { return mutex_; }

  // Counts as a hit of the entry, if it is still there. Takes no lock.
  void Touch(const CacheHandle& handle);

  // How long an entry lives: until when, and what it was given in all (at most kTtlMax), which tells since when.
  struct Lifetime {
    Lifetime(uint64_t expires = 0, uint32_t ttl = 0) : expires_ns(expires), ttl_s(ttl) {}
    uint64_t expires_ns;
    uint32_t ttl_s;
  };
  static constexpr uint32_t kTtlMax = UINT32_MAX >> 1;
  // Stores or replaces, and evicts for it what has to go.
  struct Placed {
    uint32_t slot = kNoSlot;  // kNoSlot: not stored, it alone exceeds the bounds or there is no memory
    uint32_t vacated = 0;     // so many other entries left and their slots are free: VisitVacatedLocked
  };
  // `text`: what CopyLongText gave; taken if there is a new entry. Without it a long text is copied here.
  Placed PutLocked(const EntryKey& key, std::span<const std::byte> vector, const CacheValue& value,
                   const Lifetime& lifetime, uint64_t now_ns, LongText::Ptr* text = nullptr) SUTRA_REQUIRES(mutex_);
  // The slots that the last PutLocked emptied and left free. Before any other call that changes the table.
  void VisitVacatedLocked(uint32_t vacated, const std::function<void(uint32_t)>& visit) const SUTRA_REQUIRES(mutex_);
  bool EraseLocked(const EntryKey& key) SUTRA_REQUIRES(mutex_);
  // `segment` of a slot is the oldest log segment that may hold the newest record of its entry; 0: none does, and the
  // log may say something else of this slot. (Not asserted: only the files could tell. tests/sim would lose entries.)
  void SetSegmentLocked(uint32_t slot, uint64_t segment) SUTRA_REQUIRES(mutex_) {
    slots_[slot].segment = static_cast<uint32_t>(segment);
  }

  // Where the record of an unread entry is: `offset` in the segment, in units of the log's alignment.
  struct LogPlace {
    uint64_t segment = 0;
    uint32_t offset = 0;
    bool operator==(const LogPlace&) const = default;
  };
  struct Unread {
    KeyDigest digest;
    uint32_t variant = 0;
    uint32_t text_bytes = 0;
    uint32_t token_count = 0;
    bool truncated = false;
    Lifetime lifetime;
    LogPlace place;
  };
  // Replay: the entry comes to this slot, whoever was there goes, and so does another entry of the same key. False if
  // the slot is beyond the bounds, or it cannot be held: then those go all the same, or a start would bring back what
  // the newer entry had replaced. Nobody else is evicted for it before FinishReplay.
  bool PutUnreadLocked(uint32_t slot, const Unread& entry) SUTRA_REQUIRES(mutex_);
  // Of an entry that comes soon.
  void Prefetch(uint32_t slot, uint64_t digest_low) const {
    __builtin_prefetch(&cells_[HomeOf(TagOf(digest_low & limits_.hash_mask))]);
    if (slot < slots_max_) __builtin_prefetch(&slots_[slot]);
  }
  // Where the slot's entry is to be read; nothing if it is in memory, or there is none.
  std::optional<LogPlace> UnreadPlaceLocked(uint32_t slot) const SUTRA_REQUIRES(mutex_);
  // An unread entry comes to memory. False if it is not the one that the slot says, or there is no room for its text.
  // `text`: as for PutLocked.
  bool FillLocked(uint32_t slot, const EntryKey& key, std::span<const std::byte> vector, float norm,
                  LongText::Ptr* text) SUTRA_REQUIRES(mutex_);
  void ClearLocked(uint32_t slot) SUTRA_REQUIRES(mutex_);
  bool EraseDigestLocked(const KeyDigest& digest, uint32_t variant) SUTRA_REQUIRES(mutex_);
  uint64_t DropAll();
  // Ends the replay: the bounds hold again, and the slots that it left free may be used.
  void FinishReplay();

  // Visits entries whose segment is at most `through` (and not 0), from slot *cursor on, under the mutex: `visit` sets
  // the segment that holds the entry from now on, or returns false to stop before it. Stops before an unread entry,
  // too, and then *unread is its slot. Returns true when all were visited.
  bool VisitOlder(uint64_t through, uint64_t* cursor, const std::function<bool(const EntryView&, uint64_t*)>& visit,
                  uint32_t* unread);
  // The first unread entry of a segment up to `through` from slot *cursor on; kNoSlot if there is none.
  uint32_t NextUnread(uint64_t* cursor, uint64_t through = UINT64_MAX) const;
  // Makes every logged entry in memory count as held by segment `number` at the latest, so that it is appended again
  // when that segment is removed. Called after the loss of records that were to hold entries.
  void HoldBy(uint64_t number);
  // Evicts every entry whose segment is at most `through` (and not 0); `evicted` is told of each slot, under the mutex.
  uint64_t EvictOlder(uint64_t through, const std::function<void(uint32_t)>& evicted = {});
  // Visits the entries of up to `count` slots from *cursor on, under the mutex. True when there are no more slots.
  bool VisitFacts(uint64_t* cursor, uint64_t count, const std::function<void(const EntryFacts&)>& visit) const;
  // Whether the slot has the entry that a walk has seen there.
  bool IsSameLocked(uint32_t slot, uint32_t birth) const SUTRA_REQUIRES(mutex_) {
    return slot < fresh_ && IsUsed(slot) && BirthOf(slots_[slot]) == birth;
  }
  // A reference to the text of the entry of this hash, if it is long, in memory and still there; else null.
  LongText::Ptr LongTextOf(uint32_t slot, uint64_t hash) const;
  // Whether the slot's entry has this very copy of a text, to which the caller has a reference.
  bool HasTextLocked(uint32_t slot, LongText* text) const SUTRA_REQUIRES(mutex_) {
    return slot < fresh_ && IsUsed(slot) && slots_[slot].text.load(kRelaxed) == LongText::WordOf(text);
  }
  EntryFacts FactsLocked(uint32_t slot) const SUTRA_REQUIRES(mutex_);
  // The slot of an entry with this hash for which `is` holds; kNoSlot if there is none.
  uint32_t SlotWhereLocked(uint64_t hash, const std::function<bool(const EntryFacts&)>& is) const
      SUTRA_REQUIRES(mutex_);
  // Of an entry in memory whose text is not long, and of an unread one.
  KeyDigest DigestLocked(uint32_t slot) const SUTRA_REQUIRES(mutex_);
  uint32_t VariantLocked(uint32_t slot) const SUTRA_REQUIRES(mutex_) { return slots_[slot].variant.load(kRelaxed); }
  // The slot of this key, unread or not; kNoSlot if it is not there. A long text's bytes are left to the caller to
  // compare.
  uint32_t FindSlot(const EntryKey& key) const;
  // Copies the entry of this slot; false if there is none, or it is unread, or it leaves meanwhile. Throws
  // std::bad_alloc.
  bool CopyEntry(uint32_t slot, EntryCopy* copy) const;

  // All entries that are there now are to go: they count as none for the log from now on, and ClearDoomed takes them
  // out. REQUIRES: it has done so since the last call.
  void DoomAllLocked() SUTRA_REQUIRES(mutex_) { generation_ ^= 1; }
  // Takes out what is doomed, up to `count` slots from *cursor on; true when there are no more slots. *removed and
  // *bytes grow by what went.
  bool ClearDoomed(uint64_t* cursor, uint64_t count, uint64_t* removed, uint64_t* bytes);

  // What eviction knows of a slot's entry, and eight bits of its hash, to tell whether it is the same one later.
  struct Heat {
    uint8_t state = 0, tag = 0;
  };
  // Of the slots from `first` on. Takes no lock: a slot that changes meanwhile is copied as it was or as it will be.
  void CopyHeat(uint64_t first, std::span<Heat> heat) const;
  void RestoreHeat(uint64_t first, std::span<const Heat> heat);

  // Slots in use, and free ones below the highest in use: what a sweep has to look at.
  uint64_t slots_used() const {
    const MutexLock lock(mutex_);
    return fresh_;
  }
  // Takes expired entries out, among `count` slots from where the last sweep ended.
  void Sweep(uint64_t count, uint64_t now_ns);

  struct Counts {
    uint64_t entries = 0, bytes = 0, evictions = 0, expirations = 0;
    uint64_t unread = 0;  // of `entries`
  };
  Counts GetCounts() const;

 private:
  struct Slot {
    std::atomic<uint32_t> version{0};  // odd: being written
    std::atomic<uint32_t> text_bytes{0};
    std::atomic<uint64_t> hash{0};
    std::atomic<uint64_t> expires_ns{0};
    std::atomic<uint64_t> text{0};  // a block of the text heap, or a LongText if it is long; unread: digest.high
    uint32_t segment = 0;           // of writers only, like the next two
    uint32_t ttl_s : 31 = 0;        // what it was given in all
    uint32_t generation : 1 = 0;    // another one than the table's: everything was dropped since
    std::atomic<uint32_t> variant{0};
    std::atomic<uint32_t> tokens{0};  // the count, behind kTruncated and kUnread
    std::atomic<uint32_t> norm{0};    // the bits of a float; unread: LogPlace::offset
    EvictionQueues::Node queue;       // `older` of a free slot: the next free one
  };
  // While it lives, whoever reads the slot without the lock finds its version odd, and another one afterwards.
  class Change {
   public:
    explicit Change(Slot* slot) : version_(slot->version), before_(version_.load(kRelaxed)) {
      version_.store(before_ + 1, kRelaxed);
      std::atomic_thread_fence(std::memory_order_release);  // odd before anything else changes
    }
    ~Change() { version_.store(before_ + 2, std::memory_order_release); }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    std::atomic<uint32_t>& version_;
    const uint32_t before_;
  };
  enum class Found { kHit, kExpired, kOther, kTorn, kUnread };
  enum class Answer { kHit, kMiss, kTorn, kUnread };
  // Of Slot::tokens.
  static constexpr uint32_t kTruncated = 1, kUnread = 2, kTokensShift = 2;
  static constexpr uint64_t kSlotBytes = 64;
  static constexpr uint64_t kCellBytes = 8;
  // What an entry takes beyond vector and text: its slot, 5/4 cells, and a ghost.
  static constexpr uint64_t kEntryOverheadBytes = kSlotBytes + kCellBytes * 5 / 4 + 2;
  static constexpr uint64_t kLongTextOverheadBytes = sizeof(LongText) + 16;

  static constexpr uint32_t PackTokens(uint32_t count, bool truncated) {
    return std::min(count, UINT32_MAX >> kTokensShift) << kTokensShift | (truncated ? kTruncated : 0);
  }
  static uint32_t TagOf(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  static bool IsLong(uint64_t text_bytes) { return text_bytes > kLongTextBytes; }
  uint64_t BytesOf(uint64_t text_bytes) const {
    return kEntryOverheadBytes + vector_bytes_ +
           (IsLong(text_bytes) ? text_bytes + kLongTextOverheadBytes
                               : TextHeap::BytesOf(text_bytes) + TextHeap::kSlackBytes);
  }
  GuardedWord* VectorOf(uint32_t slot) const { return vectors_ + slot * (vector_bytes_ / sizeof(GuardedWord)); }
  std::string_view TextOf(const Slot& slot) const;
  // Of entries that are not there at the same time: the moment of expiry is as good as that of the insert, and does not
  // change when an entry is read.
  static uint32_t BirthOf(const Slot& slot) {
    const uint64_t mixed = (slot.expires_ns.load(kRelaxed) ^ slot.hash.load(kRelaxed)) * 0x9e3779b97f4a7c15;
    return static_cast<uint32_t>(mixed >> 32);
  }
  static uint32_t HandleTagOf(const Slot& slot) { return static_cast<uint32_t>(slot.hash.load(kRelaxed)); }
  bool IsDoomed(const Slot& slot) const SUTRA_REQUIRES(mutex_) { return slot.generation != generation_; }

  static bool IsUnread(const Slot& slot) { return (slot.tokens.load(kRelaxed) & kUnread) != 0; }

  // Lookups (slot_lookup.cc). *slot: of an unread entry.
  Answer FindPatiently(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value, uint32_t* slot);
  Answer Find(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value, uint32_t* slot);
  Found Read(uint32_t slot, const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value);
  std::optional<bool> EqualLongText(uint32_t slot, uint32_t version, const EntryKey& key);

  // Cells: open addressing by the upper half of the hash.
  uint64_t HomeOf(uint32_t tag) const { return (tag * cell_count_) >> 32; }
  uint64_t NextCell(uint64_t cell) const { return cell + 1 == cell_count_ ? 0 : cell + 1; }
  uint64_t DistanceOf(uint64_t from, uint64_t to) const { return to >= from ? to - from : to + cell_count_ - from; }
  void AddCell(uint32_t slot) SUTRA_REQUIRES(mutex_);
  void RemoveCell(uint32_t slot) SUTRA_REQUIRES(mutex_);
  // The slot of a key that `is` it, among those with this hash.
  template <typename Is>
  uint32_t SlotWhere(uint64_t hash, Is is) const SUTRA_REQUIRES(mutex_) {
    for (uint64_t at = HomeOf(TagOf(hash));; at = NextCell(at)) {
      const uint64_t cell = cells_[at].load(kRelaxed);
      if (cell == 0) return kNoSlot;
      const uint32_t slot = static_cast<uint32_t>(cell) - 1;
      if (cell >> 32 == TagOf(hash) && slots_[slot].hash.load(kRelaxed) == hash && is(slots_[slot])) return slot;
    }
  }
  uint32_t SlotOf(const EntryKey& key) const SUTRA_REQUIRES(mutex_);
  uint32_t SlotOfDigest(const KeyDigest& digest, uint32_t variant) const SUTRA_REQUIRES(mutex_);

  // Slots.
  uint32_t TakeFree() SUTRA_REQUIRES(mutex_);
  void GiveFree(uint32_t slot) SUTRA_REQUIRES(mutex_);
  // False if there is nobody.
  bool EvictOne(uint64_t now_ns) SUTRA_REQUIRES(mutex_);
  // Makes room and copies the text; *place is for `text` of a slot. False if there is no memory for it.
  bool AddText(std::string_view text, uint64_t now_ns, LongText::Ptr* copy, uint64_t* place, uint32_t* vacated)
      SUTRA_REQUIRES(mutex_);
  // Copies the text without making room.
  bool CopyText(std::string_view text, LongText::Ptr* copy, uint64_t* place) SUTRA_REQUIRES(mutex_);
  void Add(uint32_t slot, const EntryKey& key, uint64_t text, std::span<const std::byte> vector,
           const CacheValue& value, const Lifetime& lifetime) SUTRA_REQUIRES(mutex_);
  // A slot whose fields are set is an entry from now on.
  void Enter(uint32_t slot, uint64_t text_bytes, uint32_t tokens) SUTRA_REQUIRES(mutex_);
  void Write(uint32_t slot, std::span<const std::byte> vector, const CacheValue& value, const Lifetime& lifetime)
      SUTRA_REQUIRES(mutex_);
  void ShowCounts() SUTRA_REQUIRES(mutex_);
  // The entry leaves; its slot is neither used nor free.
  void Remove(uint32_t slot) SUTRA_REQUIRES(mutex_);
  static uint8_t HeatTagOf(const Slot& slot) { return static_cast<uint8_t>(slot.hash.load(kRelaxed)); }
  bool IsUsed(uint32_t slot) const { return slots_[slot].expires_ns.load(kRelaxed) != 0; }

  const Limits limits_;
  const uint64_t vector_bytes_;  // with padding
  const uint64_t slots_max_;
  const uint64_t cell_count_;
  uint64_t seed_;
  const ReservedMemory cell_memory_, slot_memory_, vector_memory_;
  GuardedWord* const cells_;  // tag, the upper half of the hash, and slot + 1; 0: empty
  Slot* const slots_;
  GuardedWord* const vectors_;
  TextHeap heap_;                   // changed under the mutex, read by anyone
  std::atomic<uint64_t> moves_{0};  // odd while cells move

  mutable Mutex mutex_;
  EvictionQueues eviction_;  // Hit by anyone, the rest under the mutex
  // The sum of BytesOf over the entries: the same in a replay, whatever blocks their texts get there.
  uint64_t bytes_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint32_t free_ SUTRA_GUARDED_BY(mutex_) = kNoSlot;  // the slot freed last
  // Left free by the replay, and used last: if it judged by a wrong clock what has expired, the next one, by the right
  // clock, finds it again as long as nobody came to its place.
  uint32_t left_free_ SUTRA_GUARDED_BY(mutex_) = kNoSlot;
  uint32_t fresh_ SUTRA_GUARDED_BY(mutex_) = 0;       // slots from here on were never used
  uint32_t sweep_ SUTRA_GUARDED_BY(mutex_) = 0;       // where the next sweep begins
  uint32_t generation_ SUTRA_GUARDED_BY(mutex_) = 0;  // of entries that are not doomed; 0 or 1
  bool replaying_ SUTRA_GUARDED_BY(mutex_) = false;   // the free slots are not in a list yet
  struct {
    std::atomic<uint64_t> entries{0}, bytes{0}, evictions{0}, expirations{0}, unread{0};
  } counts_;  // relaxed: written under the mutex, shown without it
};

}  // namespace sutra
