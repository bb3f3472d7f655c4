#include "producer/client_lane.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "producer/hot_ticket.h"
#include "producer/no_cancel.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"
#include "shm/base/random.h"
#include "shm/prefetch.h"

namespace sutra::client {
namespace {

constexpr uint64_t kFirstSequenceMask = (uint64_t{1} << 45) - 1;  // leaves 2^45 requests before a ticket's bits wrap

void PlaceAbandonedLocked(ClientLane* lane, uint32_t slot, uint32_t at) SUTRA_REQUIRES(lane->mutex) {
  lane->abandoned_ring[at] = static_cast<uint16_t>(slot);
  lane->slots[slot].abandoned_at = at;
}

void AbandonLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->abandoned_count < lane->slot_count);
  lane->slots[slot].phase = SlotPhase::kAbandoned;
  PlaceAbandonedLocked(lane, slot, (lane->abandoned_first + lane->abandoned_count) % lane->slot_count);
  ++lane->abandoned_count;
}

// The oldest one takes its place: wherever it is in the ring, this is one step.
void TakeAbandonedLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->abandoned_count > 0 && lane->abandoned_ring[lane->slots[slot].abandoned_at] == slot);
  PlaceAbandonedLocked(lane, lane->abandoned_ring[lane->abandoned_first], lane->slots[slot].abandoned_at);
  lane->abandoned_first = (lane->abandoned_first + 1) % lane->slot_count;
  --lane->abandoned_count;
}

uint32_t TailPages(uint32_t text_bytes) { return text_bytes <= kTextHeadBytes ? 0 : TailArena::PagesOf(text_bytes); }

// A lost lane's arena is the gone engine's: the next one begins with what moves to it.
void GiveTailBackLocked(ClientLane* lane, ClientSlot* slot) SUTRA_REQUIRES(lane->mutex) {
  if (slot->tail_pages != 0 && !IsLost(lane)) lane->tail.Give(slot->tail_first, slot->tail_pages);
  slot->tail_pages = 0;
}

// Of a request that no engine owes an answer to. Whoever found the lane full learns of it, by whichever call the slot
// came free.
void FreeSlotLocked(ClientLane* lane, uint32_t slot) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->free_count < lane->slot_count && lane->slots[slot].phase != SlotPhase::kFree);
  GiveTailBackLocked(lane, &lane->slots[slot]);
  lane->slots[slot].phase = SlotPhase::kFree;
  lane->free_stack[lane->free_count++] = static_cast<uint16_t>(slot);
  (void)SUTRA_CHECKPOINT("recv.index_released");
  if (lane->room_asked) lane->room_asked = RoomFreed(lane->signals);
}

// The pages are allocated before they are stored to: over the cgroup's memory limit this call fails, and leaves none
// behind, where a store would get us killed. Nor is the text written with pwrite, which obeys the limit that a process
// set for the size of its own files (RLIMIT_FSIZE) and would end it with SIGXFSZ.
TailArena::Took WriteTailLocked(ClientLane* lane, ClientSlot* slot, const char* text) SUTRA_REQUIRES(lane->mutex) {
  assert(slot->tail_pages == 0);
  const uint32_t pages = TailPages(slot->text_bytes);
  const TailArena::Took took = lane->tail.Take(pages, &slot->tail_first);
  if (took != TailArena::Took::kRun) return took;
  slot->tail_pages = pages;
  memcpy(lane->current->connection.mapping.tails + TailOffset(*slot), text, slot->text_bytes);
  return took;
}

sutra_status FailTail(TailArena::Took took, uint32_t text_bytes) {
  if (took == TailArena::Took::kNoRoom) {
    return Fail(SUTRA_FULL, "no room for a text of %u bytes: long texts that are under way fill the lane's arena",
                text_bytes);
  }
  return Fail(SUTRA_OUT_OF_MEMORY, "writing a text of %u bytes into the lane: %s; free memory or raise its limit",
              text_bytes, strerror(errno));
}

// A ticket that was kept over detach and attach is not one of the new client's: its sequences begin elsewhere.
uint64_t FirstSequence(const void* lane) {
  const NoCancel no_cancel;
  uint64_t number;
  // Without the kernel's random numbers (an old seccomp filter) time and address have to do: nothing secret is at
  // stake.
  if (!FillRandom(&number, sizeof(number))) number = MonotonicNs() ^ reinterpret_cast<uintptr_t>(lane) << 20;
  return (number & kFirstSequenceMask) + 1;
}

uint64_t TakeSequenceLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex) {
  const uint64_t sequence = lane->sequence_next++;
  if ((lane->sequence_next & kTicketSequenceMask) == 0) ++lane->sequence_next;
  return sequence;
}

}  // namespace

ClientLane* MakeClientLane(ClientSignals* signals, uint32_t index, uint32_t slots) {
  assert(slots >= kSlotsMin && slots <= kSlotsMax);
  void* memory = malloc(sizeof(ClientLane));
  auto* slot_memory = static_cast<ClientSlot*>(malloc(slots * sizeof(ClientSlot)));
  auto* indices = static_cast<uint16_t*>(malloc(3 * slots * sizeof(uint16_t)));
  if (memory == nullptr || slot_memory == nullptr || indices == nullptr) {
    free(memory);
    free(slot_memory);
    free(indices);
    return nullptr;
  }
  for (uint32_t i = 0; i < slots; ++i) new (&slot_memory[i]) ClientSlot();
  return new (memory) ClientLane(signals, index, slots, slot_memory, indices, FirstSequence(memory));
}

void DestroyClientLane(ClientLane* lane, bool forked) SUTRA_NO_THREAD_SAFETY_ANALYSIS {  // no other thread is left
  for (Attachment* attachment = lane->newest; attachment != nullptr;) {
    Attachment* const previous = attachment->previous;
    DestroyAttachment(attachment, forked);
    attachment = previous;
  }
  HotTickets::Destroy(lane->hot_tickets);
  free(lane->slots);
  free(lane->free_stack);
  lane->~ClientLane();  // leaves the mutex alone, which a thread of the parent may have held at the fork
  free(lane);
}

sutra_status UsableLocked(ClientLane* lane, uint64_t now_ns, bool* stalled) {
  if (!IsLost(lane)) {
    const Attachment& attachment = *lane->current;
    // relaxed: hints; what they cannot tell, the kernel's lock decides
    const uint64_t heartbeat_ns = attachment.connection.mapping.page->heartbeat_ns.load(std::memory_order_relaxed);
    const uint64_t age_ns = OnEngineClock(attachment, now_ns) - heartbeat_ns;
    const uint64_t checked_ns = attachment.alive_checked_ns.load(std::memory_order_relaxed);
    if (age_ns > kHeartbeatOldNs && age_ns < UINT64_MAX / 2) {
      *stalled = true;
      if (now_ns - checked_ns > kAliveCheckNs) CheckAliveLocked(lane, now_ns);
    }
    const uint32_t state = attachment.connection.mapping.reply.engine().state.load(std::memory_order_relaxed);
    if (state == kLaneClosed) CheckAliveLocked(lane, now_ns);
    if (state == kLaneDraining) return SUTRA_SHUTTING_DOWN;
  }
  return lane->lost.load(std::memory_order_relaxed);  // relaxed: under the mutex
}

void FreeAbandonedLocked(ClientLane* lane) {
  while (lane->abandoned_count > 0) {
    const uint32_t slot = lane->abandoned_ring[lane->abandoned_first];
    TakeAbandonedLocked(lane, slot);
    FreeSlotLocked(lane, slot);
  }
}

uint32_t ReapLocked(ClientLane* lane) {
  uint32_t looks = lane->abandoned_count < kReapLooksMax ? lane->abandoned_count : kReapLooksMax;
  for (; looks > 0; --looks) {
    const uint32_t index = lane->abandoned_ring[lane->abandoned_first];
    TakeAbandonedLocked(lane, index);
    if (IsAnswered(lane, index)) {
      FreeSlotLocked(lane, index);
    } else {
      AbandonLocked(lane, index);  // to the end
    }
  }
  return lane->free_count;
}

bool HasRoomLocked(ClientLane* lane, uint32_t text_bytes, uintptr_t claimant) {
  const uint32_t pages = TailPages(text_bytes);
  const auto has_room = [lane, pages, claimant]() SUTRA_REQUIRES(lane->mutex) {
    return lane->free_count > 0 && lane->tail.HasRoom(pages, claimant);
  };
  return has_room() || (lane->abandoned_count > 0 && ReapLocked(lane) > 0 && has_room());
}

void ReapSlotLocked(ClientLane* lane, uint32_t slot_index) {
  assert(lane->slots[slot_index].phase == SlotPhase::kAbandoned);
  if (!IsAnswered(lane, slot_index)) return;
  TakeAbandonedLocked(lane, slot_index);
  FreeSlotLocked(lane, slot_index);
}

void WriteDescriptor(const Attachment& attachment, const ClientSlot& slot, uint32_t index, uint64_t tail_offset) {
  RequestDescriptor& descriptor = attachment.connection.mapping.request.request(index);
  // relaxed: the ring entry publishes all of it
  descriptor.sequence.store(slot.sequence, std::memory_order_relaxed);
  descriptor.submitted_ns.store(OnEngineClock(attachment, slot.submitted_ns), std::memory_order_relaxed);
  descriptor.deadline_ns.store(OnEngineClock(attachment, slot.deadline_ns), std::memory_order_relaxed);
  descriptor.tag.store(slot.tag, std::memory_order_relaxed);
  descriptor.bytes_and_options.store(uint64_t{slot.flags} << 32 | slot.text_bytes, std::memory_order_relaxed);
  descriptor.width_and_ttl.store(uint64_t{slot.ttl_s} << 32 | slot.width, std::memory_order_relaxed);
  descriptor.priority_and_tail.store(PriorityAndTail(slot.priority, tail_offset), std::memory_order_relaxed);
}

void TakeSlotLocked(ClientLane* lane, uint32_t index, const Request& request, uint32_t text_bytes, uint64_t now_ns,
                    SlotPhase holder, uint32_t ended) {
  assert(lane->free_count > 0 && lane->free_stack[lane->free_count - 1] == index);
  ClientSlot& slot = lane->slots[index];
  const uint64_t sequence = TakeSequenceLocked(lane);
  assert(sequence > slot.sequence);
  slot.text_bytes = text_bytes;
  slot.sequence = sequence;
  slot.tag = request.tag;
  slot.submitted_ns = now_ns;
  slot.deadline_ns = now_ns + request.timeout_ns;
  slot.flags = request.flags;
  slot.width = request.width;
  slot.ttl_s = request.ttl_s;
  slot.priority = static_cast<uint16_t>(request.priority);
  slot.fail_fast = request.fail_fast;
  slot.cancel_epoch = request.cancel_epoch;
  slot.phase = holder;
  ++lane->current->pins;
  slot.first = lane->current;
  // relaxed: the mutex, or whatever hands the ticket to another thread, orders these
  slot.home.store(lane->current, std::memory_order_relaxed);
  slot.ended.store(ended, std::memory_order_relaxed);
  if (holder == SlotPhase::kTicket) {
    slot.reported.store(0, std::memory_order_relaxed);
    slot.ticket.store(TicketNumber(sequence, lane->index, index), std::memory_order_relaxed);
  }
  --lane->free_count;
}

sutra_status SubmitLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request,
                          uint64_t now_ns, SlotPhase holder, uint32_t* slot_index) {
  assert(holder == SlotPhase::kTicket || holder == SlotPhase::kCall);
  assert(!IsLost(lane) && lane->free_count > 0 && lane->free_count <= lane->slot_count);
  Attachment* const attachment = lane->current;
  const RequestLane& lane_memory = attachment->connection.mapping.request;
  assert(text_bytes > 0 && text_bytes <= lane_memory.geometry.text_bytes_max);
  const uint32_t index = lane->free_stack[lane->free_count - 1];
  ClientSlot& slot = lane->slots[index];
  // A free slot's last request was answered. The answer is not looked at again: the engine could take it back.
  assert(slot.phase == SlotPhase::kFree);
  (void)SUTRA_CHECKPOINT("send.slot_claimed");

  const bool in_head = text_bytes <= kTextHeadBytes;
  slot.text_bytes = text_bytes;
  // The engine was the last to read all of these.
  PrefetchForWrite(&lane_memory.submission(lane->submissions.position()), sizeof(uint64_t));
  PrefetchForWrite(&lane_memory.request(index), sizeof(RequestDescriptor));
  if (in_head) {
    PrefetchForWrite(lane_memory.text_head(index), text_bytes);
    memcpy(lane_memory.text_head(index), text, text_bytes);
  }
  (void)SUTRA_CHECKPOINT("send.payload_half");
  if (!in_head) {
    const TailArena::Took took = WriteTailLocked(lane, &slot, text);
    if (took != TailArena::Took::kRun) return FailTail(took, text_bytes);
  }

  TakeSlotLocked(lane, index, request, text_bytes, now_ns, holder, 0);
  WriteDescriptor(*attachment, slot, index, in_head ? 0 : TailOffset(slot));
  (void)SUTRA_CHECKPOINT("send.payload_done");
  lane->submissions.Publish(index);
  (void)SUTRA_CHECKPOINT("send.index_published");
  *slot_index = index;
  return SUTRA_OK;
}

// Whether the slot is free is asked of its home, not of what ended the request: where a ticket took an answer of the
// last engine and the next one holds the slot, it is the next one that owes an answer.
void ReleaseLocked(ClientLane* lane, uint32_t slot_index) {
  ClientSlot& slot = lane->slots[slot_index];
  assert(slot.phase == SlotPhase::kTicket || slot.phase == SlotPhase::kCall);
  slot.ticket.store(0,
                    std::memory_order_relaxed);  // relaxed: under the mutex; another's look at it is checked under it
  Attachment* const home = HomeOf(lane, slot_index);
  const bool hot = (slot.ended.load(std::memory_order_relaxed) & kEndedHot) != 0;  // relaxed: under the mutex
  if (hot || IsAnswered(lane, slot_index) || IsGone(*home)) {
    FreeSlotLocked(lane, slot_index);
  } else {
    // The slot stays with the engine until it answers; a submit that finds the lane full, or a poll, reaps it then.
    home->connection.mapping.request.request(slot_index)
        .cancel_sequence.store(slot.sequence, std::memory_order_relaxed);  // relaxed: a hint
    AbandonLocked(lane, slot_index);
  }
  UnpinSlotLocked(lane, slot);
}

}  // namespace sutra::client
