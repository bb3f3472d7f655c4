// The table of a stripe, its slots, and how entries come and go.
#include "cache/store/entry_stripe.h"

#include <algorithm>

namespace sutra {
namespace {

constexpr size_t kPrefetchLines = 8;
constexpr size_t kFewEntriesShare = 16;  // fewer than one for this many cells of the table

}  // namespace

EntryStore::TextBlockPtr EntryStore::Stripe::FindLikely(const EntryKey& key) {
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

EntryStore::Stripe::Cell* EntryStore::Stripe::Find(const EntryKey& key) {
  const size_t mask = table.size() - 1;
  for (size_t i = key.low & mask;; i = (i + 1) & mask) {
    Cell& cell = table[i];
    if (cell.entry == nullptr) return nullptr;
    if (cell.hash != key.low) continue;
    Entry& entry = *cell.entry;
    // The vector is read next; its lines arrive while the text is compared.
    for (size_t line = 0; line < kPrefetchLines; ++line) {
      __builtin_prefetch(static_cast<const char*>(static_cast<const void*>(entry.vector())) +
                         line * SlotPool::kSlotAlign);
    }
    if (entry.hash_high == key.high && entry.variant == key.variant && entry.text_bytes == key.text.size() &&
        (entry.text() == key.text.data() ||  // pinned, or the entry's own
         std::memcmp(entry.text(), key.text.data(), key.text.size()) == 0)) {
      return &cell;
    }
  }
}

void EntryStore::Stripe::Rehash(size_t cells) {
  std::vector<Cell> old(cells);
  old.swap(table);
  for (const Cell& cell : old) {
    if (cell.entry != nullptr) Place(cell);
  }
}

void EntryStore::Stripe::Place(const Cell& cell) {
  const size_t mask = table.size() - 1;
  size_t i = cell.hash & mask;
  while (table[i].entry != nullptr) i = (i + 1) & mask;
  table[i] = cell;
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
void EntryStore::Stripe::RemoveCell(Cell* cell) {
  const size_t mask = table.size() - 1;  // distances below wrap around the end of the table
  size_t gap = static_cast<size_t>(cell - table.data());
  for (size_t i = (gap + 1) & mask; table[i].entry != nullptr; i = (i + 1) & mask) {
    const size_t home = table[i].hash & mask;
    if (((i - home) & mask) >= ((i - gap) & mask)) {
      table[gap] = table[i];
      gap = i;
    }
  }
  table[gap] = Cell{};
}

void EntryStore::Stripe::Remove(Cell* cell) {
  Entry* entry = cell->entry;
  const uint64_t bytes = BytesOf(entry->text_bytes);
  assert(entries[entry->slot] == entry);
  assert(counts.entries > 0 && counts.bytes >= bytes);
  eviction.Remove(entry->slot, bytes);
  entries[entry->slot] = nullptr;
  segments[entry->slot] = 0;
  hashes[entry->slot] = free_slot;
  free_slot = entry->slot;
  --counts.entries;
  counts.bytes -= bytes;
  RemoveCell(cell);
  if (entry->text_bytes > kLongTextBytes) {
    TextBlock* block = entry->long_text;
    block->next_removed = removed_texts.load(std::memory_order_relaxed);  // relaxed: the exchange below publishes
    while (!removed_texts.compare_exchange_weak(block->next_removed, block, std::memory_order_release,
                                                std::memory_order_relaxed)) {
    }
  } else if (entry->long_text != nullptr) {
    entry->long_text->Release();
  }
  memory.Give(entry);
}

void EntryStore::Stripe::RemoveEntry(Entry* entry) {
  Cell* cell = Find(EntryKey{hashes[entry->slot], entry->hash_high, entry->variant,
                             std::string_view(entry->text(), entry->text_bytes)});
  assert(cell != nullptr && cell->entry == entry);
  Remove(cell);
}

void EntryStore::Stripe::MakeRoom(uint64_t bytes, uint64_t now_ns) {
  while (counts.entries + 1 > entries_max || counts.bytes + bytes > bytes_max) {
    assert(counts.entries > 0 && eviction.entries() == counts.entries);  // CanHold: it fits once no others are left
    const uint32_t slot = eviction.Candidate();
    Entry* entry = entries[slot];
    if (entry->expires_ns <= now_ns) {
      ++counts.expirations;
    } else if (eviction.Spare(slot, hashes[slot], {BytesOf(entry->text_bytes), entry->token_count})) {
      continue;
    } else {
      ++counts.evictions;
    }
    RemoveEntry(entry);
  }
}

void EntryStore::Stripe::PrepareForOneMore() {
  if (3 * (counts.entries + 1) > 2 * table.size()) Rehash(table.size() * 2);
  if (free_slot != kNoFreeSlot || entries.size() < entries.capacity()) return;
  const size_t more = std::max<size_t>(2 * entries.size(), kTableCellsMin);
  segments.reserve(more);
  hashes.reserve(more);
  eviction.Reserve(more);
  entries.reserve(more);  // the last one, because its capacity stands for all of them
}

uint32_t EntryStore::Stripe::TakeSlot() {
  if (free_slot != kNoFreeSlot) {
    const uint64_t slot = free_slot;
    free_slot = hashes[slot];
    return static_cast<uint32_t>(slot);
  }
  assert(entries.size() < std::min({entries.capacity(), segments.capacity(), hashes.capacity()}));
  entries.push_back(nullptr);
  segments.push_back(0);
  hashes.push_back(0);
  return static_cast<uint32_t>(entries.size() - 1);
}

void EntryStore::Stripe::Add(const EntryKey& key, Entry* entry) {
  const uint64_t bytes = BytesOf(entry->text_bytes);
  entry->slot = TakeSlot();
  entries[entry->slot] = entry;
  hashes[entry->slot] = key.low;
  eviction.Insert(entry->slot, key.low, {bytes, entry->token_count});
  ++counts.entries;
  counts.bytes += bytes;
  Place(Cell{key.low, entry});
  assert(counts.entries <= entries_max && counts.bytes <= bytes_max);
  assert(3 * counts.entries <= 2 * table.size());  // otherwise a search might not end
}

void EntryStore::Stripe::DropAll() {
  // Recovery drops everything at each damaged place: with few entries, that must not cost a walk over a large table.
  if (counts.entries < table.size() / kFewEntriesShare) {
    for (Entry* entry : entries) {
      if (entry != nullptr) RemoveEntry(entry);
    }
  } else {
    for (Entry* entry : entries) {
      if (entry != nullptr && entry->long_text != nullptr) entry->long_text->Release();
    }
    memory.Clear();
    eviction.Clear();
    counts.entries = counts.bytes = 0;
    table.assign(table.size(), Cell{});
  }
  assert(eviction.entries() == 0);
  entries.clear();
  segments.clear();
  hashes.clear();
  free_slot = kNoFreeSlot;
}

void EntryStore::Stripe::Reserve(uint64_t count) {
  size_t cells = table.size();
  while (2 * cells < 3 * count) cells *= 2;
  if (cells > table.size()) Rehash(cells);
  segments.reserve(count);
  hashes.reserve(count);
  eviction.Reserve(count);
  entries.reserve(count);
}

}  // namespace sutra
