// Lookups without a lock. In the order in which a reader goes: cells, slot, text, vector, and back to the version.
#include <cassert>

#include "cache/store/slot_table.h"
#include "shm/base/checkpoint.h"
#include "shm/base/cpu_pause.h"

namespace sutra {
namespace {

// About as long as a writer needs for a vector of 65,536 floats, and a hundred times as long as for an ordinary one. A
// writer that lost its CPU takes milliseconds: nobody waits for that here.
constexpr int kTriesMax = 64;
constexpr uint64_t kPrefetchLines = 8, kLineBytes = 64;

}  // namespace

std::optional<bool> SlotTable::TryLookup(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
                                         uint32_t* unread) {
  uint32_t slot = kNoSlot;
  const Answer answer = FindPatiently(key, now_ns, vector, value, &slot);
  if (unread != nullptr) *unread = answer == Answer::kUnread ? slot : kNoSlot;
  if (answer == Answer::kTorn || answer == Answer::kUnread) return std::nullopt;
  return answer == Answer::kHit;
}

bool SlotTable::Lookup(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
                       const std::function<void(uint32_t)>& read) {
  for (bool tried = false;;) {
    uint32_t slot = kNoSlot;
    switch (FindPatiently(key, now_ns, vector, value, &slot)) {
      case Answer::kHit: return true;
      case Answer::kMiss: return false;
      case Answer::kUnread:
        if (tried || !read) return false;
        tried = true;
        read(slot);
        break;
      case Answer::kTorn: {
        const MutexLock until_the_writer_is_done(mutex_);
        break;
      }
    }
  }
}

// Whoever comes to the slot between the look and the hit gets it: it was as likely to be asked for.
void SlotTable::Touch(const CacheHandle& handle) {
  if (handle.slot >= slots_max_) return;
  const Slot& slot = slots_[handle.slot];
  if (!IsUsed(handle.slot) || HandleTagOf(slot) != handle.tag) return;
  eviction_.Hit(handle.slot, slot.tokens.load(kRelaxed) >> kTokensShift);
}

SlotTable::Answer SlotTable::FindPatiently(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
                                           uint32_t* slot) {
  for (int tries = 0; tries < kTriesMax; ++tries) {
    const Answer answer = Find(key, now_ns, vector, value, slot);
    if (answer != Answer::kTorn) return answer;
    CpuPause();
  }
  return Answer::kTorn;
}

// kTorn: a writer came in between.
SlotTable::Answer SlotTable::Find(const EntryKey& key, uint64_t now_ns, float* vector, CacheValue* value,
                                  uint32_t* unread) {
  const uint64_t moves = moves_.load(std::memory_order_acquire);
  const uint32_t tag = TagOf(key.hash);
  bool torn = (moves & 1) != 0;
  uint64_t at = HomeOf(tag);
  for (uint64_t looked = 0; looked < cell_count_; ++looked, at = NextCell(at)) {
    const uint64_t cell = cells_[at].load(std::memory_order_acquire);  // pairs with AddCell
    if (cell == 0) break;
    if (cell >> 32 != tag) continue;
    const uint32_t slot = static_cast<uint32_t>(cell) - 1;
    static_cast<void>(SUTRA_CHECKPOINT("lookup.cell_found"));  // its entry may leave before the slot is read
    switch (Read(slot, key, now_ns, vector, value)) {
      case Found::kHit: eviction_.Hit(slot, value->token_count); return Answer::kHit;
      case Found::kExpired: return Answer::kMiss;
      case Found::kUnread: *unread = slot; return Answer::kUnread;
      case Found::kOther: break;
      case Found::kTorn: torn = true; break;
    }
  }
  // A cell may have moved from in front of this search to behind it.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (torn || moves_.load(kRelaxed) != moves) return Answer::kTorn;
  return Answer::kMiss;
}

SlotTable::Found SlotTable::Read(uint32_t number, const EntryKey& key, uint64_t now_ns, float* vector,
                                 CacheValue* value) {
  Slot& slot = slots_[number];
  const uint32_t version = slot.version.load(std::memory_order_acquire);
  if ((version & 1) != 0) return Found::kTorn;
  const auto torn = [&] {
    std::atomic_thread_fence(std::memory_order_acquire);  // everything read before
    return slot.version.load(kRelaxed) != version;
  };
  const uint64_t text_bytes = slot.text_bytes.load(kRelaxed);
  if (slot.hash.load(kRelaxed) != key.hash || slot.variant.load(kRelaxed) != key.variant ||
      text_bytes != key.text.size()) {
    return torn() ? Found::kTorn : Found::kOther;
  }
  if (const uint32_t tokens = slot.tokens.load(kRelaxed); (tokens & kUnread) != 0) {
    const bool same = slot.text.load(kRelaxed) == key.digest.high;
    const bool expired = slot.expires_ns.load(kRelaxed) <= now_ns;
    if (torn()) return Found::kTorn;
    return !same ? Found::kOther : expired ? Found::kExpired : Found::kUnread;
  }
  const GuardedWord* from = VectorOf(number);
  // The vector is read next; its lines arrive while the text is compared.
  for (uint64_t line = 0; line < kPrefetchLines; ++line) __builtin_prefetch(from + line * kLineBytes / sizeof(*from));
  if (IsLong(text_bytes)) {
    const std::optional<bool> equal = EqualLongText(number, version, key);
    if (!equal.has_value()) return Found::kTorn;
    if (!*equal) return Found::kOther;
  } else {
    const uint64_t text = slot.text.load(kRelaxed);
    // Of another entry's text the place is as good, but a long one's is an address.
    if (torn()) return Found::kTorn;
    if (!EqualWords(heap_.At(text), key.text.data(), text_bytes)) return torn() ? Found::kTorn : Found::kOther;
  }
  const uint64_t expires_ns = slot.expires_ns.load(kRelaxed);
  const uint32_t tokens = slot.tokens.load(kRelaxed);
  const auto norm = std::bit_cast<float>(slot.norm.load(kRelaxed));
  LoadWords(vector, from, limits_.width * sizeof(float));
  if (torn()) return Found::kTorn;
  if (expires_ns <= now_ns) return Found::kExpired;
  *value = CacheValue{
      norm, tokens >> kTokensShift, (tokens & kTruncated) != 0, expires_ns, {number, static_cast<uint32_t>(key.hash)}};
  return Found::kHit;
}

// Compares outside the mutex: 16 MiB take milliseconds. Nothing if the slot changed, or the mutex was taken.
std::optional<bool> SlotTable::EqualLongText(uint32_t number, uint32_t version, const EntryKey& key) {
  LongText::Ptr text;
  {
    if (!mutex_.TryLockBriefly()) return std::nullopt;
    const MutexLock lock(mutex_, MutexLock::Held());
    const Slot& slot = slots_[number];
    if (slot.version.load(kRelaxed) != version) return std::nullopt;
    assert(IsUsed(number) && !IsUnread(slot) && IsLong(slot.text_bytes.load(kRelaxed)));  // this version was read
    text = LongText::FromWord(slot.text.load(kRelaxed))->AddReference();
  }
  return text->view() == key.text;
}

}  // namespace sutra
