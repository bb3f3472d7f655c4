// Walks over all slots, in steps that keep writers waiting for microseconds only.
#include <algorithm>
#include <cassert>

#include "cache/store/slot_table.h"

namespace sutra {
namespace {

constexpr uint64_t kVisitStep = 4096;  // slots examined under one lock
constexpr uint64_t kVisitsMax = 32;    // entries visited under one lock

}  // namespace

bool SlotTable::VisitOlder(uint64_t through, uint64_t* cursor,
                           const std::function<bool(const EntryView&, uint64_t*)>& visit, uint32_t* unread) {
  *unread = kNoSlot;
  for (;;) {
    const MutexLock lock(mutex_);
    for (uint64_t step = 0; step < kVisitStep; ++step, ++*cursor) {
      if (*cursor >= fresh_) return true;
      const auto number = static_cast<uint32_t>(*cursor);
      Slot& slot = slots_[number];
      if (slot.segment == 0 || slot.segment > through || IsDoomed(slot)) continue;
      if (IsUnread(slot)) {
        *unread = number;
        return false;
      }
      const uint32_t tokens = slot.tokens.load(kRelaxed);
      const EntryView view{
          number,
          TextOf(slot),
          slot.variant.load(kRelaxed),
          {static_cast<const std::byte*>(static_cast<const void*>(VectorOf(number))), limits_.width * sizeof(float)},
          {std::bit_cast<float>(slot.norm.load(kRelaxed)), tokens >> kTokensShift, (tokens & kTruncated) != 0},
          slot.expires_ns.load(kRelaxed),
          uint32_t{slot.ttl_s}};
      uint64_t segment = slot.segment;
      if (!visit(view, &segment)) return false;
      slot.segment = static_cast<uint32_t>(segment);
      assert(slot.segment == 0 || slot.segment > through);  // otherwise it would be visited forever
      step += kVisitStep / kVisitsMax;
    }
  }
}

void SlotTable::HoldBy(uint64_t number) {
  const MutexLock lock(mutex_);
  for (uint32_t slot = 0; slot < fresh_; ++slot) {
    if (!IsUnread(slots_[slot])) SetSegmentLocked(slot, std::min<uint64_t>(slots_[slot].segment, number));
  }
}

uint32_t SlotTable::NextUnread(uint64_t* cursor, uint64_t through) const {
  for (;;) {
    const MutexLock lock(mutex_);
    for (uint64_t step = 0; step < kVisitStep; ++step, ++*cursor) {
      if (*cursor >= fresh_ || counts_.unread.load(kRelaxed) == 0) return kNoSlot;
      const auto number = static_cast<uint32_t>(*cursor);
      if (IsUsed(number) && IsUnread(slots_[number]) && slots_[number].segment <= through) return number;
    }
  }
}

uint64_t SlotTable::EvictOlder(uint64_t through, const std::function<void(uint32_t)>& evicted) {
  const MutexLock lock(mutex_);
  uint64_t count = 0;
  for (uint32_t slot = 0; slot < fresh_; ++slot) {
    if (slots_[slot].segment == 0 || slots_[slot].segment > through) continue;
    ClearLocked(slot);
    if (evicted) evicted(slot);
    ++count;
  }
  counts_.evictions.fetch_add(count, kRelaxed);
  return count;
}

void SlotTable::CopyHeat(uint64_t first, std::span<Heat> heat) const {
  for (uint64_t i = 0; i < heat.size() && first + i < slots_max_; ++i) {
    const auto slot = static_cast<uint32_t>(first + i);
    const uint8_t state = eviction_.HeatOf(slot);
    heat[i] = {state, state != 0 ? HeatTagOf(slots_[slot]) : uint8_t{0}};
  }
}

void SlotTable::RestoreHeat(uint64_t first, std::span<const Heat> heat) {
  for (uint64_t begin = 0; begin < heat.size(); begin += kVisitStep / 4) {
    const MutexLock lock(mutex_);
    for (uint64_t i = begin; i < std::min<uint64_t>(heat.size(), begin + kVisitStep / 4); ++i) {
      if (first + i >= fresh_) return;
      const auto number = static_cast<uint32_t>(first + i);
      const Slot& slot = slots_[number];
      if (heat[i].state == 0 || !IsUsed(number) || heat[i].tag != HeatTagOf(slot)) continue;
      eviction_.Restore(number, heat[i].state,
                        {BytesOf(slot.text_bytes.load(kRelaxed)), slot.tokens.load(kRelaxed) >> kTokensShift});
    }
  }
}

void SlotTable::Sweep(uint64_t count, uint64_t now_ns) {
  for (uint64_t left = count; left > 0;) {
    const MutexLock lock(mutex_);
    const uint64_t step = std::min(left, kVisitStep / 4);
    left -= step;
    for (uint64_t i = 0; i < step && fresh_ > 0; ++i, ++sweep_) {
      if (sweep_ >= fresh_) sweep_ = 0;
      if (!IsUsed(sweep_) || slots_[sweep_].expires_ns.load(kRelaxed) > now_ns) continue;
      counts_.expirations.fetch_add(1, kRelaxed);
      ClearLocked(sweep_);
    }
  }
}

}  // namespace sutra
