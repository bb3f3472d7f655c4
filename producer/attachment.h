// One connection of a lane to one engine. A lane has at most one that serves, its current one; those before it are
// gone, and stay mapped while anything needs their memory: a vector that was delivered in place, a request that still
// has to be copied to the next engine, a waiter that looks at their words, a doorbell under way.
//
// Thread rule: `pins`, `rings`, `told`, `previous` and what opens or closes descriptors belong to whoever has the
// lane's mutex. The mappings may be read by whoever holds a slot that pins the attachment, without the mutex.
// Invariants: only the kernel's lock, or the engine's own word, says that an engine is gone, never a closed socket, an
// old heartbeat or `draining`; `gone` is set once; whoever sees it sees the answers that preceded it.
#pragma once

#include <stdint.h>

#include <atomic>

#include "producer/attach.h"
#include "shm/hot_reader.h"

namespace sutra::client {

struct Attachment {
  Attachment(const LaneConnection& made, uint32_t of_lane) : connection(made), number(of_lane) {}

  LaneConnection connection;
  HotReader hot;                   // of connection.hot; under the lane's mutex
  float* hot_scratch = nullptr;    // room for a vector that is not checked yet; nullptr = no hot table
  const uint32_t number;           // counts the attachments of a lane, from 1
  std::atomic<uint32_t> gone = 0;  // how it ended: a sutra_status, perhaps kGoneForGood; 0 = it serves
  std::atomic<uint64_t> alive_checked_ns = 0;
  std::atomic<Attachment*> next = nullptr;  // the lane's next one; of two that a held slot pins it stays
  Attachment* previous = nullptr;
  uint32_t pins = 0;   // held slots that were published in it, and threads that use it without one
  uint32_t rings = 0;  // of these, threads that use the descriptors
  bool told = false;   // gone, and everyone who slept on it knows: it is closed with its last pin
};

inline bool IsGone(const Attachment& attachment) {
  return attachment.gone.load(std::memory_order_acquire) != 0;  // SYNC C1 (acquire): meets MarkGoneLocked
}

// In `gone`: its requests end with the status and are not moved: the engine refuses them, or may have emptied the lane.
inline constexpr uint32_t kGoneForGood = 0x100;
constexpr sutra_status GoneStatus(uint32_t gone) { return gone & ~kGoneForGood; }

// RETURNS nullptr when out of memory.
Attachment* MakeAttachment(const LaneConnection& connection, uint32_t number);
// Closes what is open. `forked`: see CloseConnection.
void DestroyAttachment(Attachment* attachment, bool forked);

// Asks the engine's word and the kernel. RETURNS 0 while the engine lives, even if it is stopped, and otherwise how it
// ended: SUTRA_ENGINE_GONE (died), SUTRA_SHUTTING_DOWN, or with kGoneForGood SUTRA_PROTOCOL_VIOLATION or, if it closed
// the lane for any other reason, SUTRA_ENGINE_GONE. What it answered is visible then.
uint32_t AskHowGone(Attachment* attachment, uint64_t now_ns);
// True if the engine's end of the socket is closed: a hint to ask now. REQUIRES the descriptors.
bool HungUp(const Attachment& attachment);
// REQUIRES IsGone and a pin. Wakes the threads that sleep on the attachment's futex word until none is left.
void WakeUntilNoneSleeps(const Attachment& attachment);

}  // namespace sutra::client
