// The client object behind embed.h: its lanes, which of them a call uses, and attaching anew after an engine's death.
//
// Thread rule: any thread. A call holds at most one lane's mutex and never waits with it; `open_mutex` is taken without
// a lane's mutex held. Invariants: the table's lanes are made once and never freed before the client; every lane has the
// same slot count, width and model identity, since the callers' buffers depend on them.
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <atomic>

#include "producer/thread_state.h"
#include "producer/client_lane.h"
#include "producer/sized_struct.h"

namespace sutra::client {

inline constexpr uint32_t kLanesDefault = 4;
inline constexpr uint32_t kLanesLimit = 32;
inline constexpr uint32_t kLaneTableSize = 64;  // open lanes, and dead ones whose vectors are still held
inline constexpr uint64_t kReopenTimeoutNs = 100 * kNsPerMs;
inline constexpr uint64_t kBackoffNsMin = 10 * kNsPerMs;
inline constexpr uint64_t kBackoffNsMax = 500 * kNsPerMs;

}  // namespace sutra::client

struct sutra_client {
  char path[108];
  sutra::HelloMessage hello;  // of the next lane
  sutra_info info;            // engine_pid and engine_generation change under open_mutex
  uint32_t lanes_max;
  uint64_t spin_ns;
  pid_t pid;
  const uint32_t* not_forked;  // 1; its page is zeroed in a forked child; nullptr = compare pid instead

  std::atomic<sutra::client::Lane*> lanes[sutra::client::kLaneTableSize];
  std::atomic<uint32_t> lane_count;  // entries of `lanes` in use

  pthread_mutex_t open_mutex;  // one thread opens a lane at a time
  std::atomic<uint64_t> open_after_ns;  // backoff
  uint64_t backoff_ns;                  // this and the next two under open_mutex
  sutra_status open_status;             // of the last attempt that left the client without a lane
  char open_text[sizeof(sutra::client::ThreadState::error_text)];
};

namespace sutra::client {

inline bool IsForked(const sutra_client* client) {
  return client->not_forked != nullptr ? *client->not_forked == 0 : getpid() != client->pid;
}
sutra_status FailForked();

// RETURNS a lane with its mutex held, open, and with at least one free slot; or nullptr and *status: SUTRA_FULL,
// SUTRA_ENGINE_GONE, SUTRA_SHUTTING_DOWN, ... Opens a lane where that helps and is possible within kReopenTimeoutNs.
Lane* AcquireLane(sutra_client* client, uint64_t now_ns, sutra_status* status);
// The same for blocking calls: waits for a slot until `until_ns` where AcquireLane says SUTRA_FULL.
Lane* AcquireLaneWaiting(sutra_client* client, uint64_t until_ns, sutra_status* status);

// RETURNS SUTRA_OK, SUTRA_BAD_ARGUMENT for NULL, or SUTRA_FORKED.
sutra_status CheckClient(const sutra_client* client);
// RETURNS SUTRA_BAD_ARGUMENT; `argument` is the name of what is NULL.
sutra_status FailNull(const char* argument);
// RETURNS the status for a structure of a caller that could not be read (not kOk), and explains it.
sutra_status FailStruct(const char* type, StructRead read);

// The first lane, of sutra_attach.
sutra_status OpenFirstLane(sutra_client* client, uint64_t deadline_ns);

// Checks options and text of a request. RETURNS SUTRA_OK or what sutra_submit returns.
sutra_status CheckRequest(const sutra_client* client, const sutra_options* options, Request* request);
sutra_status CheckText(const sutra_client* client, const char* text, size_t text_bytes);

// Waits for a live slot until `until_ns` (0 = look once) or its deadline. RETURNS its final status or SUTRA_NOT_READY.
sutra_status WaitSlot(sutra_client* client, Lane* lane, uint32_t slot, uint64_t until_ns);

// sequence | lane | slot; 0 is never one, because sequences start at 1.
inline constexpr int kTicketSlotBits = 12, kTicketLaneBits = 6;
inline constexpr uint64_t kTicketSequenceMask = (uint64_t{1} << (64 - kTicketSlotBits - kTicketLaneBits)) - 1;
inline sutra_ticket MakeTicket(const Lane* lane, uint32_t slot) {
  const uint64_t sequence = lane->slots[slot].sequence.load(std::memory_order_relaxed);  // relaxed: ours
  return (sequence & kTicketSequenceMask) << (kTicketSlotBits + kTicketLaneBits) |
         uint64_t{lane->index} << kTicketSlotBits | slot;
}

}  // namespace sutra::client
