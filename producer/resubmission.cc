#include "producer/resubmission.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <algorithm>

#include "producer/lane_wait.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"

namespace sutra::client {
namespace {

bool IsHeld(const ClientSlot& slot) { return slot.phase == SlotPhase::kTicket || slot.phase == SlotPhase::kCall; }

bool IsCancelled(const ClientLane* lane, uint32_t slot) {
  // relaxed: written under the mutex, or a hint
  return HomeOf(lane, slot)->connection.mapping.request.request(slot).cancel_sequence.load(std::memory_order_relaxed) ==
         lane->slots[slot].sequence;
}

// Ends what was answered, ends with its engine, is late or was cancelled. RETURNS the number of requests that are left,
// and their slots in the lane's move_order.
uint32_t SettleLocked(ClientLane* lane, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex) {
  uint32_t left = 0;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    if (!IsHeld(lane->slots[i])) continue;
    const bool open = SettleSlot(lane, i, now_ns) == SUTRA_NOT_READY;
    if (open && !IsCancelled(lane, i)) {
      lane->move_order[left++] = static_cast<uint16_t>(i);
      continue;
    }
    if (open) EndSlot(lane, i, SUTRA_CANCELLED);
    lane->slots[i].tail_pages = 0;  // the next engine's arena begins with what moves to it
  }
  return left;
}

// A failure leaves the requests where they are: the new lane's memory is not used then.
sutra_status CopyTextsLocked(ClientLane* lane, const Attachment& next, uint32_t count) SUTRA_REQUIRES(lane->mutex) {
  const LaneMapping& to = next.connection.mapping;
  lane->tail.Open(next.connection.tail_fd, to.request.geometry.tail_bytes());
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = lane->move_order[i];
    const ClientSlot& slot = lane->slots[index];
    const Attachment& home = *HomeOf(lane, index);
    assert(&home != &next && IsGone(home) && slot.text_bytes > 0);
    const bool in_head = slot.text_bytes <= kTextHeadBytes;
    if (in_head) {
      memcpy(next.connection.mapping.request.text_head(index), home.connection.mapping.request.text_head(index),
             slot.text_bytes);
    } else if (lane->tail.TakeAt(slot.tail_first, slot.tail_pages) == TailArena::Took::kRun) {
      memcpy(to.tails + TailOffset(slot), home.connection.mapping.tails + TailOffset(slot), slot.text_bytes);
    } else {
      return Fail(SUTRA_OUT_OF_MEMORY,
                  "moving a text of %u bytes to the next engine: %s; free memory or raise its limit", slot.text_bytes,
                  strerror(errno));
    }
    WriteDescriptor(next, slot, index, in_head ? 0 : TailOffset(slot));
  }
  (void)SUTRA_CHECKPOINT("move.copied");
  return SUTRA_OK;
}

void PublishLocked(ClientLane* lane, Attachment* next, uint32_t count, SubmissionWriter* submissions)
    SUTRA_REQUIRES(lane->mutex) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = lane->move_order[i];
    ++next->pins;
    // SYNC C5 (release): the attachment with its mapping; meets HomeOf.
    lane->slots[index].home.store(next, std::memory_order_release);
    (void)SUTRA_CHECKPOINT("move.home");
    submissions->Publish(index);
    (void)SUTRA_CHECKPOINT("move.published");
  }
}

}  // namespace

sutra_status TellDeath(ClientLane* lane) {
  if (lane->death_due.load(std::memory_order_relaxed) == 0) return SUTRA_OK;  // relaxed: the call ordered it
  Attachment* gone;
  {
    const MutexLock lock(lane->mutex);
    lane->death_due.store(0, std::memory_order_relaxed);  // relaxed: under the mutex
    gone = PinLocked(lane);
  }
  assert(gone != nullptr && IsGone(*gone));
  WakeUntilNoneSleeps(*gone);
  (void)SUTRA_CHECKPOINT("move.woken");
  const sutra_status status = GoneStatus(gone->gone.load(std::memory_order_relaxed));  // relaxed: IsGone ordered it
  {
    const MutexLock lock(lane->mutex);
    SettleLocked(lane, MonotonicNs());
    lane->sweep_due = true;
    ToldLocked(lane, gone);
    UnpinLocked(lane, gone);
  }
  BumpMoves(lane);
  return status;
}

bool HasWaiting(ClientLane* lane) {
  const MutexLock lock(lane->mutex);
  if (!IsLost(lane)) return false;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    // relaxed: a request that ends meanwhile needs no engine any more, as the move will see
    if (IsHeld(lane->slots[i]) && lane->slots[i].ended.load(std::memory_order_relaxed) == 0) return true;
  }
  return false;
}

sutra_status MoveLane(ClientLane* lane, const LaneConnection& connection, uint64_t now_ns,
                      std::atomic<uint64_t>* moved) {
  Attachment* next;
  Attachment* ring;
  uint32_t left;
  {
    const MutexLock lock(lane->mutex);
    assert(IsLost(lane) && lane->death_due.load(std::memory_order_relaxed) == 0);  // relaxed: under the mutex
    next = MakeAttachment(connection, lane->attachments_made + 1);
    if (next == nullptr) {
      LaneConnection unused = connection;
      CloseConnection(&unused, false);
      return Fail(SUTRA_OUT_OF_MEMORY, "no memory for an attachment");
    }
    left = SettleLocked(lane, now_ns);
    (void)SUTRA_CHECKPOINT("move.settled");
    std::sort(lane->move_order, lane->move_order + left,
              [lane](uint16_t a, uint16_t b) { return lane->slots[a].sequence < lane->slots[b].sequence; });
    if (const sutra_status status = CopyTextsLocked(lane, *next, left); status != SUTRA_OK) {
      DestroyAttachment(next, false);
      return status;
    }
    moved->fetch_add(left, std::memory_order_relaxed);  // relaxed: only a count, of what an answer may follow
    AddLocked(lane, next);
    SubmissionWriter submissions(next->connection.mapping.request);
    PublishLocked(lane, next, left, &submissions);
    OpenLocked(lane, next, submissions);
    ring = PinForRingLocked(lane);
  }
  BumpMoves(lane);
  (void)SUTRA_CHECKPOINT("move.bumped");
  if (ring != nullptr) RingPinned(lane, ring);
  (void)SUTRA_CHECKPOINT("move.rung");
  return SUTRA_OK;
}

void EndWaiting(ClientLane* lane, sutra_reason reason) {
  {
    const MutexLock lock(lane->mutex);
    const uint32_t left = SettleLocked(lane, MonotonicNs());
    for (uint32_t i = 0; i < left; ++i) {
      EndSlot(lane, lane->move_order[i], SUTRA_ENGINE_GONE | reason << kEndedReasonShift);
    }
    lane->sweep_due = true;
  }
  BumpMoves(lane);
}

}  // namespace sutra::client
