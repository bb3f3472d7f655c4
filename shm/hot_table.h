// The hot table: vectors that clients read themselves, before they send anything. One memfd per served model, written
// by its engine (hot_writer.h, hot_memory.h) and mapped read-only by the clients of its trust domain (hot_reader.h). No
// text is in it.
//
//   HotHeader | buckets: 8 cells each, one line | slots: HotSlot, the unit vector, padding to 64 bytes
//
// The XXH3-128 of (variant, text) under the table's random seed places a key (hot_key.h): the upper half of its low
// word chooses the bucket, that of its high word is the tag in a cell, whose other half names the slot. There are four
// cells per slot, so one key in thousands finds its bucket full and takes another's cell. The SHA-256 of (seed,
// variant, text) in the slot confirms it: whoever finds no tag, which is the way of a miss, never computes it.
//
// A slot has a 64-bit sequence that is odd while it is written. A reader copies the slot, looks at the sequence again,
// and only then believes the copy; after kHotReadTriesMax tries it is a miss. It registers nothing, holds nothing and
// blocks nobody, and checks every number that it has read: a table of random bytes costs it a miss.
//
// A reader uses what it copied only while the heartbeat in the engine page is younger than kHotHeartbeatNsMax, at a
// time after the copy, and the table is not closed: an engine that took over confirms a removal only when that time has
// passed twice since it has the locks, so no client answers from the table of the dead one by then.
//
// Header-only and free of the C++ runtime. Everything that several threads use is a SharedWord; the rest of the header
// is written once, before `version`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/base/numbers.h"
#include "shm/layout.h"
#include "shm/shared_word.h"

namespace sutra {

inline constexpr uint64_t kHotTableMagic = 0x544F484152545553;  // "SUTRAHOT"
inline constexpr uint32_t kHotTableVersion = 1;
inline constexpr uint64_t kHotHeartbeatNsMax = 200'000'000;  // L of the design
inline constexpr uint32_t kHotTextBytesMax = 4096;           // a longer text costs more to digest than to send
inline constexpr uint32_t kHotCellsPerBucket = 8;
inline constexpr uint32_t kHotCellsPerSlot = 4;
inline constexpr int kHotReadTriesMax = 4;
inline constexpr uint64_t kHotBytesDefault = 64ull << 20;
inline constexpr uint64_t kHotBytesMin = 64ull << 10;
inline constexpr uint64_t kHotBytesMax = 64ull << 30;

struct alignas(128) HotHeader {
  SharedWord<uint32_t> version;  // kHotTableVersion, stored last with release; 0 = not ready
  uint32_t header_bytes;
  uint64_t magic;
  uint64_t segment_bytes;
  uint64_t engine_generation;
  uint64_t seed;   // of the placement
  uint32_t width;  // floats per vector
  uint32_t slots;
  uint32_t buckets;
  uint32_t slot_bytes;
  uint8_t reserved0[56];
  alignas(128) SharedWord<uint32_t> closed;  // 1 = for ever: the engine drains, or has ended
  SharedWord<uint32_t> reserved1;
  // What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, both the engine's; stored with each heartbeat.
  SharedWord<uint64_t> boot_ahead_ns;
  uint8_t reserved2[112];
};
static_assert(sizeof(HotHeader) == 256 && offsetof(HotHeader, magic) == 8 && offsetof(HotHeader, seed) == 32 &&
              offsetof(HotHeader, slot_bytes) == 52 && offsetof(HotHeader, closed) == 128 &&
              offsetof(HotHeader, boot_ahead_ns) == 136);

struct alignas(64) HotSlot {
  SharedWord<uint64_t> sequence;         // odd: being written; 0 = never used
  SharedWord<uint64_t> digest[4];        // SHA-256
  SharedWord<uint64_t> expires_ns;       // on the engine's CLOCK_BOOTTIME; 0 = empty
  SharedWord<uint64_t> norm_and_tokens;  // bits of the float | token count << 32
  SharedWord<uint64_t> flags_and_cell;   // ResultFlag | cell << 32, which is the writer's own note
};
static_assert(sizeof(HotSlot) == 64 && offsetof(HotSlot, digest) == 8 && offsetof(HotSlot, expires_ns) == 40 &&
              offsetof(HotSlot, flags_and_cell) == 56);

// What a slot holds beside its vector.
struct HotValue {
  float norm = 0;  // of the vector before it was made a unit vector
  uint32_t token_count = 0;
  uint32_t flags = 0;       // ResultFlag
  uint64_t expires_ns = 0;  // on the engine's CLOCK_BOOTTIME
};

// A cell: tag << 32 | slot + 1; 0 = empty.
constexpr uint64_t HotCell(uint32_t tag, uint32_t slot) { return uint64_t{tag} << 32 | (slot + 1); }
constexpr uint32_t HotCellTag(uint64_t cell) { return static_cast<uint32_t>(cell >> 32); }
// No slot of any table for an empty cell.
constexpr uint32_t HotCellSlot(uint64_t cell) { return static_cast<uint32_t>(cell) - 1; }

// Where everything lies, computed from width and slots by both sides, never believed from shared memory.
struct HotGeometry {
  uint32_t width = 0;
  uint32_t slots = 0;

  // As many slots as fit into `bytes`; 0 slots if none does, or a number is outside its limits.
  static constexpr HotGeometry Of(uint32_t width, uint64_t bytes) {
    HotGeometry geometry = {width, 0};
    if (width < 1 || width > kWidthMax || bytes > kHotBytesMax || bytes < sizeof(HotHeader)) return geometry;
    const uint64_t per_slot = geometry.slot_bytes() + kHotCellsPerSlot * sizeof(uint64_t);
    geometry.slots = static_cast<uint32_t>((bytes - sizeof(HotHeader)) / per_slot);
    while (geometry.slots > 0 && geometry.bytes() > bytes) --geometry.slots;  // at most two pages' worth of them
    return geometry;
  }
  constexpr bool valid() const {
    return width >= 1 && width <= kWidthMax && slots >= 1 && slots <= kHotBytesMax / slot_bytes() &&
           bytes() <= kHotBytesMax;
  }

  constexpr uint64_t vector_words() const { return DivideRoundUp(uint64_t{width} * 4, 8); }
  constexpr uint64_t slot_bytes() const { return sizeof(HotSlot) + RoundUp(uint64_t{width} * 4, 64); }
  constexpr uint32_t buckets() const {
    return static_cast<uint32_t>(DivideRoundUp(uint64_t{slots} * kHotCellsPerSlot, kHotCellsPerBucket));
  }
  constexpr uint64_t buckets_at() const { return sizeof(HotHeader); }
  constexpr uint64_t slots_at() const { return RoundUp(buckets_at() + uint64_t{buckets()} * 64, kPageBytes); }
  constexpr uint64_t bytes() const { return RoundUp(slots_at() + slots * slot_bytes(), kPageBytes); }
};
static_assert(HotGeometry::Of(384, kHotBytesDefault).slots >= 40'000);
static_assert(kHotBytesMax / (sizeof(HotSlot) + 64) * kHotCellsPerSlot <= UINT32_MAX);  // a cell's number has 32 bits

// A typed view of a mapped table. Constness follows who may write.
struct HotTableView {
  std::byte* base = nullptr;
  HotGeometry geometry;

  HotHeader& header() const { return *reinterpret_cast<HotHeader*>(base); }
  SharedWord<uint64_t>* cells() const { return reinterpret_cast<SharedWord<uint64_t>*>(base + geometry.buckets_at()); }
  SharedWord<uint64_t>* bucket(uint32_t index) const { return cells() + uint64_t{index} * kHotCellsPerBucket; }
  std::byte* slot_base(uint32_t index) const { return base + geometry.slots_at() + index * geometry.slot_bytes(); }
  HotSlot& slot(uint32_t index) const { return *reinterpret_cast<HotSlot*>(slot_base(index)); }
  SharedWord<uint64_t>* vector(uint32_t index) const {  // geometry.vector_words() of them
    return reinterpret_cast<SharedWord<uint64_t>*>(slot_base(index) + sizeof(HotSlot));
  }
};

}  // namespace sutra
