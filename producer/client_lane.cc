#include "producer/client_lane.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <new>

#include "producer/lane_death.h"
#include "producer/no_cancel.h"
#include "producer/thread_state.h"
#include "shm/base/checkpoint.h"
#include "shm/base/random.h"
#include "shm/prefetch.h"

namespace sutra::client {
namespace {

constexpr uint32_t kSpinMissesMax = 3;                            // in a row, before waits stop spinning
constexpr uint32_t kSpinSkipMax = 32;                             // waits between two tries to spin again
constexpr uint64_t kFirstSequenceMask = (uint64_t{1} << 45) - 1;  // leaves 2^45 requests before a ticket's bits wrap

uint32_t HeldLocked(const ClientLane* lane) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->free_count + lane->abandoned_count <= lane->slot_count);
  return lane->slot_count - lane->free_count - lane->abandoned_count;
}

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

uint64_t TailOffset(const ClientSlot& slot) { return slot.tail_first * kPageBytes; }

void GiveTailBackLocked(ClientLane* lane, ClientSlot* slot) SUTRA_REQUIRES(lane->mutex) {
  if (slot->tail_pages != 0) lane->tail.Give(slot->tail_first, slot->tail_pages);
  slot->tail_pages = 0;
}

// Of a request that was answered. Whoever found the lane full learns of it, by whichever call the slot came free.
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
TailArena::Took WriteTailLocked(ClientLane* lane, ClientSlot* slot, const char* text, uint32_t bytes)
    SUTRA_REQUIRES(lane->mutex) {
  assert(slot->tail_pages == 0);
  const uint32_t pages = TailPages(bytes);
  const TailArena::Took took = lane->tail.Take(pages, &slot->tail_first);
  if (took != TailArena::Took::kRun) return took;
  slot->tail_pages = pages;
  memcpy(lane->connection.mapping.tails + TailOffset(*slot), text, bytes);
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

uint64_t OnEngineClock(const ClientLane* lane, uint64_t ns) {
  return ns + static_cast<uint64_t>(lane->connection.engine_clock_ahead_ns);
}

}  // namespace

ClientLane* MakeClientLane(ClientSignals* signals, uint32_t index, uint32_t slots) {
  assert(slots >= kSlotsMin && slots <= kSlotsMax);
  void* memory = malloc(sizeof(ClientLane));
  auto* slot_memory = static_cast<ClientSlot*>(malloc(slots * sizeof(ClientSlot)));
  auto* indices = static_cast<uint16_t*>(malloc(2 * slots * sizeof(uint16_t)));
  if (memory == nullptr || slot_memory == nullptr || indices == nullptr) {
    free(memory);
    free(slot_memory);
    free(indices);
    return nullptr;
  }
  for (uint32_t i = 0; i < slots; ++i) new (&slot_memory[i]) ClientSlot();
  return new (memory) ClientLane(signals, index, slots, slot_memory, indices, FirstSequence(memory));
}

void DestroyClientLane(ClientLane* lane, bool forked) {
  if (lane->phase.load(std::memory_order_relaxed) == LanePhase::kOpen) CloseConnection(&lane->connection, forked);
  free(lane->slots);
  free(lane->free_stack);
  lane->~ClientLane();  // leaves the mutex alone, which a thread of the parent may have held at the fork
  free(lane);
}

void OpenLocked(ClientLane* lane, const LaneConnection& connection) {
  assert(lane->phase.load(std::memory_order_relaxed) == LanePhase::kEmpty);  // relaxed: under the mutex
  assert(lane->slot_count == connection.mapping.request.geometry.slots);
  lane->connection = connection;
  lane->submissions = SubmissionWriter(connection.mapping.request);
  lane->completions = CompletionReader(connection.mapping.reply);
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    assert(lane->slots[i].ticket.load(std::memory_order_relaxed) == 0);  // relaxed: under the mutex
    lane->slots[i].phase = SlotPhase::kFree;
    lane->slots[i].tail_pages = 0;
    lane->free_stack[i] = static_cast<uint16_t>(lane->slot_count - 1 - i);
  }
  lane->free_count = lane->slot_count;
  lane->abandoned_count = 0;
  lane->tail.Open(connection.tail_fd, connection.mapping.request.geometry.tail_bytes());
  lane->sweep_due = false;
  lane->sweep_at_ns = 0;
  lane->room_asked = false;
  lane->death_told = false;
  lane->pipe_watched = false;
  lane->armed = false;
  lane->spin_misses.store(0, std::memory_order_relaxed);  // relaxed: a heuristic
  lane->spin_skip.store(0, std::memory_order_relaxed);
  lane->alive_checked_ns.store(0, std::memory_order_relaxed);
  lane->gone.store(0, std::memory_order_relaxed);  // relaxed: published by the phase below
  lane->phase.store(LanePhase::kOpen, std::memory_order_release);
  WatchPipeLocked(lane);
  if (lane->signals->watch_fd < 0) return;
  // Once, then the helper thread asks the lock at its own pace: a hung-up socket stays so.
  epoll_event event = {};
  event.events = EPOLLRDHUP | EPOLLONESHOT;
  event.data.u64 = lane->index;
  epoll_ctl(lane->signals->watch_fd, EPOLL_CTL_ADD, connection.socket, &event);
}

bool RetireLocked(ClientLane* lane) {
  if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen) return true;  // relaxed: under the mutex
  if (!IsGone(lane) || HeldLocked(lane) != 0 || lane->ring_pins != 0) return false;
  lane->phase.store(LanePhase::kEmpty, std::memory_order_relaxed);
  // Taken out by name: where a forked child has the descriptors too, closing ours would leave them in.
  if (lane->pipe_watched) ForgetPipe(lane->signals, lane->connection.event_fd);
  lane->pipe_watched = false;
  if (lane->signals->watch_fd >= 0) {
    epoll_ctl(lane->signals->watch_fd, EPOLL_CTL_DEL, lane->connection.socket, nullptr);
  }
  CloseConnection(&lane->connection, false);
  return true;
}

sutra_status UsableLocked(ClientLane* lane, uint64_t now_ns, bool* stalled) {
  if (!IsGone(lane)) {
    // relaxed: hints; what they cannot tell, the kernel's lock decides
    const uint64_t heartbeat_ns = lane->connection.mapping.page->heartbeat_ns.load(std::memory_order_relaxed);
    const uint64_t age_ns = OnEngineClock(lane, now_ns) - heartbeat_ns;
    const uint64_t checked_ns = lane->alive_checked_ns.load(std::memory_order_relaxed);
    if (age_ns > kHeartbeatOldNs && age_ns < UINT64_MAX / 2) {
      *stalled = true;
      if (now_ns - checked_ns > kAliveCheckNs) CheckAlive(lane, now_ns);
    }
    const uint32_t state = lane->connection.mapping.reply.engine().state.load(std::memory_order_relaxed);
    if (state == kLaneClosed) CheckAlive(lane, now_ns);
    if (state == kLaneDraining) return SUTRA_SHUTTING_DOWN;
  }
  return lane->gone.load(std::memory_order_relaxed);  // relaxed: only its number is used
}

uint32_t ReapLocked(ClientLane* lane) {
  uint32_t looks = lane->abandoned_count < kReapLooksMax ? lane->abandoned_count : kReapLooksMax;
  for (; looks > 0; --looks) {
    const uint32_t index = lane->abandoned_ring[lane->abandoned_first];
    TakeAbandonedLocked(lane, index);
    if (IsAnswered(lane, index, lane->slots[index].sequence)) {
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
  if (!IsAnswered(lane, slot_index, lane->slots[slot_index].sequence)) return;
  TakeAbandonedLocked(lane, slot_index);
  FreeSlotLocked(lane, slot_index);
}

sutra_status SubmitLocked(ClientLane* lane, const char* text, uint32_t text_bytes, const Request& request,
                          uint64_t now_ns, SlotPhase holder, uint32_t* slot_index) {
  assert(holder == SlotPhase::kTicket || holder == SlotPhase::kCall);
  assert(lane->free_count > 0 && lane->free_count <= lane->slot_count);
  assert(text_bytes > 0 && text_bytes <= lane->connection.mapping.request.geometry.text_bytes_max);
  const uint32_t index = lane->free_stack[lane->free_count - 1];
  ClientSlot& slot = lane->slots[index];
  // A free slot's last request was answered. The answer is not looked at again: the engine could take it back.
  assert(slot.phase == SlotPhase::kFree);
  (void)SUTRA_CHECKPOINT("send.slot_claimed");

  const RequestLane& lane_memory = lane->connection.mapping.request;
  const bool in_head = text_bytes <= kTextHeadBytes;
  // The engine was the last to read all of these.
  PrefetchForWrite(&lane_memory.submission(lane->submissions.position()), sizeof(uint64_t));
  PrefetchForWrite(&lane_memory.request(index), sizeof(RequestDescriptor));
  if (in_head) {
    PrefetchForWrite(lane_memory.text_head(index), text_bytes);
    memcpy(lane_memory.text_head(index), text, text_bytes);
  }
  (void)SUTRA_CHECKPOINT("send.payload_half");
  if (!in_head) {
    const TailArena::Took took = WriteTailLocked(lane, &slot, text, text_bytes);
    if (took != TailArena::Took::kRun) return FailTail(took, text_bytes);
  }

  const uint64_t sequence = TakeSequenceLocked(lane);
  assert(sequence > slot.sequence);
  const uint64_t deadline_ns = now_ns + request.timeout_ns;
  RequestDescriptor& descriptor = lane_memory.request(index);
  // relaxed: the ring entry below publishes all of it
  descriptor.sequence.store(sequence, std::memory_order_relaxed);
  descriptor.submitted_ns.store(OnEngineClock(lane, now_ns), std::memory_order_relaxed);
  descriptor.deadline_ns.store(OnEngineClock(lane, deadline_ns), std::memory_order_relaxed);
  descriptor.tag.store(request.tag, std::memory_order_relaxed);
  descriptor.bytes_and_options.store(uint64_t{request.flags} << 32 | text_bytes, std::memory_order_relaxed);
  descriptor.width_and_ttl.store(uint64_t{request.ttl_s} << 32 | request.width, std::memory_order_relaxed);
  descriptor.priority_and_tail.store(PriorityAndTail(request.priority, in_head ? 0 : TailOffset(slot)),
                                     std::memory_order_relaxed);
  (void)SUTRA_CHECKPOINT("send.payload_done");

  slot.sequence = sequence;
  slot.tag = request.tag;
  slot.submitted_ns = now_ns;
  slot.deadline_ns = deadline_ns;
  slot.cancel_epoch = request.cancel_epoch;
  slot.phase = holder;
  // relaxed: the mutex, or whatever hands the ticket to another thread, orders these
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

void ReleaseLocked(ClientLane* lane, uint32_t slot_index) {
  ClientSlot& slot = lane->slots[slot_index];
  assert(slot.phase == SlotPhase::kTicket || slot.phase == SlotPhase::kCall);
  slot.ticket.store(0,
                    std::memory_order_relaxed);  // relaxed: under the mutex; another's look at it is checked under it
  if (IsAnswered(lane, slot_index, slot.sequence)) {
    FreeSlotLocked(lane, slot_index);
  } else {
    // The slot stays with the engine until it answers; a submit that finds the lane full, or a poll, reaps it then.
    lane->connection.mapping.request.request(slot_index)
        .cancel_sequence.store(slot.sequence, std::memory_order_relaxed);  // relaxed: a hint
    AbandonLocked(lane, slot_index);
  }
  if (IsGone(lane)) RetireLocked(lane);
}

bool PinForRingLocked(ClientLane* lane) {
  if (!NeedsDoorbell(lane->connection.mapping.page, lane->connection.mapping.reply)) return false;
  ++lane->ring_pins;
  return true;
}

void RingPinned(ClientLane* lane) {
  {
    const NoCancel no_cancel;
    if (!SendDoorbell(lane->connection.socket)) CheckAlive(lane, MonotonicNs());
  }
  Unpin(lane);
}

void ArmLocked(ClientLane* lane) {
  lane->armed = true;
  // relaxed: see the fence
  lane->connection.mapping.request.client().event_armed.store(1, std::memory_order_relaxed);
  FullFence();  // SYNC L6: the store before the loads of the completion ring
}

void DisarmLocked(ClientLane* lane) {
  lane->armed = false;
  // relaxed: an engine that sees it late rings once more than needed
  lane->connection.mapping.request.client().event_armed.store(0, std::memory_order_relaxed);
}

void WatchPipeLocked(ClientLane* lane) {
  // relaxed: under the mutex
  if (lane->pipe_watched || lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen || IsGone(lane)) return;
  if (!WatchPipe(lane->signals, lane->connection.event_fd)) return;
  lane->pipe_watched = true;
  ArmLocked(lane);  // before whatever the caller submits or polls next
}

void UnlockAndRing(ClientLane* lane) {
  const bool ring = PinForRingLocked(lane);
  lane->mutex.Unlock();
  if (ring) RingPinned(lane);
  (void)SUTRA_CHECKPOINT("send.wake_sent");
}

// Spinning shorter than the typical wait is worse than not spinning: both ends burn the budget and sleep anyway. So a
// lane whose waits keep outlasting the budget spins only now and then, to notice when the engine has become fast.
bool WorthSpinning(ClientLane* lane) {
  // relaxed: a heuristic; lost updates do not matter
  const uint32_t skip = lane->spin_skip.load(std::memory_order_relaxed);
  if (skip == 0) return true;
  lane->spin_skip.store(skip - 1, std::memory_order_relaxed);
  return false;
}

void NoteSpin(ClientLane* lane, bool hit) {
  if (hit) {
    if (lane->spin_misses.load(std::memory_order_relaxed) != 0) lane->spin_misses.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t misses = lane->spin_misses.load(std::memory_order_relaxed) + 1;
  lane->spin_misses.store(misses, std::memory_order_relaxed);
  if (misses < kSpinMissesMax) return;
  const uint32_t exponent = misses - kSpinMissesMax;
  lane->spin_skip.store(exponent < 5 ? 2u << exponent : kSpinSkipMax, std::memory_order_relaxed);
}

}  // namespace sutra::client
