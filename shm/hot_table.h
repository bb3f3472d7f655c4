// The hot table: vectors that clients read themselves, before they send anything. One memfd per served model, written
// by its engine and mapped read-only by the clients of its trust domain. No text is in it.
//
//   HotHeader | buckets: 8 cells each, one line | slots: HotSlot, the unit vector, padding to 64 bytes
//
// The XXH3-128 of (variant, text) under the table's random seed places a key: its low half chooses the bucket, the
// upper 32 bits of its high half are the tag in a cell, whose other half names the slot. There are four cells per slot,
// so one key in thousands finds its bucket full and takes another's cell. SHA-256 of (variant, text) in the slot
// confirms it: whoever finds no tag, which is the way of a miss, never computes it.
//
// A slot has a 64-bit sequence that is odd while it is written. A reader copies the slot, looks at the sequence again,
// and only then believes the copy; after kReadTriesMax tries it is a miss. It registers nothing, holds nothing and
// blocks nobody, and checks every number that it has read: a table of random bytes costs it a miss.
//
// A reader uses the table only while the heartbeat in the engine page is younger than kHotHeartbeatNsMax and the table
// is not closed: an engine that took over confirms a removal only when that time has passed twice since it has the
// locks, so no client answers from the table of the dead one by then.
//
// Thread rule: HotReader: any number of threads and processes, at any time. HotWriter: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/base/numbers.h"
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
static_assert(sizeof(HotHeader) == 256);

struct alignas(64) HotSlot {
  SharedWord<uint64_t> sequence;         // odd: being written; 0 = never used
  SharedWord<uint64_t> digest[4];        // SHA-256
  SharedWord<uint64_t> expires_ns;       // on the engine's CLOCK_BOOTTIME; 0 = empty
  SharedWord<uint64_t> norm_and_tokens;  // bits of the float | token count << 32
  SharedWord<uint64_t> flags;            // ResultFlag
};
static_assert(sizeof(HotSlot) == 64);

// A cell: tag << 32 | slot + 1; 0 = empty.
constexpr uint64_t HotCell(uint32_t tag, uint32_t slot) { return uint64_t{tag} << 32 | (slot + 1); }

// Where everything lies, computed from width and slots by both sides, never believed from shared memory.
struct HotGeometry {
  uint32_t width = 0;
  uint32_t slots = 0;
  // As many slots as fit into `bytes`; 0 slots if none does.
  static constexpr HotGeometry Of(uint32_t width, uint64_t bytes);
  constexpr uint64_t slot_bytes() const { return sizeof(HotSlot) + RoundUp(uint64_t{width} * 4, 64); }
  constexpr uint32_t buckets() const {
    return static_cast<uint32_t>(RoundUp(uint64_t{slots} * kHotCellsPerSlot, kHotCellsPerBucket) / kHotCellsPerBucket);
  }
  constexpr uint64_t buckets_at() const { return sizeof(HotHeader); }
  constexpr uint64_t slots_at() const { return RoundUp(buckets_at() + uint64_t{buckets()} * 64, 4096); }
  constexpr uint64_t bytes() const { return RoundUp(slots_at() + slots * slot_bytes(), 4096); }
};

}  // namespace sutra
