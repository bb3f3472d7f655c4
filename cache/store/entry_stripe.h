// One stripe of the EntryStore: its lock, the entries under it, the table that finds them and the queues that say which
// one goes. entry_store.cc is the only user.
//
// An entry has a slot number for as long as it lives; what a search over all entries reads stands in arrays by slot
// (segment, hash), so that such a search touches no entry.
//
// Thread rule: everything but the lock itself and `removed_texts` needs the lock. Invariants (Add and Remove assert
// them): counts.entries <= entries_max and counts.bytes <= bytes_max; the table is at most 2/3 full; an entry is in the
// table, in its slot and in the eviction queues, or in none of them; no removal needs memory.
#pragma once

#include <atomic>
#include <cassert>
#include <cstring>
#include <new>
#include <string_view>
#include <vector>

#include "cache/store/entry_store.h"
#include "cache/store/eviction.h"
#include "cache/store/slot_pool.h"
#include "shm/base/mutex.h"

namespace sutra {

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

// This header, room for a short text, the vector. Longer texts have a block of their own.
struct alignas(SlotPool::kSlotAlign) EntryStore::Entry {
  static constexpr size_t kBytes = 256;
  static constexpr size_t kShortTextBytes = 206;

  uint64_t hash_high = 0;
  uint64_t expires_ns = 0;
  TextBlock* long_text = nullptr;
  uint32_t text_bytes = 0;
  uint32_t variant = 0;
  uint32_t token_count = 0;
  float norm = 0;
  uint32_t slot = 0;
  bool truncated = false;
  char short_text[kShortTextBytes];

  float* vector() { return static_cast<float*>(static_cast<void*>(this + 1)); }
  char* text() { return long_text != nullptr ? long_text->bytes() : short_text; }
};

struct EntryStore::Stripe {
  // Of the table: open addressing, a power of two.
  struct Cell {
    uint64_t hash = 0;
    Entry* entry = nullptr;
  };

  Stripe(uint64_t entries_bound, uint64_t bytes_bound, uint64_t bytes_of_one)
      : entries_max(entries_bound), bytes_max(bytes_bound), memory(bytes_of_one), entry_bytes(memory.slot_bytes()) {}

  Mutex mutex;
  const uint64_t entries_max;
  const uint64_t bytes_max;
  SlotPool memory SUTRA_GUARDED_BY(mutex);
  const uint64_t entry_bytes;
  std::vector<Cell> table SUTRA_GUARDED_BY(mutex) = std::vector<Cell>(kTableCellsMin);
  std::vector<Entry*> entries SUTRA_GUARDED_BY(mutex);     // by slot; null: free
  std::vector<uint64_t> segments SUTRA_GUARDED_BY(mutex);  // by slot; 0: no segment holds it, or free
  std::vector<uint64_t> hashes SUTRA_GUARDED_BY(mutex);    // by slot: the low half; of a free one, the next free one
  uint64_t free_slot SUTRA_GUARDED_BY(mutex) = kNoFreeSlot;
  EvictionQueues eviction SUTRA_GUARDED_BY(mutex);
  Counts counts SUTRA_GUARDED_BY(mutex);
  Counts shown;                                    // of whoever calls GetCounts: `counts` as it last had the lock
  std::atomic<TextBlock*> removed_texts{nullptr};  // a stack: pushed to under the lock, taken and freed without it

  // The store's ...Locked calls require this lock as MutexOf(key); clang cannot see that the two are the same.
  void AssertHeld() SUTRA_ASSERT_CAPABILITY(mutex) { assert(!mutex.TryLock()); }

  // What an entry with a text of this length takes from bytes_max.
  uint64_t BytesOf(uint64_t text_bytes) const {
    return entry_bytes + (text_bytes > Entry::kShortTextBytes ? text_bytes + kLongTextOverheadBytes : 0) +
           kEntryOverheadBytes;
  }

  // The entry's cell, or null.
  Cell* Find(const EntryKey& key) SUTRA_REQUIRES(mutex);
  // As Find, before the text is compared. A long one that has the hash, the variant and the length.
  TextBlockPtr FindLikely(const EntryKey& key) SUTRA_REQUIRES(mutex);

  // Evicts until one more entry of so many bytes fits.
  void MakeRoom(uint64_t bytes, uint64_t now_ns) SUTRA_REQUIRES(mutex);
  // Makes sure that one more entry needs no memory but its own. Throws std::bad_alloc, and has then changed nothing.
  void PrepareForOneMore() SUTRA_REQUIRES(mutex);
  // An entry that is complete but for its slot, after the two calls above.
  void Add(const EntryKey& key, Entry* entry) SUTRA_REQUIRES(mutex);
  void Remove(Cell* cell) SUTRA_REQUIRES(mutex);
  void RemoveEntry(Entry* entry) SUTRA_REQUIRES(mutex);
  void DropAll() SUTRA_REQUIRES(mutex);
  // Room for so many entries without another allocation but for the entries themselves. Throws std::bad_alloc.
  void Reserve(uint64_t count) SUTRA_REQUIRES(mutex);

 private:
  static constexpr size_t kTableCellsMin = 64;
  static constexpr uint64_t kNoFreeSlot = UINT64_MAX;
  static constexpr uint64_t kEntryOverheadBytes = 72;  // table cell, slot arrays and eviction, with spare capacity
  static constexpr uint64_t kLongTextOverheadBytes = 16;

  void Rehash(size_t cells) SUTRA_REQUIRES(mutex);
  void Place(const Cell& cell) SUTRA_REQUIRES(mutex);
  void RemoveCell(Cell* cell) SUTRA_REQUIRES(mutex);
  uint32_t TakeSlot() SUTRA_REQUIRES(mutex);
};

}  // namespace sutra
