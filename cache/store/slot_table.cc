// How entries come and go: cells, slots, writers, replay. Lookups are in slot_lookup.cc, walks over all slots in
// slot_walk.cc.
#include "cache/store/slot_table.h"

#include <algorithm>
#include <cassert>
#include <new>

#include "shm/base/numbers.h"
#include "shm/base/random.h"

namespace sutra {
namespace {

constexpr uint64_t kVectorAlign = 64;
constexpr uint64_t kSlotsLimit = 1ull << 31;
constexpr uint64_t kTextRangeSpare = 1ull << 20;

uint64_t SlotsOf(uint64_t entries_max, uint64_t bytes_max, uint64_t bytes_of_one) {
  return std::min({entries_max, bytes_max / bytes_of_one, kSlotsLimit});
}

}  // namespace

SlotTable::SlotTable(const Limits& limits)
    : limits_(limits),
      vector_bytes_(RoundUp(uint64_t{limits.width} * sizeof(float), kVectorAlign)),
      slots_max_(SlotsOf(limits.entries_max, limits.bytes_max, BytesOf(0))),
      cell_count_(slots_max_ + slots_max_ / 4 + 2),
      seed_(RandomSeed()),
      cell_memory_(cell_count_ * sizeof(GuardedWord)),
      slot_memory_(slots_max_ * sizeof(Slot)),
      vector_memory_(slots_max_ * vector_bytes_),
      cells_(cell_memory_.as<GuardedWord>()),
      slots_(slot_memory_.as<Slot>()),
      vectors_(vector_memory_.as<GuardedWord>()),
      // More than can be in use, since slots and vectors take their part: where no hole fits, there is room at the end.
      heap_(std::min(limits.bytes_max, TextHeap::kRangeBytesMax) + kTextRangeSpare),
      eviction_(slots_max_ > 0 ? &slots_->queue : nullptr, sizeof(Slot), slots_max_) {
  static_assert(sizeof(Slot) == kSlotBytes, "a slot is one cache line; one of zeros is unused");
  static_assert(sizeof(GuardedWord) == kCellBytes);
}

SlotTable::~SlotTable() { DropAll(); }

void SlotTable::BeginReplay(uint64_t seed) {
  const MutexLock lock(mutex_);
  assert(counts_.entries.load(kRelaxed) == 0);
  seed_ = seed;
  replaying_ = true;
}

EntryKey SlotTable::KeyOf(std::string_view text, uint32_t variant) const {
  const KeyDigest digest = DigestOf(text, variant, seed_);
  return EntryKey{digest.low & limits_.hash_mask, digest, variant, text};
}

std::string_view SlotTable::TextOf(const Slot& slot) const {
  const uint64_t bytes = slot.text_bytes.load(kRelaxed), text = slot.text.load(kRelaxed);
  if (IsLong(bytes)) return LongText::FromWord(text)->view();
  return {static_cast<const char*>(static_cast<const void*>(heap_.At(text))), bytes};
}

// Cells. A search starts at its hash's home and ends at the first empty cell, so a cell that becomes empty must not cut
// an entry off from its home. Later entries of the run move back into the gap, each at most to its own home, and the
// entries behind them fill the gap that they leave. No tombstones pile up. Homes in brackets, x is removed:
//
//   cell     3      4      5      6      7      8
//   before   A(3)   x(3)   B(5)   C(3)   D(6)   -
//   after    A(3)   C(3)   B(5)   D(6)   -      -      B was at home and stayed; C and D moved

void SlotTable::AddCell(uint32_t slot) {
  const uint32_t tag = TagOf(slots_[slot].hash.load(kRelaxed));
  uint64_t at = HomeOf(tag);
  while (cells_[at].load(kRelaxed) != 0) at = NextCell(at);
  cells_[at].store(uint64_t{tag} << 32 | (slot + 1), std::memory_order_release);  // publishes the slot
}

void SlotTable::RemoveCell(uint32_t slot) {
  const uint32_t tag = TagOf(slots_[slot].hash.load(kRelaxed));
  const uint64_t cell = uint64_t{tag} << 32 | (slot + 1);
  uint64_t gap = HomeOf(tag);
  while (cells_[gap].load(kRelaxed) != cell) {
    assert(cells_[gap].load(kRelaxed) != 0);
    gap = NextCell(gap);
  }
  const uint64_t moves = moves_.load(kRelaxed);
  moves_.store(moves + 1, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);  // odd before any cell moves
  for (uint64_t at = NextCell(gap);; at = NextCell(at)) {
    const uint64_t other = cells_[at].load(kRelaxed);
    if (other == 0) break;
    const uint64_t home = HomeOf(static_cast<uint32_t>(other >> 32));
    if (DistanceOf(home, at) < DistanceOf(gap, at)) continue;  // its home lies behind the gap
    cells_[gap].store(other, std::memory_order_release);
    gap = at;
  }
  cells_[gap].store(0, kRelaxed);
  moves_.store(moves + 2, std::memory_order_release);
}

uint32_t SlotTable::SlotOf(const EntryKey& key) const {
  return SlotWhere(key.hash, [&](const Slot& slot) {
    if (slot.variant.load(kRelaxed) != key.variant) return false;
    return IsUnread(slot) ? slot.text.load(kRelaxed) == key.digest.high : TextOf(slot) == key.text;
  });
}

uint32_t SlotTable::SlotOfDigest(const KeyDigest& digest, uint32_t variant) const {
  return SlotWhere(digest.low & limits_.hash_mask, [&](const Slot& slot) {
    if (slot.variant.load(kRelaxed) != variant) return false;
    return IsUnread(slot) ? slot.text.load(kRelaxed) == digest.high : KeyOf(TextOf(slot), variant).digest == digest;
  });
}

// Slots.

uint32_t SlotTable::TakeFree() {
  if (free_ == kNoSlot && fresh_ < slots_max_) return fresh_++;
  uint32_t& list = free_ != kNoSlot ? free_ : left_free_;
  assert(list != kNoSlot);  // there are fewer entries than slots
  const uint32_t slot = list;
  list = slots_[slot].queue.older;
  return slot;
}

void SlotTable::GiveFree(uint32_t slot) {
  if (replaying_) return;
  slots_[slot].queue.older = free_;
  free_ = slot;
}

void SlotTable::ShowCounts() {
  assert(counts_.entries.load(kRelaxed) <= slots_max_ && counts_.entries.load(kRelaxed) == eviction_.entries());
  counts_.bytes.store(bytes_, kRelaxed);
}

// Readers that have found the cell see the version change, or a slot without an entry. Such a slot names no text: a
// reader that comes to it only now would take the address of a long text for one that its entry still holds.
void SlotTable::Remove(uint32_t number) {
  Slot& slot = slots_[number];
  assert(IsUsed(number));
  const uint64_t text_bytes = slot.text_bytes.load(kRelaxed), text = slot.text.load(kRelaxed);
  const bool unread = IsUnread(slot);
  {
    const Change change(&slot);
    slot.expires_ns.store(0, kRelaxed);
    slot.text_bytes.store(0, kRelaxed);
    slot.text.store(0, kRelaxed);
  }
  slot.segment = 0;
  bytes_ -= BytesOf(text_bytes);
  eviction_.Remove(number, BytesOf(text_bytes));
  RemoveCell(number);
  if (unread) {
    counts_.unread.store(counts_.unread.load(kRelaxed) - 1, kRelaxed);
  } else if (IsLong(text_bytes)) {
    LongText::Ptr(LongText::FromWord(text)).reset();
  } else {
    heap_.Free(text);
  }
  counts_.entries.store(counts_.entries.load(kRelaxed) - 1, kRelaxed);
}

bool SlotTable::EvictOne(uint64_t now_ns) {
  while (eviction_.entries() > 0) {
    const uint32_t number = eviction_.Candidate();
    const Slot& slot = slots_[number];
    const EvictionQueues::Cost cost{BytesOf(slot.text_bytes.load(kRelaxed)),
                                    slot.tokens.load(kRelaxed) >> kTokensShift};
    const bool expired = slot.expires_ns.load(kRelaxed) <= now_ns;
    if (!expired && eviction_.Spare(number, slot.hash.load(kRelaxed), cost)) continue;
    (expired ? counts_.expirations : counts_.evictions).fetch_add(1, kRelaxed);
    Remove(number);
    GiveFree(number);
    return true;
  }
  return false;
}

bool SlotTable::AddText(std::string_view text, uint64_t now_ns, LongText::Ptr* copy, uint64_t* place,
                        uint32_t* vacated) {
  const uint64_t bytes = BytesOf(text.size());
  while (counts_.entries.load(kRelaxed) + 1 > slots_max_ || bytes_ + bytes > limits_.bytes_max) {
    if (!EvictOne(now_ns)) return false;
    ++*vacated;
  }
  while (!CopyText(text, copy, place)) {
    if (IsLong(text.size()) || !EvictOne(now_ns)) return false;
    ++*vacated;
  }
  return true;
}

bool SlotTable::CopyText(std::string_view text, LongText::Ptr* copy, uint64_t* place) {
  if (!IsLong(text.size())) return (*place = heap_.Add(text)) != TextHeap::kNone;
  try {
    LongText::Ptr long_text = copy != nullptr && *copy != nullptr ? std::move(*copy) : LongText::Copy(text);
    *place = LongText::WordOf(long_text.release());
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

// Vector and value of a slot whose version is odd, or which no cell names yet.
void SlotTable::Write(uint32_t number, std::span<const std::byte> vector, const CacheValue& value,
                      const Lifetime& lifetime) {
  assert(vector.size() == limits_.width * sizeof(float));
  Slot& slot = slots_[number];
  slot.tokens.store(PackTokens(value.token_count, value.truncated), kRelaxed);
  slot.norm.store(std::bit_cast<uint32_t>(value.norm), kRelaxed);
  slot.expires_ns.store(std::max<uint64_t>(lifetime.expires_ns, 1), kRelaxed);  // 0 is nobody's
  slot.ttl_s = lifetime.ttl_s & kTtlMax;
  slot.generation = generation_ & 1;
  StoreWords(VectorOf(number), vector.data(), vector.size());
}

void SlotTable::Add(uint32_t number, const EntryKey& key, uint64_t text, std::span<const std::byte> vector,
                    const CacheValue& value, const Lifetime& lifetime) {
  Slot& slot = slots_[number];
  assert(!IsUsed(number));
  {
    const Change change(&slot);  // a reader may still look at who was here before
    slot.hash.store(key.hash, kRelaxed);
    slot.variant.store(key.variant, kRelaxed);
    slot.text_bytes.store(static_cast<uint32_t>(key.text.size()), kRelaxed);
    slot.text.store(text, kRelaxed);
    Write(number, vector, value, lifetime);
  }
  slot.segment = 0;
  Enter(number, key.text.size(), value.token_count);
}

void SlotTable::Enter(uint32_t number, uint64_t text_bytes, uint32_t tokens) {
  bytes_ += BytesOf(text_bytes);
  counts_.entries.store(counts_.entries.load(kRelaxed) + 1, kRelaxed);
  eviction_.Insert(number, slots_[number].hash.load(kRelaxed), {BytesOf(text_bytes), tokens});
  AddCell(number);
}

SlotTable::Placed SlotTable::PutLocked(const EntryKey& key, std::span<const std::byte> vector, const CacheValue& value,
                                       const Lifetime& lifetime, uint64_t now_ns, LongText::Ptr* text) {
  assert(!replaying_);
  Placed placed;
  if (!CanHold(key.text.size())) return placed;
  placed.slot = SlotOf(key);
  // What an unread entry lacks but its text is here.
  if (placed.slot != kNoSlot && IsUnread(slots_[placed.slot]) &&
      !FillLocked(placed.slot, key, vector, value.norm, text)) {
    ClearLocked(placed.slot);
    placed.slot = kNoSlot;
    placed.vacated = 1;
  }
  if (placed.slot != kNoSlot) {
    const Change change(&slots_[placed.slot]);
    Write(placed.slot, vector, value, lifetime);
    eviction_.ForgetHit(placed.slot);
    return placed;
  }
  uint64_t place = 0;
  if (AddText(key.text, now_ns, text, &place, &placed.vacated)) {
    placed.slot = TakeFree();
    if (placed.vacated > 0) --placed.vacated;
    Add(placed.slot, key, place, vector, value, lifetime);
  }
  ShowCounts();
  assert(counts_.bytes.load(kRelaxed) <= limits_.bytes_max);
  return placed;
}

void SlotTable::VisitVacatedLocked(uint32_t vacated, const std::function<void(uint32_t)>& visit) const {
  for (uint32_t slot = free_; vacated > 0; --vacated, slot = slots_[slot].queue.older) visit(slot);
}

bool SlotTable::EraseLocked(const EntryKey& key) {
  const uint32_t slot = SlotOf(key);
  if (slot != kNoSlot) ClearLocked(slot);
  return slot != kNoSlot;
}

void SlotTable::ClearLocked(uint32_t slot) {
  if (replaying_ && slot < slots_max_) fresh_ = std::max(fresh_, slot + 1);
  if (slot >= fresh_ || !IsUsed(slot)) return;
  Remove(slot);
  GiveFree(slot);
  ShowCounts();
}

bool SlotTable::EraseDigestLocked(const KeyDigest& digest, uint32_t variant) {
  const uint32_t slot = SlotOfDigest(digest, variant);
  if (slot != kNoSlot) ClearLocked(slot);
  return slot != kNoSlot;
}

bool SlotTable::PutUnreadLocked(uint32_t number, const Unread& entry) {
  assert(replaying_);
  EraseDigestLocked(entry.digest, entry.variant);
  ClearLocked(number);
  if (number >= slots_max_ || !CanHold(entry.text_bytes)) return false;
  Slot& slot = slots_[number];  // nobody reads it yet
  slot.hash.store(entry.digest.low & limits_.hash_mask, kRelaxed);
  slot.text.store(entry.digest.high, kRelaxed);
  slot.variant.store(entry.variant, kRelaxed);
  slot.text_bytes.store(entry.text_bytes, kRelaxed);
  slot.tokens.store(PackTokens(entry.token_count, entry.truncated) | kUnread, kRelaxed);
  slot.norm.store(entry.place.offset, kRelaxed);
  slot.expires_ns.store(std::max<uint64_t>(entry.lifetime.expires_ns, 1), kRelaxed);
  slot.ttl_s = entry.lifetime.ttl_s & kTtlMax;
  slot.generation = generation_ & 1;
  slot.segment = static_cast<uint32_t>(entry.place.segment);
  counts_.unread.store(counts_.unread.load(kRelaxed) + 1, kRelaxed);
  Enter(number, entry.text_bytes, entry.token_count);
  return true;
}

std::optional<SlotTable::LogPlace> SlotTable::UnreadPlaceLocked(uint32_t number) const {
  if (number >= fresh_ || !IsUsed(number) || !IsUnread(slots_[number])) return std::nullopt;
  return LogPlace{slots_[number].segment, slots_[number].norm.load(kRelaxed)};
}

bool SlotTable::FillLocked(uint32_t number, const EntryKey& key, std::span<const std::byte> vector, float norm,
                           LongText::Ptr* text) {
  Slot& slot = slots_[number];
  assert(IsUsed(number) && IsUnread(slot) && vector.size() == limits_.width * sizeof(float));
  uint64_t place = 0;
  if (slot.hash.load(kRelaxed) != key.hash || slot.text.load(kRelaxed) != key.digest.high ||
      slot.variant.load(kRelaxed) != key.variant || slot.text_bytes.load(kRelaxed) != key.text.size() ||
      !CopyText(key.text, text, &place)) {
    return false;
  }
  const Change change(&slot);
  slot.text.store(place, kRelaxed);
  slot.norm.store(std::bit_cast<uint32_t>(norm), kRelaxed);
  slot.tokens.store(slot.tokens.load(kRelaxed) & ~kUnread, kRelaxed);
  StoreWords(VectorOf(number), vector.data(), vector.size());
  counts_.unread.store(counts_.unread.load(kRelaxed) - 1, kRelaxed);
  return true;
}

uint64_t SlotTable::DropAll() {
  const MutexLock lock(mutex_);
  const uint64_t dropped = eviction_.entries();
  while (eviction_.entries() > 0) Remove(eviction_.Candidate());
  free_ = left_free_ = kNoSlot;
  fresh_ = sweep_ = 0;
  ShowCounts();
  assert(counts_.bytes.load(kRelaxed) == 0);
  return dropped;
}

void SlotTable::FinishReplay() {
  const MutexLock lock(mutex_);
  while (bytes_ > limits_.bytes_max && EvictOne(0)) continue;  // the bound was higher when the log was written
  ShowCounts();
  replaying_ = false;
  for (uint32_t slot = fresh_; slot-- > 0;) {
    if (IsUsed(slot)) continue;
    slots_[slot].queue.older = left_free_;
    left_free_ = slot;
  }
}

SlotTable::Counts SlotTable::GetCounts() const {
  return Counts{counts_.entries.load(kRelaxed), counts_.bytes.load(kRelaxed), counts_.evictions.load(kRelaxed),
                counts_.expirations.load(kRelaxed), counts_.unread.load(kRelaxed)};
}

}  // namespace sutra
