#include "shm/hot_writer.h"

#include <cassert>
#include <cstring>

#include "shm/base/checkpoint.h"

namespace sutra {
namespace {

// Only this side writes, so what it reads back is what it wrote; readers believe a slot by its sequence, and a cell by
// the digest in the slot that it names.
constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

uint32_t HotWriter::Find(HotKey* key) const {
  const SharedWord<uint64_t>* const bucket = view_.bucket(key->bucket(view_.geometry.buckets()));
  for (uint32_t i = 0; i < kHotCellsPerBucket; ++i) {
    const uint64_t cell = bucket[i].load(kRelaxed);
    if (cell == 0 || HotCellTag(cell) != key->tag()) continue;
    const HotSlot& slot = view_.slot(HotCellSlot(cell));
    const ShaWords& digest = key->digest();
    bool same = true;
    for (int word = 0; word < 4; ++word) same = same && slot.digest[word].load(kRelaxed) == digest.words[word];
    if (same) return HotCellSlot(cell);
  }
  return kNoSlot;
}

uint64_t HotWriter::expires_ns(uint32_t slot) const {
  assert(slot < slots());
  return slot < used_ ? view_.slot(slot).expires_ns.load(kRelaxed) : 0;
}

uint32_t HotWriter::Write(uint32_t slot_index, HotKey* key, std::span<const float> unit, const HotValue& value) {
  assert(slot_index < slots() && unit.size() == view_.geometry.width && value.expires_ns != 0);
  uint32_t displaced = kNoSlot;
  const uint32_t before = Find(key);
  if (before != kNoSlot && before != slot_index) Remove(before);
  SharedWord<uint64_t>* cell;
  if (before == slot_index) {
    cell = CellOf(slot_index);
  } else {
    if (expires_ns(slot_index) != 0) CellOf(slot_index)->store(0, kRelaxed);
    (void)SUTRA_CHECKPOINT("hot.unnamed");
    cell = MakeRoom(*key, &displaced);
    assert(displaced != slot_index);
  }
  if (slot_index >= used_) used_ = slot_index + 1;

  HotSlot* const slot = &view_.slot(slot_index);
  BeginWrite(slot);
  (void)SUTRA_CHECKPOINT("hot.begun");
  const ShaWords& digest = key->digest();
  for (int word = 0; word < 4; ++word) slot->digest[word].store(digest.words[word], kRelaxed);
  uint32_t norm_bits;
  std::memcpy(&norm_bits, &value.norm, sizeof(norm_bits));
  const auto cell_index = static_cast<uint64_t>(cell - view_.cells());
  slot->expires_ns.store(value.expires_ns, kRelaxed);
  slot->norm_and_tokens.store(norm_bits | uint64_t{value.token_count} << 32, kRelaxed);
  slot->flags_and_cell.store(value.flags | cell_index << 32, kRelaxed);
  (void)SUTRA_CHECKPOINT("hot.described");
  SharedWord<uint64_t>* const words = view_.vector(slot_index);
  const auto* const floats = unit.data();
  const uint32_t pairs = view_.geometry.width / 2;
  for (uint32_t i = 0; i < pairs; ++i) {
    uint64_t word;
    std::memcpy(&word, floats + 2 * i, sizeof(word));
    words[i].store(word, kRelaxed);
    if (i == pairs / 2) (void)SUTRA_CHECKPOINT("hot.half");
  }
  if (view_.geometry.width % 2 != 0) {
    uint32_t word;
    std::memcpy(&word, floats + 2 * pairs, sizeof(word));
    words[pairs].store(word, kRelaxed);
  }
  (void)SUTRA_CHECKPOINT("hot.copied");
  EndWrite(slot);
  (void)SUTRA_CHECKPOINT("hot.ended");
  cell->store(HotCell(key->tag(), slot_index), kRelaxed);
  (void)SUTRA_CHECKPOINT("hot.named");
  return displaced;
}

void HotWriter::Remove(uint32_t slot) {
  if (expires_ns(slot) == 0) return;
  CellOf(slot)->store(0, kRelaxed);
  (void)SUTRA_CHECKPOINT("hot.forgotten");
  Empty(slot);
}

void HotWriter::Clear() {
  if (used_ == 0) return;
  const uint64_t cells = uint64_t{view_.geometry.buckets()} * kHotCellsPerBucket;
  for (uint64_t i = 0; i < cells; ++i) view_.cells()[i].store(0, kRelaxed);
  for (uint32_t slot = 0; slot < used_; ++slot) {
    if (expires_ns(slot) != 0) Empty(slot);
  }
}

void HotWriter::Close() {
  view_.header().closed.store(1, std::memory_order_relaxed);  // relaxed: guards nothing but itself
}

void HotWriter::SetBootAhead(uint64_t ns) {
  view_.header().boot_ahead_ns.store(ns, std::memory_order_relaxed);  // relaxed: only a number
}

void HotWriter::BeginWrite(HotSlot* slot) {
  const uint64_t sequence = slot->sequence.load(kRelaxed);
  assert(sequence % 2 == 0);
  slot->sequence.store(sequence + 1, kRelaxed);
  // Before every store to come: a reader that copies any of them sees the odd number when it looks again.
  std::atomic_thread_fence(std::memory_order_release);
}

void HotWriter::EndWrite(HotSlot* slot) {
  const uint64_t sequence = slot->sequence.load(kRelaxed);
  // SYNC H1 (release): what the slot has now; meets SYNC H1 (acquire) in HotReader::Copy.
  slot->sequence.store(sequence + 1, std::memory_order_release);
}

void HotWriter::Empty(uint32_t slot_index) {
  HotSlot* const slot = &view_.slot(slot_index);
  BeginWrite(slot);
  for (int word = 0; word < 4; ++word) slot->digest[word].store(0, kRelaxed);
  slot->expires_ns.store(0, kRelaxed);
  slot->norm_and_tokens.store(0, kRelaxed);
  slot->flags_and_cell.store(0, kRelaxed);
  (void)SUTRA_CHECKPOINT("hot.emptied");
  SharedWord<uint64_t>* const words = view_.vector(slot_index);
  for (uint64_t i = 0; i < view_.geometry.vector_words(); ++i) words[i].store(0, kRelaxed);
  EndWrite(slot);
}

SharedWord<uint64_t>* HotWriter::CellOf(uint32_t slot) const {
  const auto index = static_cast<uint32_t>(view_.slot(slot).flags_and_cell.load(kRelaxed) >> 32);
  SharedWord<uint64_t>* const cell = view_.cells() + index;
  assert(HotCellSlot(cell->load(kRelaxed)) == slot);
  return cell;
}

SharedWord<uint64_t>* HotWriter::MakeRoom(const HotKey& key, uint32_t* displaced) {
  SharedWord<uint64_t>* const bucket = view_.bucket(key.bucket(view_.geometry.buckets()));
  for (uint32_t i = 0; i < kHotCellsPerBucket; ++i) {
    if (bucket[i].load(kRelaxed) == 0) return bucket + i;
  }
  SharedWord<uint64_t>* const cell = bucket + key.tag() % kHotCellsPerBucket;
  *displaced = HotCellSlot(cell->load(kRelaxed));
  Remove(*displaced);
  return cell;
}

}  // namespace sutra
