// The engines of a lane, one after another: how one begins to serve it, is seen to be gone, and goes with its last pin;
// and the words and descriptors by which it is woken and wakes. The requests are client_lane.cc's.
#include <assert.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "producer/client_lane.h"
#include "producer/no_cancel.h"
#include "shm/base/checkpoint.h"
#include "shm/sleep_wake.h"

namespace sutra::client {
namespace {

// The helper thread tells everyone who sleeps, and moves the requests.
void CallHelper(const ClientLane* lane) {
  if (lane->signals->wake_fd < 0) return;
  const NoCancel no_cancel;
  const uint64_t one = 1;
  (void)!write(lane->signals->wake_fd, &one, sizeof(one));
}

void MarkGoneLocked(ClientLane* lane, uint32_t gone) SUTRA_REQUIRES(lane->mutex) {
  assert(lane->current != nullptr && !IsGone(*lane->current) && !IsLost(lane));
  // SYNC C1 (release): a thread that sees `gone` sees the answers that preceded it; meets IsGone.
  lane->current->gone.store(gone, std::memory_order_release);
  lane->lost.store(GoneStatus(gone), std::memory_order_relaxed);  // relaxed: under the mutex
  (void)SUTRA_CHECKPOINT("move.gone");
  FreeAbandonedLocked(lane);
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

void CloseIfUnusedLocked(Attachment* attachment) {
  if (attachment->told && attachment->rings == 0) CloseDescriptors(&attachment->connection);
}

}  // namespace

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

void UnpinSlotLocked(ClientLane* lane, const ClientSlot& slot) {
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
