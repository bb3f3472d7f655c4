// The store's calls over the stripes.
#include "cache/store/entry_store.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <new>
#include <utility>

#include "cache/store/entry_stripe.h"
#include "shm/base/clock.h"
#include "shm/base/random.h"

namespace sutra {
namespace {

constexpr size_t kStripesMax = 16;
constexpr uint64_t kStripeEntriesMin = 4096;  // with fewer entries per stripe, shares of the bound would be uneven
constexpr uint64_t kStripeBytesMin = 16ull << 20;
constexpr uint64_t kVisitStep = 4096;  // slots examined under one lock
constexpr uint64_t kVisitsMax = 32;    // entries visited under one lock

}  // namespace

void EntryStore::TextBlockRelease::operator()(TextBlock* block) const { block->Release(); }

EntryStore::EntryStore(const Limits& limits) : limits_(limits), seed_(RandomSeed()) {
  static_assert(sizeof(Entry) == Entry::kBytes);  // padding does not cost a cache line
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
  Stripe::Cell* cell = stripe->Find(key);
  if (cell == nullptr) return false;
  Entry& entry = *cell->entry;
  if (entry.expires_ns <= clock->BootNs()) {
    ++stripe->counts.expirations;
    stripe->Remove(cell);
    return false;
  }
  stripe->eviction.Hit(entry.slot, entry.token_count);
  std::memcpy(vector, entry.vector(), limits_.width * sizeof(float));
  *value = CacheValue{entry.norm, entry.token_count, entry.truncated};
  return true;
}

bool EntryStore::CanHold(size_t text_bytes) const {
  return text_bytes <= UINT32_MAX && stripes_[0]->BytesOf(text_bytes) <= stripes_[0]->bytes_max &&
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
  Stripe::Cell* cell = stripe.Find(key);
  Entry* entry = cell != nullptr ? cell->entry : nullptr;
  if (entry == nullptr) {
    if (!CanHold(key.text.size())) return false;
    stripe.MakeRoom(stripe.BytesOf(key.text.size()), now_ns);
    TextBlockPtr long_text = text != nullptr ? std::move(*text) : nullptr;
    void* memory = nullptr;
    try {
      stripe.PrepareForOneMore();
      if (key.text.size() > Entry::kShortTextBytes && long_text == nullptr) long_text = TextBlock::Copy(key.text);
      memory = stripe.memory.Take();
    } catch (const std::bad_alloc&) {
      return false;
    }
    entry = new (memory) Entry;
    entry->long_text = long_text.release();
    entry->hash_high = key.high;
    entry->variant = key.variant;
    entry->text_bytes = static_cast<uint32_t>(key.text.size());
    entry->token_count = value.token_count;
    if (entry->long_text == nullptr) std::memcpy(entry->short_text, key.text.data(), key.text.size());
    stripe.Add(key, entry);
  }
  // Without a record of its own the entry still needs the older record, which must not be removed with its segment.
  if (segment != 0) stripe.segments[entry->slot] = segment;
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
  Stripe::Cell* cell = stripe.Find(key);
  if (cell == nullptr) return false;
  stripe.Remove(cell);
  return true;
}

uint64_t EntryStore::DropAll() {
  uint64_t dropped = 0;
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    dropped += stripe->counts.entries;
    stripe->DropAll();
    FreeRemovedOf(stripe.get());
  }
  return dropped;
}

void EntryStore::Reserve(uint64_t entries) {
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    stripe->Reserve(std::min(stripe->entries_max, entries / stripes_.size() * 9 / 8 + 16));
  }
}

bool EntryStore::VisitOlder(uint64_t through, Cursor* cursor,
                            const std::function<bool(const EntryView&, uint64_t*)>& visit) {
  while (cursor->stripe < stripes_.size()) {
    Stripe& stripe = *stripes_[cursor->stripe];
    MutexLock lock(stripe.mutex);
    for (uint64_t step = 0; step < kVisitStep && cursor->position < stripe.entries.size(); ++step, ++cursor->position) {
      uint64_t& segment = stripe.segments[cursor->position];
      if (segment == 0 || segment > through) continue;
      Entry& entry = *stripe.entries[cursor->position];
      const EntryView view{{entry.text(), entry.text_bytes},
                           entry.variant,
                           {entry.vector(), limits_.width},
                           {entry.norm, entry.token_count, entry.truncated},
                           entry.expires_ns};
      if (!visit(view, &segment)) return false;
      assert(segment == 0 || segment > through);  // otherwise it would be visited forever
      step += kVisitStep / kVisitsMax;
    }
    if (cursor->position >= stripe.entries.size()) *cursor = Cursor{cursor->stripe + 1, 0};
  }
  return true;
}

void EntryStore::HoldBy(uint64_t number) {
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    for (uint64_t& segment : stripe->segments) segment = std::min(segment, number);
  }
}

uint64_t EntryStore::EvictOlder(uint64_t through) {
  uint64_t evicted = 0;
  for (const auto& stripe : stripes_) {
    MutexLock lock(stripe->mutex);
    for (size_t i = 0; i < stripe->entries.size(); ++i) {
      if (stripe->segments[i] == 0 || stripe->segments[i] > through) continue;
      stripe->RemoveEntry(stripe->entries[i]);
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
