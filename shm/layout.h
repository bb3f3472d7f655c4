// Every byte that two processes share in a lane and in the engine page; LAYOUT.md is its picture and its history.
// This header alone defines them. Standard-layout structs of fixed-width integers, positions as indices, zero harmless
// everywhere (a client may punch holes into its own files). Header-only and free of the C++ runtime.
//
//   request lane (client writes, engine maps read-only)      reply lane (engine writes, client maps read-only)
//     LaneHeader            written by the engine once          LaneHeader
//     ClientLine            sleep and event words               EngineLine         futex word, state
//     submission ring       u64[slots]                          completion ring    u64[slots]
//     RequestDescriptor[slots]                                  ResultDescriptor[slots]
//     text heads            256 B per slot                      vectors            one per slot, 64-byte aligned
//
//   tail file (client writes; sparse; the engine never maps it and reads it with pread)
//     the texts that are longer than a head, each one whole, where its descriptor says
//
// Life of a slot: free -> submitted -> taken -> done -> free (LAYOUT.md says what a death at each arrow does).
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm/base/numbers.h"
#include "shm/shared_word.h"

namespace sutra {

inline constexpr uint16_t kLayoutMajor = 3;  // another major cannot attach
inline constexpr uint16_t kLayoutMinor = 1;  // additions that an older peer may ignore
inline constexpr uint32_t kLayoutVersion = uint32_t{kLayoutMajor} << 16 | kLayoutMinor;

inline constexpr uint64_t kRequestLaneMagic = 0x5145524152545553;  // "SUTRAREQ"
inline constexpr uint64_t kReplyLaneMagic = 0x5045524152545553;    // "SUTRAREP"
inline constexpr uint64_t kEnginePageMagic = 0x474E454152545553;   // "SUTRAENG"

inline constexpr uint32_t kSlotsDefault = 256;
inline constexpr uint32_t kSlotsMin = 2;
inline constexpr uint32_t kSlotsMax = 4096;                // a power of two
inline constexpr uint32_t kTextHeadBytes = 256;            // a longer text lies whole in the tail file
inline constexpr uint32_t kTextBytesMaxLimit = 16u << 20;  // of one text
inline constexpr uint32_t kTextBytesMaxDefault = kTextBytesMaxLimit;
inline constexpr uint64_t kTailBytesMax = 16u << 20;  // of a lane's tail file, so that the longest text fits into it
inline constexpr uint32_t kWidthMax = 8192;           // floats per vector
inline constexpr uint64_t kPageBytes = 4096;
inline constexpr uint32_t kHotHintsPerLane = 14;
inline constexpr uint32_t kHotHintEvery = 8;
inline constexpr uint64_t kRequestTimeoutNsDefault = 30'000'000'000;  // of a request without a deadline

struct alignas(128) LaneHeader {        // written by the engine before the lane is handed out
  SharedWord<uint32_t> layout_version;  // stored last with release; 0 = not ready
  uint32_t header_bytes;                // sizeof(LaneHeader)
  uint64_t magic;
  uint64_t segment_bytes;
  uint64_t engine_generation;   // random, non-zero, compared for equality only
  uint64_t lane_id;             // unique within a generation
  uint32_t compatible_flags;    // unknown bits are ignored
  uint32_t incompatible_flags;  // an unknown bit refuses the lane
  uint32_t slots;               // power of two
  uint32_t text_bytes_max;
  uint32_t width;                // floats per vector
  uint32_t vector_stride_bytes;  // multiple of 64
  uint8_t boot_id[16];
  uint8_t reserved[48];
};
static_assert(sizeof(LaneHeader) == 128 && offsetof(LaneHeader, magic) == 8 && offsetof(LaneHeader, slots) == 48 &&
              offsetof(LaneHeader, boot_id) == 64);

struct alignas(128) ClientLine {     // written by the client only
  SharedWord<uint32_t> sleepers;     // threads in, or about to enter, a futex wait on EngineLine::futex_word
  SharedWord<uint32_t> event_armed;  // 1 = the client's event loop wants a byte in the pipe
  uint8_t reserved[56];
  // The client's word for what it found in the hot table, from minor 1 on. It steers and shows, and decides nothing.
  SharedWord<uint64_t> hot_hits;                     // never decreases
  SharedWord<uint32_t> hot_hints[kHotHintsPerLane];  // a ring: slot of the hot table + 1, of one hit in kHotHintEvery
};
static_assert(sizeof(ClientLine) == 128 && offsetof(ClientLine, event_armed) == 4 &&
              offsetof(ClientLine, hot_hits) == 64 && offsetof(ClientLine, hot_hints) == 72);

enum LaneState : uint32_t { kLaneUnused = 0, kLaneOpen = 1, kLaneDraining = 2, kLaneClosed = 3 };

struct alignas(128) EngineLine {      // written by the engine only
  SharedWord<uint32_t> futex_word;    // bumped before each wake
  SharedWord<uint32_t> state;         // LaneState; draining: no more is taken; closed: no more is answered
  SharedWord<uint32_t> close_reason;  // StatusCode, set before kLaneClosed
  SharedWord<uint32_t> parked;  // 1 = not polled: ring the doorbell after publishing, although the engine is awake
  uint8_t reserved0[48];
  SharedWord<uint64_t> taken;  // submissions taken, for observers; stored each turn, so not beside `state`, which every
                               // submit reads
  uint8_t reserved1[56];
};
static_assert(sizeof(EngineLine) == 128 && offsetof(EngineLine, state) == 4 && offsetof(EngineLine, parked) == 12 &&
              offsetof(EngineLine, taken) == 64);

// Option bits of a request; a request with an unknown bit is answered kBadOption.
enum RequestOption : uint32_t {
  kOptionNormalize = 1u << 0,        // unit length, whatever the model's own default
  kOptionRaw = 1u << 1,              // pooled vector, not normalised; excludes kOptionNormalize
  kOptionReject = 1u << 2,           // over the token limit: kTextTooLong instead of truncation
  kOptionCacheSkipLookup = 1u << 3,  // compute even if cached (the result is stored)
  kOptionCacheSkipStore = 1u << 4,   // do not store the result
};
inline constexpr uint32_t kOptionsKnown = 0x1f;

// A request with an unknown priority is answered kBadOption.
enum RequestPriority : uint32_t { kPriorityNormal = 0, kPriorityQuery = 1, kPriorityBulk = 2, kPriorityCount };

struct alignas(64) RequestDescriptor {     // written by the client only; the engine copies it once
  SharedWord<uint64_t> sequence;           // non-zero, unique in the lane; echoed in the result word
  SharedWord<uint64_t> cancel_sequence;    // == sequence: the caller no longer wants it (a hint)
  SharedWord<uint64_t> submitted_ns;       // engine's CLOCK_MONOTONIC
  SharedWord<uint64_t> deadline_ns;        // engine's CLOCK_MONOTONIC; 0 = kRequestTimeoutNsDefault from submitted
  SharedWord<uint64_t> tag;                // the caller's, echoed
  SharedWord<uint64_t> bytes_and_options;  // text bytes | options << 32
  SharedWord<uint64_t> width_and_ttl;      // output width (0 = the model's) | ttl seconds << 32 (0 = the default)
  SharedWord<uint64_t> priority_and_tail;  // RequestPriority | offset of a long text in the tail file << 8
};
static_assert(sizeof(RequestDescriptor) == 64 && offsetof(RequestDescriptor, bytes_and_options) == 40 &&
              offsetof(RequestDescriptor, priority_and_tail) == 56);

// The offset is ignored for a text that lies in its slot's head.
constexpr uint64_t PriorityAndTail(uint32_t priority, uint64_t tail_offset) { return tail_offset << 8 | priority; }
constexpr uint32_t PriorityOf(uint64_t word) { return static_cast<uint32_t>(word & 0xff); }
constexpr uint64_t TailOffsetOf(uint64_t word) { return word >> 8; }

enum ResultSource : uint32_t {
  kSourceNone = 0,
  kSourceHotTable = 1,
  kSourceShard = 2,
  kSourceJoined = 3,
  kSourceModel = 4
};
enum ResultFlag : uint32_t { kResultTruncated = 1u << 0 };
enum Stage : uint32_t { kSubmitted, kTaken, kTokenised, kBatched, kComputed, kPublished, kStageCount };

struct alignas(128) ResultDescriptor {  // written by the engine only
  SharedWord<uint64_t> word;            // sequence << 8 | status: the truth about the slot, stored last with release
  uint64_t tag;
  uint32_t source;  // ResultSource
  uint32_t flags;   // ResultFlag
  uint32_t token_count;
  uint32_t width;                  // floats written
  uint64_t stage_ns[kStageCount];  // engine's CLOCK_MONOTONIC; 0 = stage not passed
  uint32_t retry_after_ms;         // of an `overloaded` answer: when to submit again; 0 = no hint
  uint8_t reserved[44];
};
static_assert(sizeof(ResultDescriptor) == 128 && offsetof(ResultDescriptor, stage_ns) == 32 &&
              offsetof(ResultDescriptor, retry_after_ms) == 80);

enum EngineState : uint32_t { kEngineStarting = 0, kEngineServing = 1, kEngineDraining = 2, kEngineClosed = 3 };

struct alignas(128) EnginePage {        // one memfd, engine-written, mapped read-only by every client
  SharedWord<uint32_t> layout_version;  // stored last with release
  uint32_t page_bytes;
  uint64_t magic;
  uint64_t engine_generation;
  uint8_t reserved0[104];
  alignas(128) SharedWord<uint64_t> heartbeat_ns;  // engine's CLOCK_MONOTONIC, at least every 100 ms
  SharedWord<uint32_t> state;                      // EngineState
  uint8_t reserved1[116];
  alignas(128) SharedWord<uint32_t> asleep;  // 1 = ring the doorbell (one byte on the socket) after publishing
  uint8_t reserved2[124];
};
static_assert(sizeof(EnginePage) == 384 && offsetof(EnginePage, heartbeat_ns) == 128 &&
              offsetof(EnginePage, asleep) == 256);

inline EnginePage& EnginePageAt(std::byte* base) { return *reinterpret_cast<EnginePage*>(base); }

// A ring entry is its own publication: position + 1 above the slot number. Zero is never published, so a hole reads as
// "nothing yet"; an entry of another lap is told from the expected one by its position.
constexpr uint64_t RingEntry(uint64_t position, uint32_t slot) { return (position + 1) << 16 | slot; }
constexpr uint64_t RingEntryPosition(uint64_t entry) { return (entry >> 16) - 1; }
constexpr uint32_t RingEntrySlot(uint64_t entry) { return static_cast<uint32_t>(entry & 0xffff); }
constexpr uint64_t ResultWord(uint64_t sequence, uint8_t status) { return sequence << 8 | status; }

// Where everything lies, computed by both sides from the three numbers of the handshake, never read from shared memory.
struct LaneGeometry {
  uint32_t slots = 0;
  uint32_t text_bytes_max = 0;
  uint32_t width = 0;

  constexpr bool valid() const {
    return slots >= kSlotsMin && slots <= kSlotsMax && (slots & (slots - 1)) == 0 && text_bytes_max >= kTextHeadBytes &&
           text_bytes_max <= kTextBytesMaxLimit && width >= 1 && width <= kWidthMax;
  }
  constexpr uint64_t mask() const { return slots - 1; }
  constexpr uint64_t vector_stride() const { return RoundUp(uint64_t{width} * 4, 64); }

  constexpr uint64_t client_line() const { return sizeof(LaneHeader); }
  constexpr uint64_t submission_ring() const { return client_line() + sizeof(ClientLine); }
  constexpr uint64_t requests() const { return RoundUp(submission_ring() + uint64_t{slots} * 8, 128); }
  constexpr uint64_t text_heads() const { return requests() + uint64_t{slots} * sizeof(RequestDescriptor); }
  constexpr uint64_t request_bytes() const {
    return RoundUp(text_heads() + uint64_t{slots} * kTextHeadBytes, kPageBytes);
  }

  // The tail file is an arena: a text may lie anywhere in it. It has room for the longest text, or for as many of them
  // as there are slots where that is less than the bound.
  constexpr uint64_t tail_bytes() const {
    const uint64_t all = slots * RoundUp(text_bytes_max, kPageBytes);
    return all < kTailBytesMax ? all : kTailBytesMax;
  }
  constexpr bool InTailFile(uint64_t offset, uint64_t bytes) const {
    return bytes <= tail_bytes() && offset <= tail_bytes() - bytes;
  }

  // What counts against quotas: everything at full size.
  constexpr uint64_t charged_bytes() const { return request_bytes() + tail_bytes() + reply_bytes(); }

  constexpr uint64_t engine_line() const { return sizeof(LaneHeader); }
  constexpr uint64_t completion_ring() const { return engine_line() + sizeof(EngineLine); }
  constexpr uint64_t results() const { return RoundUp(completion_ring() + uint64_t{slots} * 8, 128); }
  constexpr uint64_t vectors() const {
    return RoundUp(results() + uint64_t{slots} * sizeof(ResultDescriptor), kPageBytes);
  }
  constexpr uint64_t reply_bytes() const { return RoundUp(vectors() + slots * vector_stride(), kPageBytes); }
};

// Typed views of a mapped lane. Constness follows who may write.
struct RequestLane {
  std::byte* base = nullptr;
  LaneGeometry geometry;

  LaneHeader& header() const { return *reinterpret_cast<LaneHeader*>(base); }
  ClientLine& client() const { return *reinterpret_cast<ClientLine*>(base + geometry.client_line()); }
  SharedWord<uint64_t>& submission(uint64_t position) const {
    return reinterpret_cast<SharedWord<uint64_t>*>(base + geometry.submission_ring())[position & geometry.mask()];
  }
  RequestDescriptor& request(uint32_t slot) const {
    return reinterpret_cast<RequestDescriptor*>(base + geometry.requests())[slot];
  }
  std::byte* text_head(uint32_t slot) const { return base + geometry.text_heads() + uint64_t{slot} * kTextHeadBytes; }
  const SharedWord<uint64_t>* text_words(uint32_t slot) const {  // the same bytes, for the engine's untrusted copy
    return reinterpret_cast<const SharedWord<uint64_t>*>(text_head(slot));
  }
};

struct ReplyLane {
  std::byte* base = nullptr;
  LaneGeometry geometry;

  LaneHeader& header() const { return *reinterpret_cast<LaneHeader*>(base); }
  EngineLine& engine() const { return *reinterpret_cast<EngineLine*>(base + geometry.engine_line()); }
  SharedWord<uint64_t>& completion(uint64_t position) const {
    return reinterpret_cast<SharedWord<uint64_t>*>(base + geometry.completion_ring())[position & geometry.mask()];
  }
  ResultDescriptor& result(uint32_t slot) const {
    return reinterpret_cast<ResultDescriptor*>(base + geometry.results())[slot];
  }
  float* vector(uint32_t slot) const {
    return reinterpret_cast<float*>(base + geometry.vectors() + slot * geometry.vector_stride());
  }
};

}  // namespace sutra
