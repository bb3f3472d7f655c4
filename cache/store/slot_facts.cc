// What administration asks of the table: facts of every entry, copies of some, and the end of all that is doomed.
#include <algorithm>
#include <cassert>

#include "cache/store/slot_table.h"

namespace sutra {

EntryFacts SlotTable::FactsLocked(uint32_t number) const {
  const Slot& slot = slots_[number];
  EntryFacts facts;
  facts.slot = number;
  facts.hash = slot.hash.load(kRelaxed);
  facts.birth = BirthOf(slot);
  facts.text_bytes = slot.text_bytes.load(kRelaxed);
  facts.expires_ns = slot.expires_ns.load(kRelaxed);
  facts.ttl_s = slot.ttl_s;
  facts.bytes = BytesOf(facts.text_bytes);
  facts.unread = IsUnread(slot);
  facts.is_long = IsLong(facts.text_bytes);
  facts.hit = eviction_.WasHit(number);
  facts.hot = eviction_.IsInMain(number) || eviction_.RoundsOf(number) > 0;
  if (!facts.unread && !facts.is_long) facts.text = TextOf(slot);
  return facts;
}

bool SlotTable::VisitFacts(uint64_t* cursor, uint64_t count,
                           const std::function<void(const EntryFacts&)>& visit) const {
  constexpr uint64_t kAhead = 8;  // for a line of memory to arrive
  const MutexLock lock(mutex_);
  const uint64_t end = std::min<uint64_t>(fresh_, *cursor + std::min<uint64_t>(count, fresh_));
  for (; *cursor < end; ++*cursor) {
    const auto number = static_cast<uint32_t>(*cursor);
    if (number + kAhead < fresh_) {
      const Slot& ahead = slots_[number + kAhead];
      if (!IsUnread(ahead) && !IsLong(ahead.text_bytes.load(kRelaxed))) {
        __builtin_prefetch(heap_.At(ahead.text.load(kRelaxed)));
      }
    }
    if (IsUsed(number) && !IsDoomed(slots_[number])) visit(FactsLocked(number));
  }
  return *cursor >= fresh_;
}

LongText::Ptr SlotTable::LongTextOf(uint32_t number, uint64_t hash) const {
  const MutexLock lock(mutex_);
  const Slot& slot = slots_[number];
  if (!IsUsed(number) || slot.hash.load(kRelaxed) != hash) return nullptr;
  if (IsUnread(slot) || !IsLong(slot.text_bytes.load(kRelaxed))) return nullptr;
  return LongText::FromWord(slot.text.load(kRelaxed))->AddReference();
}

KeyDigest SlotTable::DigestLocked(uint32_t number) const {
  const Slot& slot = slots_[number];
  assert(IsUsed(number) && (IsUnread(slot) || !IsLong(slot.text_bytes.load(kRelaxed))));
  // Where tests narrow the hash, a replay narrows that of the removal, too.
  if (IsUnread(slot)) return {slot.hash.load(kRelaxed), slot.text.load(kRelaxed)};
  return DigestOf(TextOf(slot), slot.variant.load(kRelaxed), seed_);
}

uint32_t SlotTable::SlotWhereLocked(uint64_t hash, const std::function<bool(const EntryFacts&)>& is) const {
  return SlotWhere(hash, [&](const Slot& slot)
                             SUTRA_REQUIRES(mutex_) { return is(FactsLocked(static_cast<uint32_t>(&slot - slots_))); });
}

uint32_t SlotTable::FindSlot(const EntryKey& key) const {
  const MutexLock lock(mutex_);
  return SlotWhere(key.hash, [&](const Slot& slot) {
    if (slot.variant.load(kRelaxed) != key.variant || slot.text_bytes.load(kRelaxed) != key.text.size()) return false;
    if (IsUnread(slot)) return slot.text.load(kRelaxed) == key.digest.high;
    return IsLong(key.text.size()) || TextOf(slot) == key.text;
  });
}

// Texts beyond kLongTextBytes are copied outside the mutex.
bool SlotTable::CopyEntry(uint32_t number, EntryCopy* copy) const {
  LongText::Ptr long_text;
  {
    const MutexLock lock(mutex_);
    if (number >= fresh_ || !IsUsed(number) || IsDoomed(slots_[number]) || IsUnread(slots_[number])) return false;
    const Slot& slot = slots_[number];
    copy->facts = FactsLocked(number);
    copy->text.assign(copy->facts.text);
    copy->facts.text = {};
    copy->variant = slot.variant.load(kRelaxed);
    copy->vector.resize(limits_.width);
    LoadWords(copy->vector.data(), VectorOf(number), limits_.width * sizeof(float));
    const uint32_t tokens = slot.tokens.load(kRelaxed);
    copy->value = {std::bit_cast<float>(slot.norm.load(kRelaxed)),
                   tokens >> kTokensShift,
                   (tokens & kTruncated) != 0,
                   copy->facts.expires_ns,
                   {number, HandleTagOf(slot)}};
    if (copy->facts.is_long) long_text = LongText::FromWord(slot.text.load(kRelaxed))->AddReference();
  }
  if (long_text != nullptr) copy->text.assign(long_text->view());
  return true;
}

bool SlotTable::ClearDoomed(uint64_t* cursor, uint64_t count, uint64_t* removed, uint64_t* bytes) {
  const MutexLock lock(mutex_);
  const uint64_t end = std::min<uint64_t>(fresh_, *cursor + std::min<uint64_t>(count, fresh_));
  for (; *cursor < end; ++*cursor) {
    const auto number = static_cast<uint32_t>(*cursor);
    if (!IsUsed(number) || !IsDoomed(slots_[number])) continue;
    *bytes += BytesOf(slots_[number].text_bytes.load(kRelaxed));
    ++*removed;
    ClearLocked(number);
  }
  return *cursor >= fresh_;
}

}  // namespace sutra
