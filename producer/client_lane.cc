#include "producer/client_lane.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <new>

#include "producer/no_cancel.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"
#include "shm/base/random.h"
#include "shm/prefetch.h"
#include "shm/sleep_wake.h"

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

// The helper thread tells everyone who sleeps, and moves the requests.
void CallHelper(const ClientLane* lane) {
  if (lane->signals->wake_fd < 0) return;
  const NoCancel no_cancel;
  const uint64_t one = 1;
  (void)!write(lane->signals->wake_fd, &one, sizeof(one));
}

// Nobody owes the answers to requests that were dropped: their slots are free.
void MarkGoneLocked(ClientLane* lane, uint32_t gone) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->current != nullptr && !IsGone(*lane->current) && !IsLost(lane));
  // SYNC C1 (release): a thread that sees `gone` sees the answers that preceded it; meets IsGone.
  lane->current->gone.store(gone, std::memory_order_release);
  lane->lost.store(GoneStatus(gone), std::memory_order_relaxed);  // relaxed: under the mutex
  (void)SUTRA_CHECKPOINT("move.gone");
  while (lane->abandoned_count > 0) {
    const uint32_t slot = lane->abandoned_ring[lane->abandoned_first];
    TakeAbandonedLocked(lane, slot);
    FreeSlotLocked(lane, slot);
  }
  lane->sweep_due = true;
  lane->death_due.store(1, std::memory_order_relaxed);  // relaxed: the call orders it
  CallHelper(lane);
}

// With its last pin; whoever has none of a gone attachment's slots does not know of it.
void DropIfUnusedLocked(ClientLane* lane, Attachment* attachment) SUTRA_REQUIRES(lane->mutex) {
  if (attachment->pins != 0 || !attachment->told) return;
  Attachment* const next = attachment->next.load(std::memory_order_relaxed);  // relaxed: under the mutex
  Attachment* const previous = attachment->previous;
  // relaxed: nobody who pins `previous` looks beyond its slot's home, which is not behind this one
  if (previous != nullptr) previous->next.store(next, std::memory_order_relaxed);
  if (next != nullptr) next->previous = previous;
  if (lane->newest == attachment) lane->newest = previous;
  if (lane->current == attachment) lane->current = nullptr;
  (void)SUTRA_CHECKPOINT("release.unpinned");
  DestroyAttachment(attachment, false);
}

void UnpinSlotLocked(ClientLane* lane, const ClientSlot& slot) SUTRA_REQUIRES(lane->mutex) {
  Attachment* const home = slot.home.load(std::memory_order_relaxed);  // relaxed: changes under the mutex
  for (Attachment* attachment = slot.first;;) {
    assert(attachment != nullptr && attachment->pins > 0);
    Attachment* const next = attachment->next.load(std::memory_order_relaxed);  // relaxed: under the mutex
    const bool last = attachment == home;
    --attachment->pins;
    DropIfUnusedLocked(lane, attachment);
    if (last) return;
    attachment = next;
  }
}

void CloseIfUnusedLocked(Attachment* attachment) {
  if (attachment->told && attachment->rings == 0) CloseDescriptors(&attachment->connection);
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
  free(lane->slots);
  free(lane->free_stack);
  lane->~ClientLane();  // leaves the mutex alone, which a thread of the parent may have held at the fork
  free(lane);
}

void AddLocked(ClientLane* lane, Attachment* attachment) {
  assert(attachment->number == lane->attachments_made + 1);
  ++lane->attachments_made;
  attachment->previous = lane->newest;
  // SYNC C5 (release): for whoever looks for where an answer lies (slot_end.cc), which pins both.
  if (lane->newest != nullptr) lane->newest->next.store(attachment, std::memory_order_release);
  lane->newest = attachment;
}

void OpenLocked(ClientLane* lane, Attachment* attachment) {
  lane->tail.Open(attachment->connection.tail_fd, attachment->connection.mapping.request.geometry.tail_bytes());
  OpenLocked(lane, attachment, SubmissionWriter(attachment->connection.mapping.request));
}

void OpenLocked(ClientLane* lane, Attachment* attachment, const SubmissionWriter& submissions) {
  assert(IsLost(lane) && lane->newest == attachment && lane->abandoned_count == 0);
  assert(lane->slot_count == attachment->connection.mapping.request.geometry.slots);
  lane->current = attachment;
  lane->submissions = submissions;
  lane->completions = CompletionReader(attachment->connection.mapping.reply);
  lane->sweep_due = true;  // what the last engine answered has no entry here
  lane->pipe_watched = false;
  lane->armed = false;
  lane->spin_misses.store(0, std::memory_order_relaxed);  // relaxed: a heuristic
  lane->spin_skip.store(0, std::memory_order_relaxed);
  lane->lost.store(0, std::memory_order_release);
  (void)SUTRA_CHECKPOINT("move.opened");
  WatchPipeLocked(lane);
  if (lane->signals->watch_fd < 0) return;
  // Once, then the helper thread asks the lock at its own pace: a hung-up socket stays so.
  epoll_event event = {};
  event.events = EPOLLRDHUP | EPOLLONESHOT;
  event.data.u64 = lane->index;
  epoll_ctl(lane->signals->watch_fd, EPOLL_CTL_ADD, attachment->connection.socket, &event);
}

Attachment* PinLocked(ClientLane* lane) {
  if (lane->current == nullptr || lane->current->told) return nullptr;
  ++lane->current->pins;
  ++lane->current->rings;
  return lane->current;
}

Attachment* Pin(ClientLane* lane) {
  const MutexLock lock(lane->mutex);
  return PinLocked(lane);
}

void UnpinLocked(ClientLane* lane, Attachment* attachment) {
  assert(attachment->rings > 0 && attachment->pins > 0);
  --attachment->rings;
  --attachment->pins;
  CloseIfUnusedLocked(attachment);
  DropIfUnusedLocked(lane, attachment);
}

void Unpin(ClientLane* lane, Attachment* attachment) {
  const MutexLock lock(lane->mutex);
  UnpinLocked(lane, attachment);
}

void ToldLocked(ClientLane* lane, Attachment* attachment) {
  assert(IsGone(*attachment) && lane->current == attachment);
  // Taken out by name: where a forked child has the descriptors too, closing ours would leave them in. Its end is of no
  // more interest to an event loop, and would keep the descriptor readable for ever.
  if (lane->pipe_watched) ForgetPipe(lane->signals, attachment->connection.event_fd);
  lane->pipe_watched = lane->armed = false;
  if (lane->signals->watch_fd >= 0) {
    epoll_ctl(lane->signals->watch_fd, EPOLL_CTL_DEL, attachment->connection.socket, nullptr);
  }
  attachment->told = true;
  CloseIfUnusedLocked(attachment);
  DropIfUnusedLocked(lane, attachment);
}

bool CheckAliveLocked(ClientLane* lane, uint64_t now_ns) {
  if (IsLost(lane)) return false;
  const uint32_t gone = AskHowGone(lane->current, now_ns);
  if (gone == 0) return true;
  (void)SUTRA_CHECKPOINT("move.evidence");
  MarkGoneLocked(lane, gone);
  return false;
}

bool CheckAlive(ClientLane* lane, Attachment* attachment, uint64_t now_ns) {
  if (IsGone(*attachment)) return false;
  const MutexLock lock(lane->mutex);
  return lane->current == attachment && CheckAliveLocked(lane, now_ns);
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

  const uint64_t sequence = TakeSequenceLocked(lane);
  assert(sequence > slot.sequence);
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
  WriteDescriptor(*attachment, slot, index, in_head ? 0 : TailOffset(slot));
  (void)SUTRA_CHECKPOINT("send.payload_done");

  ++attachment->pins;
  slot.first = attachment;
  // relaxed: the mutex, or whatever hands the ticket to another thread, orders these
  slot.home.store(attachment, std::memory_order_relaxed);
  slot.ended.store(0, std::memory_order_relaxed);
  if (holder == SlotPhase::kTicket) {
    slot.reported.store(0, std::memory_order_relaxed);
    slot.ticket.store(TicketNumber(sequence, lane->index, index), std::memory_order_relaxed);
  }
  --lane->free_count;
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
  if (IsAnswered(lane, slot_index) || IsGone(*home)) {
    FreeSlotLocked(lane, slot_index);
  } else {
    // The slot stays with the engine until it answers; a submit that finds the lane full, or a poll, reaps it then.
    home->connection.mapping.request.request(slot_index)
        .cancel_sequence.store(slot.sequence, std::memory_order_relaxed);  // relaxed: a hint
    AbandonLocked(lane, slot_index);
  }
  UnpinSlotLocked(lane, slot);
}

Attachment* PinForRingLocked(ClientLane* lane) {
  const LaneMapping& mapping = lane->current->connection.mapping;
  if (!NeedsDoorbell(mapping.page, mapping.reply)) return nullptr;
  return PinLocked(lane);
}

void RingPinned(ClientLane* lane, Attachment* attachment) {
  {
    const NoCancel no_cancel;
    if (!SendDoorbell(attachment->connection.socket)) CheckAlive(lane, attachment, MonotonicNs());
  }
  Unpin(lane, attachment);
}

void ArmLocked(ClientLane* lane) {
  lane->armed = true;
  // relaxed: see the fence
  lane->current->connection.mapping.request.client().event_armed.store(1, std::memory_order_relaxed);
  FullFence();  // SYNC L6: the store before the loads of the completion ring
}

void DisarmLocked(ClientLane* lane) {
  lane->armed = false;
  // relaxed: an engine that sees it late rings once more than needed
  lane->current->connection.mapping.request.client().event_armed.store(0, std::memory_order_relaxed);
}

void WatchPipeLocked(ClientLane* lane) {
  if (lane->pipe_watched || IsLost(lane)) return;
  if (!WatchPipe(lane->signals, lane->current->connection.event_fd)) return;
  lane->pipe_watched = true;
  ArmLocked(lane);  // before whatever the caller submits or polls next
}

void UnlockAndRing(ClientLane* lane) {
  Attachment* const ring = PinForRingLocked(lane);
  lane->mutex.Unlock();
  if (ring != nullptr) RingPinned(lane, ring);
  (void)SUTRA_CHECKPOINT("send.wake_sent");
}

}  // namespace sutra::client
