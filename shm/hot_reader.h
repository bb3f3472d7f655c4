// Reads the hot table without a lock, a wait or a system call. Libc only: the client library includes it.
//
// Thread rule: any number of threads and processes, at any time, beside the writer.
// Rules: a `now_ns` that is not exact is too late rather than too early, so that a heartbeat never looks too young.
// Invariants: whatever bytes are in the table, no memory is touched outside of it, and every look-up ends; a hit is a
// slot whose digest is the key's, under an even sequence that was the same before and after the copy.
#pragma once

#include <assert.h>

#include <cstdint>
#include <cstring>

#include "shm/base/cpu_pause.h"
#include "shm/hot_key.h"
#include "shm/hot_table.h"

namespace sutra {

class HotReader {
 public:
  HotReader() = default;
  // `page`: of the engine that writes the table.
  HotReader(const HotTableView& view, const EnginePage* page) : view_(view), page_(page) {
    assert(view.geometry.valid() && page != nullptr);
    seed_ = view_.header().seed;  // read once; the header does not change any more
  }

  HotKey KeyOf(std::string_view text, uint32_t variant) const { return HotKey(text, variant, seed_); }

  // RETURNS true with the vector in unit[0, width), its value and its slot; or false, and what is at `unit` means
  // nothing. now_ns() says what time it is on the engine's CLOCK_MONOTONIC; it is asked after the copy.
  template <typename Now>
  bool Find(HotKey* key, const Now& now_ns, float* unit, HotValue* value, uint32_t* slot) const {
    const SharedWord<uint64_t>* const bucket = view_.bucket(key->bucket(view_.geometry.buckets()));
    for (uint32_t i = 0; i < kHotCellsPerBucket; ++i) {
      const uint64_t cell = bucket[i].load(std::memory_order_relaxed);  // relaxed: a hint, which the digest confirms
      const uint32_t index = HotCellSlot(cell);
      if (HotCellTag(cell) != key->tag() || index >= view_.geometry.slots) continue;
      Prefetch(index);  // the lines come while the digest is computed
      if (!Copy(index, key->digest(), unit, value)) continue;
      *slot = index;
      return IsUsable(*value, now_ns());
    }
    return false;
  }

 private:
  void Prefetch(uint32_t index) const {
    const std::byte* const at = view_.slot_base(index);
    for (uint64_t offset = 0; offset < view_.geometry.slot_bytes(); offset += 64) __builtin_prefetch(at + offset);
  }

  // RETURNS false if the slot has another key, or was being written at every try.
  bool Copy(uint32_t index, const ShaWords& digest, float* unit, HotValue* value) const {
    assert(index < view_.geometry.slots);
    const HotSlot& slot = view_.slot(index);
    for (int i = 0; i < kHotReadTriesMax; ++i) {
      // SYNC H1 (acquire): what was written under this sequence, and not before; meets SYNC H1 (release) in
      // HotWriter::EndWrite.
      const uint64_t sequence = slot.sequence.load(std::memory_order_acquire);
      if (sequence % 2 != 0) {
        CpuPause();
        continue;
      }
      // relaxed, all of them: the sequence says whether they belong together
      uint64_t differing = 0;
      for (int word = 0; word < 4; ++word) {
        differing |= slot.digest[word].load(std::memory_order_relaxed) ^ digest.words[word];
      }
      if (differing != 0) return false;
      value->expires_ns = slot.expires_ns.load(std::memory_order_relaxed);
      const uint64_t norm_and_tokens = slot.norm_and_tokens.load(std::memory_order_relaxed);
      value->flags = static_cast<uint32_t>(slot.flags_and_cell.load(std::memory_order_relaxed));
      CopyVector(view_.vector(index), unit);
      // Orders the copy before the second look: a writer that has touched what was copied had made the sequence odd.
      std::atomic_thread_fence(std::memory_order_acquire);
      if (slot.sequence.load(std::memory_order_relaxed) != sequence) continue;  // relaxed: see the fence
      const auto norm_bits = static_cast<uint32_t>(norm_and_tokens);
      std::memcpy(&value->norm, &norm_bits, sizeof(value->norm));
      value->token_count = static_cast<uint32_t>(norm_and_tokens >> 32);
      return true;
    }
    return false;
  }

  void CopyVector(const SharedWord<uint64_t>* words, float* unit) const {
    const uint32_t pairs = view_.geometry.width / 2;
    for (uint32_t i = 0; i < pairs; ++i) {
      const uint64_t word = words[i].load(std::memory_order_relaxed);  // relaxed: as above
      std::memcpy(unit + 2 * i, &word, sizeof(word));
    }
    if (view_.geometry.width % 2 == 0) return;
    const uint64_t word = words[pairs].load(std::memory_order_relaxed);  // relaxed: as above
    std::memcpy(unit + 2 * pairs, &word, sizeof(float));
  }

  // Looked at after the copy, which the fence in Copy puts before: what a removal took out is not found by a look-up
  // that comes later, and one that began before ends here if its thread slept meanwhile. relaxed: only numbers.
  bool IsUsable(const HotValue& value, uint64_t now_ns) const {
    const HotHeader& header = view_.header();
    const uint64_t heartbeat_ns = page_->heartbeat_ns.load(std::memory_order_relaxed);
    const uint64_t age_ns = now_ns > heartbeat_ns ? now_ns - heartbeat_ns : heartbeat_ns - now_ns;
    const uint64_t boot_ns = now_ns + header.boot_ahead_ns.load(std::memory_order_relaxed);
    return age_ns < kHotHeartbeatNsMax && boot_ns < value.expires_ns &&
           header.closed.load(std::memory_order_relaxed) == 0;
  }

  HotTableView view_;
  const EnginePage* page_ = nullptr;
  uint64_t seed_ = 0;
};

}  // namespace sutra
