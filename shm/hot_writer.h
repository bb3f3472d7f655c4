// Writes the hot table. Which key gets which slot, and when, is the caller's policy; this is the order of the stores,
// so that a reader beside it, and one after a writer that was killed between any two of them, finds the right vector or
// none.
//
// Thread rule: one thread at a time; readers need no consent.
// Invariants: a key has one slot at most, and a slot that is not empty has exactly one cell, in its key's bucket; the
// vector of what was removed is overwritten with zeros.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "shm/hot_key.h"
#include "shm/hot_table.h"

namespace sutra {

class HotWriter {
 public:
  static constexpr uint32_t kNoSlot = UINT32_MAX;

  HotWriter() = default;
  // Of a table whose header is complete and that has no key yet (HotTableMemory).
  explicit HotWriter(const HotTableView& view) : view_(view) {}

  uint32_t slots() const { return view_.geometry.slots; }
  HotKey KeyOf(std::string_view text, uint32_t variant) const { return HotKey(text, variant, view_.header().seed); }

  // RETURNS the slot that has the key, or kNoSlot.
  uint32_t Find(HotKey* key) const;
  // RETURNS when the slot's key expires; 0: it is empty.
  uint64_t expires_ns(uint32_t slot) const;

  // Puts the key with its vector and value into `slot`, in place of what is there; takes it out of any other slot that
  // has it. Where its bucket is full another key loses its place: RETURNS the slot that became empty by that, or
  // kNoSlot. REQUIRES value.expires_ns != 0, and memory behind the slot (HotTableMemory::Back).
  uint32_t Write(uint32_t slot, HotKey* key, std::span<const float> unit, const HotValue& value);
  void Remove(uint32_t slot);  // no matter whether it is empty
  void Clear();                // everything; takes milliseconds for each 64 MiB that were ever written
  void Close();                // for ever: no reader uses the table from then on
  void SetBootAhead(uint64_t ns);

 private:
  void BeginWrite(HotSlot* slot);
  void EndWrite(HotSlot* slot);
  void Empty(uint32_t slot);
  SharedWord<uint64_t>* CellOf(uint32_t slot) const;
  SharedWord<uint64_t>* MakeRoom(const HotKey& key, uint32_t* displaced);

  HotTableView view_;
  uint32_t used_ = 0;  // slots [0, used_) were ever written
};

}  // namespace sutra
