// One lane as the client sees it: slots, requests and tickets, which outlive any engine, and the attachment to the
// engine that serves them now, if there is one. resubmission.h has what happens when that one is gone.
//
// Thread rule: functions named ...Locked need the lane's mutex, which is held for short, bounded work and never while
// waiting. A slot between SubmitLocked and ReleaseLocked belongs to its ticket, which one thread uses at a time, or to
// the blocking call that submitted it; waiting holds no lock, so no thread waits for another's request.
//
// Invariants:
//   - A slot is free, held (by a ticket or by a blocking call) or abandoned (released before its engine answered).
//   - Only a slot that a ticket holds has a ticket: what a blocking call holds can be neither polled nor released.
//   - A request ends once: whoever sets ClientSlot::ended decides, and everyone else takes that word.
//   - A held slot pins every attachment from the first that its request was published in to its home, the last one.
//   - A slot is submitted again only after the engine answered its last request, or is gone: the submission ring cannot
//     overflow, and no living engine is ever given a slot that it holds.
//   - Sequences of a ClientLane never repeat, whichever engines it is attached to.
//   - An attachment that is gone stays mapped until its last pin, and so do its descriptors until the last doorbell.
#pragma once

#include <stdint.h>

#include <atomic>

#include "producer/attachment.h"
#include "producer/client_signals.h"
#include "producer/tail_arena.h"
#include "shm/base/cycle_clock.h"
#include "shm/base/mutex.h"
#include "shm/lane_ring.h"

namespace sutra::client {

class HotTickets;

inline constexpr uint64_t kSleepSliceNs = 200 * kNsPerMs;    // a sleeping waiter checks the engine's lock this often
inline constexpr uint64_t kHeartbeatOldNs = 500 * kNsPerMs;  // from this age on a submit checks it too
inline constexpr uint64_t kAliveCheckNs = 50 * kNsPerMs;     // but at most this often
inline constexpr uint64_t kSweepNs = 20 * kNsPerMs;          // sutra_poll checks every slot this often
inline constexpr uint32_t kReapLooksMax = 64;                // abandoned slots that one call looks at
inline constexpr uint32_t kSlotMask = kSlotsMax - 1;

enum class SlotPhase : uint32_t {
  kFree,
  kTicket,     // the caller has a ticket for it
  kCall,       // of a blocking call, which releases it before it returns
  kAbandoned,  // released, but the engine owes the answer
};

// A ticket is sequence | lane | slot. 0 is never one: no sequence has only zeros in the bits that a ticket keeps of it.
inline constexpr int kTicketSlotBits = 12, kTicketLaneBits = 6;
inline constexpr uint64_t kTicketSequenceMask = (uint64_t{1} << (64 - kTicketSlotBits - kTicketLaneBits)) - 1;
constexpr sutra_ticket TicketNumber(uint64_t sequence, uint32_t lane, uint32_t slot) {
  return (sequence & kTicketSequenceMask) << (kTicketSlotBits + kTicketLaneBits) | uint64_t{lane} << kTicketSlotBits |
         slot;
}

struct ClientSlot {
  std::atomic<sutra_ticket> ticket = 0;  // 0 unless a ticket holds the slot; one word, so that a stale one never fits
  // Where the request was last published; of a held or abandoned slot it is never nullptr. See HomeOf.
  std::atomic<Attachment*> home = nullptr;
  std::atomic<uint32_t> ended = 0;     // how the request ended (slot_end.h); 0 = not yet
  std::atomic<uint32_t> reported = 0;  // 1 = the caller knows that it is done
  SlotPhase phase = SlotPhase::kFree;  // under the lane's mutex
  uint32_t tail_first = 0;             // of a long text: its pages in the tail file; under the mutex
  uint32_t tail_pages = 0;             // 0 = none
  uint32_t abandoned_at = 0;           // of an abandoned slot: its place in the ring of them; under the mutex
  // Written under the mutex by the submit; then of whoever holds the slot. All that the next engine has to be told.
  uint32_t text_bytes = 0;
  Attachment* first = nullptr;  // where the request was published first
  uint64_t sequence = 0;
  uint64_t tag = 0;
  uint64_t submitted_ns = 0;  // our clock
  uint64_t deadline_ns = 0;
  uint32_t flags = 0;
  uint32_t width = 0;
  uint32_t ttl_s = 0;
  uint16_t priority = 0;
  bool fail_fast = false;     // ends with its engine
  uint32_t cancel_epoch = 0;  // of the call that submitted it
};

struct ClientLane {
  // `slot_memory` has room for `slots` entries, `index_memory` for three times as many.
  ClientLane(ClientSignals* of_client, uint32_t table_index, uint32_t slots_wanted, ClientSlot* slot_memory,
             uint16_t* index_memory, uint64_t sequence_first)
      : signals(of_client),
        index(table_index),
        slot_count(slots_wanted),
        slots(slot_memory),
        sequence_next(sequence_first),
        free_stack(index_memory),
        free_count(slots_wanted),
        abandoned_ring(index_memory + slots_wanted),
        move_order(index_memory + 2 * slots_wanted) {
    for (uint32_t i = 0; i < slots_wanted; ++i) free_stack[i] = static_cast<uint16_t>(slots_wanted - 1 - i);
  }

  Mutex mutex;
  ClientSignals* const signals;
  const uint32_t index;  // in the client's table
  const uint32_t slot_count;
  ClientSlot* const slots;
  WelcomeMessage served = {};  // what the first engine said of itself: the next one must be the same model
  // Why the lane takes no request: how its last engine ended, or SUTRA_ENGINE_GONE before the first; 0 = it is open.
  // Changes under the mutex.
  std::atomic<uint32_t> lost = SUTRA_ENGINE_GONE;
  SharedWord<uint32_t> moves = {};  // passes that ended or moved requests of a gone engine: what their waiters sleep on
  std::atomic<uint32_t> spin_misses = 0;  // waits in a row that outlasted the spin budget
  std::atomic<uint32_t> spin_skip = 0;    // waits left that do not spin

  // The engine that serves the lane; after its end, until the next one, while anything still pins it; or nullptr.
  Attachment* current SUTRA_GUARDED_BY(mutex) = nullptr;
  Attachment* newest SUTRA_GUARDED_BY(mutex) = nullptr;  // the end of the chain of all that are mapped
  uint32_t attachments_made SUTRA_GUARDED_BY(mutex) = 0;

  SubmissionWriter submissions SUTRA_GUARDED_BY(mutex);   // of the current one while the lane is open
  CompletionReader completions SUTRA_GUARDED_BY(mutex);   // the same
  uint64_t sequence_next SUTRA_GUARDED_BY(mutex);         // starts at a random number: old tickets mean nothing here
  uint16_t* const free_stack SUTRA_PT_GUARDED_BY(mutex);  // last in, first out: the warm slot is used again
  uint32_t free_count SUTRA_GUARDED_BY(mutex);
  // The abandoned slots, about first in, first out: the engine answers them about in this order.
  uint16_t* const abandoned_ring SUTRA_PT_GUARDED_BY(mutex);
  uint32_t abandoned_first SUTRA_GUARDED_BY(mutex) = 0;
  uint32_t abandoned_count SUTRA_GUARDED_BY(mutex) = 0;
  uint16_t* const move_order SUTRA_PT_GUARDED_BY(mutex);  // of resubmission.cc
  TailArena tail SUTRA_GUARDED_BY(mutex);                 // where the long texts lie
  // Made with the first ticket whose text was in the hot table. Set under the mutex; of a slot with such a ticket it
  // may be read by whoever holds the slot.
  HotTickets* hot_tickets = nullptr;
  uint64_t sweep_at_ns SUTRA_GUARDED_BY(mutex) = 0;
  bool sweep_due SUTRA_GUARDED_BY(mutex) = false;
  uint32_t cancels_swept SUTRA_GUARDED_BY(mutex) = 0;  // cancel_epoch at the last sweep
  bool room_asked SUTRA_GUARDED_BY(mutex) =
      false;  // a call found the lane full: the next slot that comes free is told of
  bool pipe_watched SUTRA_GUARDED_BY(mutex) = false;  // by the client's event descriptor: sutra_poll arms the pipe
  bool armed SUTRA_GUARDED_BY(mutex) = false;         // what ClientLine::event_armed says
  std::atomic<uint32_t> death_due = 0;  // 1 = the engine is gone, and the helper thread has not told anyone yet
};

struct Request {  // sutra_options, checked
  uint64_t tag = 0;
  uint64_t timeout_ns = kRequestTimeoutNsDefault;
  uint32_t flags = 0;
  uint32_t width = 0;
  uint32_t ttl_s = 0;
  uint32_t priority = kPriorityNormal;
  bool fail_fast = false;     // end with the engine
  uint32_t cancel_epoch = 0;  // when the call began (cancel_all.h)
};

// RETURNS nullptr when out of memory. A ClientLane is never freed before the client, only attached again.
ClientLane* MakeClientLane(ClientSignals* signals, uint32_t index, uint32_t slots);
void DestroyClientLane(ClientLane* lane, bool forked);

// Lets the lane take requests at `attachment`, which becomes the current one. REQUIRES a lane without one that serves,
// and that every request which is neither answered nor ended has `attachment` as its home.
void OpenLocked(ClientLane* lane, Attachment* attachment) SUTRA_REQUIRES(lane->mutex);
// Its last step, where a move has published requests before: the writer of the new submission ring is `submissions`.
void OpenLocked(ClientLane* lane, Attachment* attachment, const SubmissionWriter& submissions)
    SUTRA_REQUIRES(lane->mutex);
// Adds a new attachment to the lane's chain, which owns it from here on.
void AddLocked(ClientLane* lane, Attachment* attachment) SUTRA_REQUIRES(lane->mutex);

// Keeps the current attachment's memory and descriptors until UnpinLocked. RETURNS nullptr if there is none.
Attachment* PinLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
Attachment* Pin(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);
void UnpinLocked(ClientLane* lane, Attachment* attachment) SUTRA_REQUIRES(lane->mutex);
void Unpin(ClientLane* lane, Attachment* attachment) SUTRA_EXCLUDES(lane->mutex);
// Of all attachments that the slot's request was in.
void UnpinSlotLocked(ClientLane* lane, const ClientSlot& slot) SUTRA_REQUIRES(lane->mutex);
// Everyone who slept on a gone attachment knows of it: takes its descriptors out of what is watched, closes them with
// the last doorbell, and the attachment with its last pin.
void ToldLocked(ClientLane* lane, Attachment* attachment) SUTRA_REQUIRES(lane->mutex);

// SUTRA_OK, or why this lane takes no new request: SUTRA_ENGINE_GONE, SUTRA_SHUTTING_DOWN, ...
// *stalled is set if the engine's heartbeat is old: it is stopped or overloaded, or dead, as CheckAlive will say.
sutra_status UsableLocked(ClientLane* lane, uint64_t now_ns, bool* stalled) SUTRA_REQUIRES(lane->mutex);
// Frees abandoned slots whose requests the engine has answered, among the kReapLooksMax that it looks at: each look
// takes a line from the engine. RETURNS free_count.
uint32_t ReapLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
// Frees all of them: the engine that owed their answers is gone.
void FreeAbandonedLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
// ReapLocked of one abandoned slot.
void ReapSlotLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex);

// Whether a text of so many bytes can be submitted: a slot is free, and for a long text a run of pages. Reaps where
// that may help. `claimant`: of a claim on pages (TailArena), or 0.
bool HasRoomLocked(ClientLane* lane, uint32_t text_bytes, uintptr_t claimant) SUTRA_REQUIRES(lane->mutex);
// Takes a free slot (REQUIRES free_count > 0) for `holder` (kTicket or kCall), copies the text and publishes it; the
// caller rings afterwards. SUTRA_FULL where HasRoomLocked would have said so, SUTRA_OUT_OF_MEMORY.
sutra_status SubmitLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request,
                          uint64_t now_ns, SlotPhase holder, uint32_t* slot) SUTRA_REQUIRES(lane->mutex);
// The half of a submit that concerns the client alone: the free slot `index`, the next one of the free stack, becomes
// `holder`'s, for a request that has ended (`ended`), or that the caller publishes at once (0).
void TakeSlotLocked(ClientLane* lane, uint32_t index, const Request& request, uint32_t text_bytes, uint64_t now_ns,
                    SlotPhase holder, uint32_t ended) SUTRA_REQUIRES(lane->mutex);
// Gives a held slot back, and its pins with it.
void ReleaseLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex);

// Of a slot that was submitted for a ticket and is still held by it.
inline sutra_ticket TicketOf(const ClientLane* lane, uint32_t slot) {
  return lane->slots[slot].ticket.load(std::memory_order_relaxed);  // relaxed: under the mutex, or of the caller's
}

// After publishing one request or many: wakes the engine if it sleeps. The system call is made without the mutex, when
// another thread may already have released the new tickets: the pin keeps the descriptors open meanwhile.
void UnlockAndRing(ClientLane* lane) SUTRA_RELEASE(lane->mutex);
// Its two halves. RETURNS nullptr if the engine is awake and polls the lane: then there is nothing to ring and no pin.
Attachment* PinForRingLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
void RingPinned(ClientLane* lane, Attachment* attachment) SUTRA_EXCLUDES(lane->mutex);

// Lets the engine ring for each answer from here on, or no more. REQUIRES pipe_watched.
void ArmLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
void DisarmLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
// Adds an open lane's pipe to the client's event descriptor, if there is one.
void WatchPipeLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);

// Looks whether the engine of the current attachment, or of `attachment`, which the caller pins, is gone. RETURNS false
// once it is; results that were published before are visible then. The first to see it marks the lane: from here on
// no submit enters, abandoned slots are free, and the helper thread is called.
bool CheckAliveLocked(ClientLane* lane, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex);
bool CheckAlive(ClientLane* lane, Attachment* attachment, uint64_t now_ns) SUTRA_EXCLUDES(lane->mutex);
inline bool IsLost(const ClientLane* lane) {
  return lane->lost.load(std::memory_order_relaxed) != 0;  // relaxed: under the mutex, or a hint
}

inline Attachment* HomeOf(const ClientLane* lane, uint32_t slot) {
  // SYNC C5 (acquire): the mapping of the attachment; meets SYNC C5 (release) in PublishLocked of resubmission.cc.
  return lane->slots[slot].home.load(std::memory_order_acquire);
}
// Whether the engine of the slot's home has answered its request.
inline bool IsAnswered(const ClientLane* lane, uint32_t slot) {
  const ReplyLane& reply = HomeOf(lane, slot)->connection.mapping.reply;
  return ResultWordSequence(LoadResultWord(reply, slot)) == lane->slots[slot].sequence;
}
// On the engine's clock, whatever time namespace it lives in.
inline uint64_t OnEngineClock(const Attachment& attachment, uint64_t ns) {
  return ns + static_cast<uint64_t>(attachment.connection.engine_clock_ahead_ns);
}
// Writes a slot's request, but for its text, as the attachment's engine reads it. The ring entry publishes it.
void WriteDescriptor(const Attachment& attachment, const ClientSlot& slot, uint32_t index, uint64_t tail_offset);
// The place of a slot's long text in the tail file of its home.
inline uint64_t TailOffset(const ClientSlot& slot) { return slot.tail_first * kPageBytes; }

}  // namespace sutra::client
