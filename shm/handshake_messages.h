// The four messages of an attach, over a SOCK_SEQPACKET Unix socket; one connection is one lane for life.
//
//   client                                  engine
//   HelloMessage                    ->
//                                   <-      WelcomeMessage + SCM_RIGHTS, the descriptors of WelcomeFd; or a refusal
//                                           without descriptors
//   (maps, takes the POSIX write lock on byte 0 of the request memfd)
//   LockedMessage                   ->
//                                   <-      ServingMessage: the lane is served from here on
//   afterwards: any single byte except 0 = doorbell; 0 = goodbye, sent by a detach; hang-up = the lane is gone
//
// Fixed-size, little-endian, zero-filled strings. Header-only and free of the C++ runtime.
#pragma once

#include <cstdint>

namespace sutra {

inline constexpr uint64_t kHandshakeMagic = 0x4B48534152545553;  // "SUTRASHK"
inline constexpr uint64_t kAttachStepMsMax = 1000;               // each step of an attach, on the engine's side

struct HelloMessage {
  uint64_t magic;
  uint16_t layout_major;
  uint16_t layout_minor;
  uint32_t slots;           // 0 = the engine's default
  uint32_t width;           // 0 = any; otherwise refused unless the model has it
  uint32_t text_bytes_max;  // 0 = the engine's default; refused if over the engine's limit
  uint64_t flags;           // 0
  char model[128];          // "" = any; otherwise must be the model's name or a prefix of its identity
  char client_name[64];     // shown to the operator
};
static_assert(sizeof(HelloMessage) == 224);

struct WelcomeMessage {
  uint64_t magic;
  uint16_t layout_major;
  uint16_t layout_minor;
  uint32_t status;  // StatusCode; unless ok, `message` says why and no descriptors come with it
  uint32_t slots;
  uint32_t width;
  uint32_t text_bytes_max;
  uint32_t tokens_max;
  uint64_t engine_generation;
  uint64_t lane_id;
  uint64_t engine_now_ns;   // CLOCK_MONOTONIC of the engine, for the client's offset
  uint32_t normalizes;      // 1 = vectors have unit length by default
  uint32_t engine_pid;      // for display
  uint32_t retry_after_ms;  // of a refusal with status `overloaded`: worth another try then; otherwise 0
  uint32_t hot_slots;       // of the hot table whose descriptor comes with it; 0 = none does
  char model[128];
  char identity[72];  // 64 hex digits
  char message[256];
};
static_assert(sizeof(WelcomeMessage) == 528);

// The descriptors of a welcome, in the order in which they are sent. The last only to a client whose hello has minor 1
// or more, that may have it, and where there is a hot table.
enum WelcomeFd : uint8_t {
  kFdRequest = 0,        // memfd; carries the client's lock
  kFdReply = 1,          // memfd; carries the engine's lock
  kFdTail = 2,           // memfd
  kFdPage = 3,           // memfd of the engine page
  kFdEvent = 4,          // read end of the event pipe
  kWelcomeFds,           // that always come
  kFdHot = kWelcomeFds,  // memfd of the hot table
  kWelcomeFdsMax
};

struct LockedMessage {
  uint64_t magic;
  uint64_t lane_id;
};

struct ServingMessage {
  uint64_t magic;
  uint32_t status;  // StatusCode
  uint32_t reserved;
};

}  // namespace sutra
