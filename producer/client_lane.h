// One lane as the client sees it: its slots, submitting, waiting, and the engine's death.
//
// Thread rule: functions named ...Locked need the lane's mutex, which is held for short, bounded work and never while
// waiting. A slot between SubmitLocked and ReleaseLocked belongs to its ticket, which one thread uses at a time, or to
// the blocking call that submitted it; waiting takes no lock, so no thread waits for another's request.
//
// Invariants:
//   - A slot is free, held (by a ticket or by a blocking call) or abandoned (released before the engine answered).
//   - Only a slot that a ticket holds has a ticket: what a blocking call holds can be neither polled nor released.
//   - A request ends once: whoever sets ClientSlot::ended decides, and everyone else takes that word.
//   - A slot is submitted again only after the engine answered its last request: the submission ring cannot overflow.
//   - Sequences of a ClientLane never repeat, even when it is opened again for another engine.
//   - The mappings of a dead lane stay while a slot is held (vectors already delivered stay readable) and while a
//     thread pins them: to ring the doorbell, or to look for a death.
#pragma once

#include <stdint.h>

#include <atomic>

#include "producer/attach.h"
#include "producer/client_signals.h"
#include "producer/tail_arena.h"
#include "shm/base/cycle_clock.h"
#include "shm/base/mutex.h"
#include "shm/lane_ring.h"
#include "shm/sleep_wake.h"

namespace sutra::client {

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
enum class LanePhase : uint32_t { kEmpty, kOpen };

// A ticket is sequence | lane | slot. 0 is never one: no sequence has only zeros in the bits that a ticket keeps of it.
inline constexpr int kTicketSlotBits = 12, kTicketLaneBits = 6;
inline constexpr uint64_t kTicketSequenceMask = (uint64_t{1} << (64 - kTicketSlotBits - kTicketLaneBits)) - 1;
constexpr sutra_ticket TicketNumber(uint64_t sequence, uint32_t lane, uint32_t slot) {
  return (sequence & kTicketSequenceMask) << (kTicketSlotBits + kTicketLaneBits) | uint64_t{lane} << kTicketSlotBits |
         slot;
}

struct ClientSlot {
  std::atomic<sutra_ticket> ticket = 0;  // 0 unless a ticket holds the slot; one word, so that a stale one never fits
  std::atomic<uint32_t> ended = 0;       // how the request ended (slot_end.h); 0 = not yet
  std::atomic<uint32_t> reported = 0;    // 1 = the caller knows that it is done
  SlotPhase phase = SlotPhase::kFree;    // under the lane's mutex
  uint32_t tail_first = 0;               // of a long text: its pages in the tail file; under the mutex
  uint32_t tail_pages = 0;               // 0 = none
  uint32_t abandoned_at = 0;             // of an abandoned slot: its place in the ring of them; under the mutex
  // Written under the mutex by the submit; then of whoever holds the slot.
  uint64_t sequence = 0;
  uint64_t tag = 0;
  uint64_t submitted_ns = 0;  // our clock
  uint64_t deadline_ns = 0;
  uint32_t cancel_epoch = 0;  // of the call that submitted it
};

struct ClientLane {
  // `slot_memory` has room for `slots` entries, `index_memory` for twice as many.
  ClientLane(ClientSignals* of_client, uint32_t table_index, uint32_t slots_wanted, ClientSlot* slot_memory,
             uint16_t* index_memory, uint64_t sequence_first)
      : signals(of_client),
        index(table_index),
        slot_count(slots_wanted),
        slots(slot_memory),
        sequence_next(sequence_first),
        free_stack(index_memory),
        abandoned_ring(index_memory + slots_wanted) {}

  Mutex mutex;
  ClientSignals* const signals;
  const uint32_t index;  // in the client's table
  const uint32_t slot_count;
  ClientSlot* const slots;
  std::atomic<LanePhase> phase = LanePhase::kEmpty;
  std::atomic<uint32_t> gone = 0;  // sutra_status that unanswered tickets fail with; 0 = the engine is alive
  std::atomic<uint64_t> alive_checked_ns = 0;
  std::atomic<uint32_t> spin_misses = 0;  // waits in a row that outlasted the spin budget
  std::atomic<uint32_t> spin_skip = 0;    // waits left that do not spin

  // Written under the mutex while no slot is held and no doorbell pinned, so a thread that has either need not lock.
  LaneConnection connection;

  SubmissionWriter submissions SUTRA_GUARDED_BY(mutex);
  CompletionReader completions SUTRA_GUARDED_BY(mutex);
  uint64_t sequence_next SUTRA_GUARDED_BY(mutex);         // starts at a random number: old tickets mean nothing here
  uint16_t* const free_stack SUTRA_PT_GUARDED_BY(mutex);  // last in, first out: the warm slot is used again
  uint32_t free_count SUTRA_GUARDED_BY(mutex) = 0;
  // The abandoned slots, about first in, first out: the engine answers them about in this order.
  uint16_t* const abandoned_ring SUTRA_PT_GUARDED_BY(mutex);
  uint32_t abandoned_first SUTRA_GUARDED_BY(mutex) = 0;
  uint32_t abandoned_count SUTRA_GUARDED_BY(mutex) = 0;
  uint32_t ring_pins SUTRA_GUARDED_BY(mutex) = 0;  // threads that use the mapping without holding a slot
  TailArena tail SUTRA_GUARDED_BY(mutex);          // where the long texts lie
  uint64_t sweep_at_ns SUTRA_GUARDED_BY(mutex) = 0;
  bool sweep_due SUTRA_GUARDED_BY(mutex) = false;
  uint32_t cancels_swept SUTRA_GUARDED_BY(mutex) = 0;  // cancel_epoch at the last sweep
  bool room_asked SUTRA_GUARDED_BY(mutex) =
      false;  // a call found the lane full: the next slot that comes free is told of
  bool death_told SUTRA_GUARDED_BY(mutex) = false;    // to everyone who sleeps (TellDeath)
  bool pipe_watched SUTRA_GUARDED_BY(mutex) = false;  // by the client's event descriptor: sutra_poll arms the pipe
  bool armed SUTRA_GUARDED_BY(mutex) = false;         // what ClientLine::event_armed says
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

// RETURNS nullptr when out of memory. A ClientLane is never freed before the client, only opened again.
ClientLane* MakeClientLane(ClientSignals* signals, uint32_t index, uint32_t slots);
void DestroyClientLane(ClientLane* lane, bool forked);

// REQUIRES an empty lane.
void OpenLocked(ClientLane* lane, const LaneConnection& connection) SUTRA_REQUIRES(lane->mutex);
// Closes a dead lane whose tickets are all released. RETURNS true if the lane is empty now.
bool RetireLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);

// SUTRA_OK, or why this lane takes no new request: SUTRA_ENGINE_GONE, SUTRA_SHUTTING_DOWN, ...
// *stalled is set if the engine's heartbeat is old: it is stopped or overloaded, or dead, as CheckAlive will say.
sutra_status UsableLocked(ClientLane* lane, uint64_t now_ns, bool* stalled) SUTRA_REQUIRES(lane->mutex);
// Frees abandoned slots whose requests the engine has answered, among the kReapLooksMax that it looks at: each look
// takes a line from the engine. RETURNS free_count.
uint32_t ReapLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
// The same of one abandoned slot.
void ReapSlotLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex);

// Whether a text of so many bytes can be submitted: a slot is free, and for a long text a run of pages. Reaps where
// that may help. `claimant`: of a claim on pages (TailArena), or 0.
bool HasRoomLocked(ClientLane* lane, uint32_t text_bytes, uintptr_t claimant) SUTRA_REQUIRES(lane->mutex);
// Takes a free slot (REQUIRES free_count > 0) for `holder` (kTicket or kCall), copies the text and publishes it; the
// caller rings afterwards. SUTRA_FULL where HasRoomLocked would have said so, SUTRA_OUT_OF_MEMORY.
sutra_status SubmitLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request,
                          uint64_t now_ns, SlotPhase holder, uint32_t* slot) SUTRA_REQUIRES(lane->mutex);
// Gives a held slot back. The lane may be closed by it.
void ReleaseLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex);

// Of a slot that was submitted for a ticket and is still held by it.
inline sutra_ticket TicketOf(const ClientLane* lane, uint32_t slot) {
  return lane->slots[slot].ticket.load(std::memory_order_relaxed);  // relaxed: under the mutex, or of the caller's
}

// After publishing one request or many: wakes the engine if it sleeps. The system call is made without the mutex, when
// another thread may already have released the new tickets: the pin keeps the lane from being closed meanwhile.
void UnlockAndRing(ClientLane* lane) SUTRA_RELEASE(lane->mutex);
// Its two halves. RETURNS false if the engine is awake and polls the lane: then there is nothing to ring and no pin.
bool PinForRingLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
void RingPinned(ClientLane* lane) SUTRA_EXCLUDES(lane->mutex);

// Lets the engine ring for each answer from here on, or no more. REQUIRES pipe_watched.
void ArmLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
void DisarmLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);
// Adds an open lane's pipe to the client's event descriptor, if there is one.
void WatchPipeLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex);

// Asks the kernel whether the engine holds its lock. RETURNS false once the engine is gone or closed the lane; results
// that were published before are visible then.
bool CheckAlive(ClientLane* lane, uint64_t now_ns);
inline bool IsGone(const ClientLane* lane) {
  return lane->gone.load(std::memory_order_acquire) != 0;  // SYNC C1 (acquire): meets CheckAlive
}

inline bool IsAnswered(const ClientLane* lane, uint32_t slot, uint64_t sequence) {
  return ResultWordSequence(LoadResultWord(lane->connection.mapping.reply, slot)) == sequence;
}
enum class WaitEnd : uint8_t { kDone, kTime, kGone };

bool WorthSpinning(ClientLane* lane);
void NoteSpin(ClientLane* lane, bool hit);

// Waits until done(), or `until_ns` passed, or the engine is gone and still not done().
template <typename Done>
WaitEnd WaitUntil(ClientLane* lane, uint64_t until_ns, uint64_t spin_ns, const Done& done) {
  if (done()) return WaitEnd::kDone;
  uint64_t now_ns = CycleNs();
  if (spin_ns > 0 && WorthSpinning(lane)) {
    const uint64_t spin_until_ns = now_ns + spin_ns < until_ns ? now_ns + spin_ns : until_ns;
    while (now_ns < spin_until_ns) {
      for (int i = 0; i < 16; ++i) {
        if (done()) {
          NoteSpin(lane, true);
          return WaitEnd::kDone;
        }
        CpuPause();
      }
      now_ns = CycleNs();
    }
    NoteSpin(lane, false);
  }
  SharedWord<uint32_t>& sleepers = lane->connection.mapping.request.client().sleepers;
  const EngineLine& engine = lane->connection.mapping.reply.engine();
  uint64_t passed_on = UINT64_MAX;  // the value slept on when this waiter last woke the others
  for (;;) {
    if (IsGone(lane)) return done() ? WaitEnd::kDone : WaitEnd::kGone;
    now_ns = MonotonicNs();
    if (now_ns >= until_ns) return done() ? WaitEnd::kDone : WaitEnd::kTime;
    const uint64_t left_ns = until_ns - now_ns;
    sleepers.fetch_add(1, std::memory_order_relaxed);  // relaxed: ordered by the fence
    FullFence();                                       // SYNC L4: the store before the loads of the result
    // SYNC L4 (acquire): a bumped word shows the answers that were published before.
    const uint32_t word = engine.futex_word.load(std::memory_order_acquire);
    const bool ready = done();
    // SYNC L7 (acquire): all answers of a closed lane are visible; meets the engine's release of the state.
    const bool closed = engine.state.load(std::memory_order_acquire) == kLaneClosed;
    bool woken = false;
    // `gone` after the fence: a thread that tells of a death sees this sleeper, or is seen here (TellDeath).
    if (!ready && !closed && !IsGone(lane)) {
      const uint64_t slice_ns = left_ns < kSleepSliceNs ? left_ns : kSleepSliceNs;
      woken = FutexWait(engine.futex_word.futex_address(), word, now_ns + slice_ns);
    }
    sleepers.fetch_sub(1, std::memory_order_relaxed);  // relaxed: an engine that sees it late makes one needless wake
    // First of all: the engine has woken only some, and they wake the rest.
    if (woken) {
      WakeOtherSleepers(lane->connection.mapping.request, lane->connection.mapping.reply, word, passed_on == word);
      passed_on = word;
    }
    if (ready || done()) return WaitEnd::kDone;
    // relaxed: only asks whether anything moved
    if (closed || engine.futex_word.load(std::memory_order_relaxed) == word) CheckAlive(lane, MonotonicNs());
  }
}

}  // namespace sutra::client
