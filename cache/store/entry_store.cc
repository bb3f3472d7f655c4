// The layout of an entry and of a stripe (table, CLOCK ring, slots), then the store's calls over the stripes.
#include "cache/store/entry_store.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "cache/store/slot_pool.h"
#include "shm/base/clock.h"
#include "shm/base/random.h"

namespace sutra {
namespace {

constexpr size_t kStripesMax = 16;
constexpr uint64_t kStripeEntriesMin = 4096;  // with fewer entries per stripe, shares of the bound would be uneven
constexpr uint64_t kStripeBytesMin = 16ull << 20;
constexpr uint64_t kEntryOverheadBytes = 64;  // table slot and ring position, with spare capacity
constexpr uint64_t kLongTextOverheadBytes = 16;
constexpr uint64_t kVisitStep = 4096;  // ring positions examined under one lock
constexpr uint64_t kVisitsMax = 32;    // entries visited under one lock
constexpr size_t kTableSlotsMin = 64;
constexpr size_t kFewEntriesShare = 16;  // fewer than one for this many places of the table
constexpr uint64_t kNoPosition = UINT64_MAX;
constexpr size_t kCacheLine = SlotPool::kSlotAlign;
constexpr size_t kPrefetchLines = 8;
constexpr size_t kEntryBytes = 256;
constexpr size_t kShortTextBytes = kEntryBytes - 50;

}  // namespace

// The bytes follow it. Whoever compares them without the lock has a reference.
class EntryStore::TextBlock {
 public:
  // Throws std::bad_alloc.
  static TextBlockPtr Copy(std::string_view text) {
    void* memory = ::operator new(sizeof(TextBlock) + text.size());
    TextBlockPtr block(new (memory) TextBlock);
    std::memcpy(block->bytes(), text.data(), text.size());
    return block;
  }
  char* bytes() { return static_cast<char*>(static_cast<void*>(this + 1)); }
  TextBlockPtr AddReference() {
    references_.fetch_add(1, std::memory_order_relaxed);  // relaxed: the caller's lock keeps one meanwhile
    return TextBlockPtr(this);
  }
  void Release() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // the last one frees what others have read
    this->~TextBlock();
    ::operator delete(this);
  }

  TextBlock* next_removed = nullptr;

 private:
  std::atomic<uint32_t> references_{1};
};

void EntryStore::TextBlockRelease::operator()(TextBlock* block) const { block->Release(); }

// A slot: this header, room for a short text, the vector. Longer texts have a block of their own.
struct alignas(kCacheLine) EntryStore::Entry {
  uint64_t hash_high = 0;
  uint64_t expires_ns = 0;
  TextBlock* long_text = nullptr;
  uint32_t text_bytes = 0;
  uint32_t variant = 0;
  uint32_t token_count = 0;
  float norm = 0;
  uint32_t ring_position = 0;
  bool truncated = false;
  bool referenced = false;
  char short_text[kShortTextBytes];

  float* vector() { return static_cast<float*>(static_cast<void*>(this + 1)); }
  char* text() { return long_text != nullptr ? long_text->bytes() : short_text; }
};

struct EntryStore::Stripe {
  struct Slot {
    uint64_t hash = 0;
    Entry* entry = nullptr;
  };

  Stripe(uint64_t entries, uint64_t bytes, uint64_t entry_bytes)
      : entries_max(entries), bytes_max(bytes), slots(entry_bytes), slot_bytes(slots.slot_bytes()) {}

  Mutex mutex;
  const uint64_t entries_max;
  const uint64_t bytes_max;
  SlotPool slots SUTRA_GUARDED_BY(mutex);
  const uint64_t slot_bytes;
  // Open addressing, a power of two, at most 2/3 full.
  std::vector<Slot> table SUTRA_GUARDED_BY(mutex) = std::vector<Slot>(kTableSlotsMin);
  std::vector<Entry*> ring SUTRA_GUARDED_BY(mutex);
  // Stored next to the ring, so that a search by segment touches no entry.
  std::vector<uint64_t> ring_segment SUTRA_GUARDED_BY(mutex);
  std::vector<uint64_t> ring_hash SUTRA_GUARDED_BY(mutex);  // the low half of the placement hash
  // The free positions, chained through ring_hash: no removal needs memory.
  std::atomic<TextBlock*> removed_texts{nullptr};  // a stack: pushed to under the lock, taken and freed without it
  uint64_t ring_free SUTRA_GUARDED_BY(mutex) = kNoPosition;
  size_t hand SUTRA_GUARDED_BY(mutex) = 0;
  Counts counts SUTRA_GUARDED_BY(mutex);
  Counts shown;  // of whoever calls GetCounts: `counts` as it last had the lock

  // The store's ...Locked calls require this lock as MutexOf(key); clang cannot see that the two are the same.
  void AssertHeld() SUTRA_ASSERT_CAPABILITY(mutex) { assert(!mutex.TryLock()); }

  uint64_t CostOf(uint64_t text_bytes) const {
    return slot_bytes + (text_bytes > kShortTextBytes ? text_bytes + kLongTextOverheadBytes : 0) + kEntryOverheadBytes;
  }

  // As Find, before the text is compared. A long one that has the hash, the variant and the length.
  TextBlockPtr FindLikely(const EntryKey& key) SUTRA_REQUIRES(mutex) {
    const size_t mask = table.size() - 1;
    for (size_t i = key.low & mask; table[i].entry != nullptr; i = (i + 1) & mask) {
      const Entry& entry = *table[i].entry;
      if (table[i].hash == key.low && entry.hash_high == key.high && entry.variant == key.variant &&
          entry.text_bytes == key.text.size()) {
        return entry.long_text->AddReference();
      }
    }
    return nullptr;
  }

  Slot* Find(const EntryKey& key) SUTRA_REQUIRES(mutex) {
    const size_t mask = table.size() - 1;
    for (size_t i = key.low & mask;; i = (i + 1) & mask) {
      Slot& slot = table[i];
      if (slot.entry == nullptr) return nullptr;
      if (slot.hash != key.low) continue;
      Entry& entry = *slot.entry;
      // The vector is read next; its lines arrive while the text is compared.
      for (size_t line = 0; line < kPrefetchLines; ++line) {
        __builtin_prefetch(static_cast<const char*>(static_cast<const void*>(entry.vector())) + line * kCacheLine);
      }
      if (entry.hash_high == key.high && entry.variant == key.variant && entry.text_bytes == key.text.size() &&
          (entry.text() == key.text.data() ||  // pinned, or the entry's own
           std::memcmp(entry.text(), key.text.data(), key.text.size()) == 0)) {
        return &slot;
      }
    }
  }

  void Rehash(size_t size) SUTRA_REQUIRES(mutex) {
    std::vector<Slot> old(size);
    old.swap(table);
    for (const Slot& slot : old) {
      if (slot.entry != nullptr) Place(slot);
    }
  }

  void Place(const Slot& slot) SUTRA_REQUIRES(mutex) {
    const size_t mask = table.size() - 1;
    size_t i = slot.hash & mask;
    while (table[i].entry != nullptr) i = (i + 1) & mask;
    table[i] = slot;
  }

  // A search starts at its hash's home place and ends at the first empty one, so the place that becomes empty here must
  // not cut an entry off from its home. Later entries of the run move back into the gap, each at most to its own home,
  // and the entries behind them fill the gap that they leave. No tombstones pile up. Homes in brackets, x is removed:
  //
  //   place    3      4      5      6      7      8
  //   before   A(3)   x(3)   B(5)   C(3)   D(6)   -
  //   after    A(3)   C(3)   B(5)   D(6)   -      -      B was at home and stayed; C and D moved
  //
  // The entry at i may move to the gap unless its home lies between the two: its distance from home must not be the
  // shorter one.
  void RemoveSlot(Slot* slot) SUTRA_REQUIRES(mutex) {
    const size_t mask = table.size() - 1;  // distances below wrap around the end of the table
    size_t gap = static_cast<size_t>(slot - table.data());
    for (size_t i = (gap + 1) & mask; table[i].entry != nullptr; i = (i + 1) & mask) {
      const size_t home = table[i].hash & mask;
      if (((i - home) & mask) >= ((i - gap) & mask)) {
        table[gap] = table[i];
        gap = i;
      }
    }
    table[gap] = Slot{};
  }

  void Remove(Slot* slot) SUTRA_REQUIRES(mutex) {
    Entry* entry = slot->entry;
    assert(ring[entry->ring_position] == entry);
    assert(counts.entries > 0 && counts.bytes >= CostOf(entry->text_bytes));
    ring[entry->ring_position] = nullptr;
    ring_segment[entry->ring_position] = 0;
    ring_hash[entry->ring_position] = ring_free;
    ring_free = entry->ring_position;
    --counts.entries;
    counts.bytes -= CostOf(entry->text_bytes);
    RemoveSlot(slot);
    if (entry->text_bytes > kLongTextBytes) {
      TextBlock* block = entry->long_text;
      block->next_removed = removed_texts.load(std::memory_order_relaxed);  // relaxed: the exchange below publishes
      while (!removed_texts.compare_exchange_weak(block->next_removed, block, std::memory_order_release,
                                                  std::memory_order_relaxed)) {
      }
    } else if (entry->long_text != nullptr) {
      entry->long_text->Release();
    }
    slots.Give(entry);
  }

  void RemoveEntry(Entry* entry) SUTRA_REQUIRES(mutex) {
    Slot* slot = Find(EntryKey{ring_hash[entry->ring_position], entry->hash_high, entry->variant,
                               std::string_view(entry->text(), entry->text_bytes)});
    assert(slot != nullptr && slot->entry == entry);
    Remove(slot);
  }

  // Evicts until `bytes` more and one entry more fit.
  void MakeRoom(uint64_t bytes, uint64_t now_ns) SUTRA_REQUIRES(mutex) {
    while (counts.entries + 1 > entries_max || counts.bytes + bytes > bytes_max) {
      assert(counts.entries > 0);  // CanHold: it fits once no others are left
      Entry* entry = ring[hand];
      hand = hand + 1 == ring.size() ? 0 : hand + 1;
      if (entry == nullptr) continue;
      const bool expired = entry->expires_ns <= now_ns;
      if (entry->referenced && !expired) {
        entry->referenced = false;
        continue;
      }
      ++(expired ? counts.expirations : counts.evictions);
      RemoveEntry(entry);
    }
  }

  // Makes sure that one more entry needs no memory but its own. Throws std::bad_alloc, and has then changed nothing.
  void PrepareForOneMore() SUTRA_REQUIRES(mutex) {
    if (3 * (counts.entries + 1) > 2 * table.size()) Rehash(table.size() * 2);
    if (ring_free != kNoPosition || ring.size() < ring.capacity()) return;
    const size_t more = std::max<size_t>(2 * ring.size(), kTableSlotsMin);
    ring_segment.reserve(more);
    ring_hash.reserve(more);
    ring.reserve(more);  // the last one, because its capacity stands for all three
  }

  uint32_t TakeRingPosition() SUTRA_REQUIRES(mutex) {
    if (ring_free != kNoPosition) {
      const uint64_t position = ring_free;
      ring_free = ring_hash[position];
      return static_cast<uint32_t>(position);
    }
    assert(ring.size() < std::min({ring.capacity(), ring_segment.capacity(), ring_hash.capacity()}));
    ring.push_back(nullptr);
    ring_segment.push_back(0);
    ring_hash.push_back(0);
    return static_cast<uint32_t>(ring.size() - 1);
  }
};

EntryStore::EntryStore(const Limits& limits) : limits_(limits), seed_(RandomSeed()) {
  static_assert(sizeof(Entry) == kEntryBytes);  // padding does not cost a cache line
  size_t count = kStripesMax;
  while (count > 1 && (limits.entries_max / count < kStripeEntriesMin || limits.bytes_max / count < kStripeBytesMin)) {
    count /= 2;
  }
  stripe_mask_ = count - 1;
  for (size_t i = 0; i < count; ++i) {
    stripes_.push_back(std::make_unique<Stripe>(limits.entries_max / count, limits.bytes_max / count,
                                                sizeof(Entry) + uint64_t{limits.width} * sizeof(float)));
  }
}

EntryStore::~EntryStore() { DropAll(); }

EntryKey EntryStore::KeyOf(std::string_view text, uint32_t variant) const {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(text.data(), text.size(), seed_ ^ variant);
  return EntryKey{hash.low64 & limits_.hash_mask, hash.high64 & limits_.hash_mask, variant, text};
}

Mutex& EntryStore::MutexOf(const EntryKey& key) const { return StripeOf(key).mutex; }

EntryStore::TextBlockPtr EntryStore::Pin(EntryKey* key) const {
  if (key->text.size() <= kLongTextBytes) return nullptr;
  Stripe& stripe = StripeOf(*key);
  TextBlockPtr likely;
  {
    const MutexLock lock(stripe.mutex);
    likely = stripe.FindLikely(*key);
  }
  if (likely == nullptr || std::memcmp(likely->bytes(), key->text.data(), key->text.size()) != 0) return nullptr;
  key->text = std::string_view(likely->bytes(), key->text.size());
  return likely;
}

EntryStore::TextBlockPtr EntryStore::CopyLongText(const EntryKey& key) {
  return key.text.size() > kLongTextBytes ? TextBlock::Copy(key.text) : nullptr;
}

void EntryStore::FreeRemovedOf(Stripe* stripe) {
  if (stripe->removed_texts.load(std::memory_order_relaxed) == nullptr) return;  // relaxed: whoever removed comes here
  TextBlock* removed = stripe->removed_texts.exchange(nullptr, std::memory_order_acquire);
  while (removed != nullptr) std::exchange(removed, removed->next_removed)->Release();
}

bool EntryStore::Lookup(const EntryKey& key, Clock* clock, float* vector, CacheValue* value) {
  Stripe& stripe = StripeOf(key);
  MutexLock lock(stripe.mutex);
  return LookupIn(&stripe, key, clock, vector, value);
}

std::optional<bool> EntryStore::TryLookup(const EntryKey& key, Clock* clock, float* vector, CacheValue* value) {
  Stripe& stripe = StripeOf(key);
  if (!stripe.mutex.TryLockBriefly()) return std::nullopt;
  const MutexLock lock(stripe.mutex, MutexLock::Held());
  return LookupIn(&stripe, key, clock, vector, value);
}

bool EntryStore::LookupIn(Stripe* stripe, const EntryKey& key, Clock* clock, float* vector, CacheValue* value) {
  stripe->AssertHeld();
  Stripe::Slot* slot = stripe->Find(key);
  if (slot == nullptr) return false;
  Entry& entry = *slot->entry;
  if (entry.expires_ns <= clock->BootNs()) {
    ++stripe->counts.expirations;
    stripe->Remove(slot);
    return false;
  }
  entry.referenced = true;
  std::memcpy(vector, entry.vector(), limits_.width * sizeof(float));
  *value = CacheValue{entry.norm, entry.token_count, entry.truncated};
  return true;
}

bool EntryStore::CanHold(size_t text_bytes) const {
  return text_bytes <= UINT32_MAX && stripes_[0]->CostOf(text_bytes) <= stripes_[0]->bytes_max &&
         stripes_[0]->entries_max > 0;
}

bool EntryStore::InsertLocked(const EntryKey& key, std::span<const float> vector, const CacheValue& value,
                              uint64_t expires_ns, uint64_t now_ns, uint64_t segment, TextBlockPtr* text) {
  return InsertLocked(key, std::as_bytes(vector), value, expires_ns, now_ns, segment, text);
}

bool EntryStore::InsertLocked(const EntryKey& key, std::span<const std::byte> vector, const CacheValue& value,
                              uint64_t expires_ns, uint64_t now_ns, uint64_t segment, TextBlockPtr* text) {
  Stripe& stripe = StripeOf(key);
  stripe.AssertHeld();
  Entry* entry;
  if (Stripe::Slot* slot = stripe.Find(key); slot != nullptr) {
    entry = slot->entry;
  } else {
    if (!CanHold(key.text.size())) return false;
    const uint64_t cost = stripe.CostOf(key.text.size());
    stripe.MakeRoom(cost, now_ns);
    TextBlockPtr long_text = text != nullptr ? std::move(*text) : nullptr;
    void* memory = nullptr;
    try {
      stripe.PrepareForOneMore();
      if (key.text.size() > kShortTextBytes && long_text == nullptr) long_text = TextBlock::Copy(key.text);
      memory = stripe.slots.Take();
    } catch (const std::bad_alloc&) {
      return false;
    }
    entry = new (memory) Entry;
    entry->long_text = long_text.release();
    entry->hash_high = key.high;
    entry->variant = key.variant;
    entry->text_bytes = static_cast<uint32_t>(key.text.size());
    if (entry->long_text == nullptr) std::memcpy(entry->short_text, key.text.data(), key.text.size());
    entry->ring_position = stripe.TakeRingPosition();
    stripe.ring[entry->ring_position] = entry;
    stripe.ring_hash[entry->ring_position] = key.low;
    ++stripe.counts.entries;
    stripe.counts.bytes += cost;
    stripe.Place(Stripe::Slot{key.low, entry});
    assert(stripe.counts.entries <= stripe.entries_max && stripe.counts.bytes <= stripe.bytes_max);
    assert(3 * stripe.counts.entries <= 2 * stripe.table.size());  // otherwise a search might not end
  }
  // Without a record of its own the entry still needs the older record, which must not be removed with its segment.
  if (segment != 0) stripe.ring_segment[entry->ring_position] = segment;
  entry->expires_ns = expires_ns;
  entry->token_count = value.token_count;
  entry->norm = value.norm;
  entry->truncated = value.truncated;
  assert(vector.size() == limits_.width * sizeof(float));
  std::memcpy(entry->vector(), vector.data(), vector.size());
  return true;
}

bool EntryStore::EraseLocked(const EntryKey& key) {
  Stripe& stripe = StripeOf(key);
  stripe.AssertHeld();
  Stripe::Slot* slot = stripe.Find(key);
  if (slot == nullptr) return false;
  stripe.Remove(slot);
  return true;
}

uint64_t EntryStore::DropAll() {
  uint64_t dropped = 0;
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    dropped += stripe->counts.entries;
    // Recovery drops everything at each damaged place: with few entries, that must not cost a walk over a large table.
    if (stripe->counts.entries < stripe->table.size() / kFewEntriesShare) {
      for (Entry* entry : stripe->ring) {
        if (entry != nullptr) stripe->RemoveEntry(entry);
      }
    } else {
      for (Entry* entry : stripe->ring) {
        if (entry != nullptr && entry->long_text != nullptr) entry->long_text->Release();
      }
      stripe->slots.Clear();
      stripe->counts.entries = stripe->counts.bytes = 0;
      stripe->table.assign(stripe->table.size(), Stripe::Slot{});
    }
    stripe->ring.clear();
    stripe->ring_segment.clear();
    stripe->ring_hash.clear();
    stripe->ring_free = kNoPosition;
    stripe->hand = 0;
    FreeRemovedOf(stripe.get());
  }
  return dropped;
}

void EntryStore::Reserve(uint64_t entries) {
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    const uint64_t share = std::min(stripe->entries_max, entries / stripes_.size() * 9 / 8 + 16);
    size_t size = stripe->table.size();
    while (2 * size < 3 * share) size *= 2;
    if (size > stripe->table.size()) stripe->Rehash(size);
    stripe->ring_segment.reserve(share);
    stripe->ring_hash.reserve(share);
    stripe->ring.reserve(share);
  }
}

bool EntryStore::VisitOlder(uint64_t through, Cursor* cursor,
                            const std::function<bool(const EntryView&, uint64_t*)>& visit) {
  while (cursor->stripe < stripes_.size()) {
    Stripe& stripe = *stripes_[cursor->stripe];
    MutexLock lock(stripe.mutex);
    for (uint64_t step = 0; step < kVisitStep && cursor->position < stripe.ring.size(); ++step, ++cursor->position) {
      uint64_t& segment = stripe.ring_segment[cursor->position];
      if (segment == 0 || segment > through) continue;
      Entry& entry = *stripe.ring[cursor->position];
      const EntryView view{{entry.text(), entry.text_bytes},
                           entry.variant,
                           {entry.vector(), limits_.width},
                           {entry.norm, entry.token_count, entry.truncated},
                           entry.expires_ns};
      if (!visit(view, &segment)) return false;
      assert(segment == 0 || segment > through);  // otherwise it would be visited forever
      step += kVisitStep / kVisitsMax;
    }
    if (cursor->position >= stripe.ring.size()) *cursor = Cursor{cursor->stripe + 1, 0};
  }
  return true;
}

void EntryStore::HoldBy(uint64_t number) {
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    for (uint64_t& segment : stripe->ring_segment) segment = std::min(segment, number);
  }
}

uint64_t EntryStore::EvictOlder(uint64_t through) {
  uint64_t evicted = 0;
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    for (size_t i = 0; i < stripe->ring.size(); ++i) {
      if (stripe->ring_segment[i] == 0 || stripe->ring_segment[i] > through) continue;
      stripe->RemoveEntry(stripe->ring[i]);
      ++evicted;
      ++stripe->counts.evictions;
    }
    lock.Unlock();
    FreeRemovedOf(stripe.get());
  }
  return evicted;
}

EntryStore::Counts EntryStore::GetCounts() const {
  Counts sum;
  const MutexLock one_reader(counts_mutex_);
  for (const auto& stripe : stripes_) {
    // Gauges are shown by a thread that does not wait: where another has the lock for long, the last numbers stand.
    if (stripe->mutex.TryLockBriefly()) {
      stripe->shown = stripe->counts;
      stripe->mutex.Unlock();
    }
    sum.entries += stripe->shown.entries;
    sum.bytes += stripe->shown.bytes;
    sum.evictions += stripe->shown.evictions;
    sum.expirations += stripe->shown.expirations;
  }
  return sum;
}

}  // namespace sutra
