#include "producer/lane_poll.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "producer/cancel_all.h"
#include "producer/hot_ticket.h"
#include "producer/no_cancel.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"

namespace sutra::client {
namespace {

// Reports a slot once: to sutra_poll, unless sutra_wait already told the caller. A slot without a ticket may be free
// now: its entry, which nobody reads again, is the only sign of that.
bool TakeReport(ClientLane* lane, uint32_t index, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex) {
  ClientSlot& slot = lane->slots[index];
  if (slot.phase == SlotPhase::kAbandoned) ReapSlotLocked(lane, index);
  if (slot.phase != SlotPhase::kTicket) return false;
  // relaxed: it only counts
  if (slot.reported.load(std::memory_order_relaxed) != 0) return false;
  if (SettleSlot(lane, index, now_ns) == SUTRA_NOT_READY) return false;
  return slot.reported.exchange(1, std::memory_order_relaxed) == 0;
}

void PutReport(const ClientLane* lane, uint32_t index, PollRoom* room) SUTRA_REQUIRES(lane->mutex) {
  assert(!room->full());
  sutra_result spare;
  sutra_result* result = room->results.Fill(room->found, &spare);
  FillResult(lane, index, result);
  room->results.Put(room->found++, result);
}

// Polls before it reads: the process that created the pipe shares the read end's flags and could clear O_NONBLOCK.
// Bounded, since the other end may write forever. RETURNS false once the write end, which only the engine has, closed.
bool DrainEvents(int event_fd) {
  const NoCancel no_cancel;
  char bytes[4096];
  for (int i = 0; i < 16; ++i) {
    pollfd item = {event_fd, POLLIN, 0};
    if (poll(&item, 1, 0) != 1) return true;
    const ssize_t count = read(event_fd, bytes, sizeof(bytes));
    if (count == 0) return false;
    if (count > 0 && static_cast<size_t>(count) < sizeof(bytes)) return true;  // it is empty now
  }
  return true;
}

// Every slot: after a gap in the completion ring, after an engine's death, and now and then for deadlines.
void SweepLocked(ClientLane* lane, PollRoom* room, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex) {
  lane->sweep_due = false;
  lane->cancels_swept = lane->signals->cancel_epoch.load(std::memory_order_acquire);  // SYNC C6 (acquire)
  lane->sweep_at_ns = now_ns + kSweepNs;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    if (room->full()) {
      lane->sweep_due = true;  // the rest at the next call
      return;
    }
    if (TakeReport(lane, i, now_ns)) PutReport(lane, i, room);
  }
}

}  // namespace

namespace {

// What the engine of an open lane says. Disarms, arms, and looks for its death as PollLocked says.
void ReadCompletionsLocked(ClientLane* lane, PollRoom* room, uint64_t now_ns, bool arm) SUTRA_REQUIRES(lane->mutex) {
  arm = arm && lane->pipe_watched;
  bool looked_armed = !arm;
  uint32_t reads_left = 2 * lane->slot_count;  // twice what an engine can have published meanwhile
  while (!room->full()) {
    if (reads_left-- == 0) {
      if (!looked_armed) ArmLocked(lane);
      lane->sweep_due = true;
      break;
    }
    uint32_t index = 0;
    const CompletionReader::Read read = lane->completions.Next(&index);
    if (read != CompletionReader::Read::kNone) {
      // While the caller is busy with answers, the engine need not make a system call for each.
      if (lane->armed) DisarmLocked(lane);
      looked_armed = !arm;
    }
    if (read == CompletionReader::Read::kSlot) {
      if (TakeReport(lane, index, 0)) PutReport(lane, index, room);
      continue;
    }
    if (read == CompletionReader::Read::kGap) {
      lane->sweep_due = true;
      continue;
    }
    if (looked_armed) break;
    // Nothing left: from here on the engine rings again. What it published before it could see that is read now.
    if (!DrainEvents(lane->current->connection.event_fd)) CheckAliveLocked(lane, now_ns);
    ArmLocked(lane);
    looked_armed = true;
  }
  // relaxed: only paces
  const uint64_t checked_ns = lane->current->alive_checked_ns.load(std::memory_order_relaxed);
  if (now_ns - checked_ns > kSleepSliceNs) CheckAliveLocked(lane, now_ns);
}

}  // namespace

void PollLocked(ClientLane* lane, PollRoom* room, uint64_t now_ns, bool arm) {
  uint32_t hot = 0;
  while (lane->hot_tickets != nullptr && !room->full() && lane->hot_tickets->Pop(&hot)) {
    if (TakeReport(lane, hot, 0)) PutReport(lane, hot, room);
  }
  // Without an engine there are deadlines, and answers of the last one that nobody has read.
  if (!IsLost(lane)) ReadCompletionsLocked(lane, room, now_ns, arm);
  // No ring tells of what sutra_cancel_all ended.
  if (now_ns >= lane->sweep_at_ns || IsCancelled(*lane->signals, lane->cancels_swept)) lane->sweep_due = true;
  if (lane->sweep_due && !room->full()) SweepLocked(lane, room, now_ns);
}

namespace {

// The earliest deadline of the tickets that are still to be reported.
uint64_t EarliestDeadlineLocked(const ClientLane* lane) SUTRA_REQUIRES(lane->mutex) {
  uint64_t earliest_ns = kNever;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    const ClientSlot& slot = lane->slots[i];
    // relaxed: a ticket that is reported meanwhile costs a needless wake
    if (slot.phase != SlotPhase::kTicket || slot.reported.load(std::memory_order_relaxed) != 0) continue;
    if (slot.deadline_ns < earliest_ns) earliest_ns = slot.deadline_ns;
  }
  return earliest_ns;
}

// Each with its mutex held, until `visit` returns false.
template <typename Visit>
void VisitLanes(sutra_client* client, const Visit& visit) {
  bool more = true;
  ForEachLane(client, [&](ClientLane* lane) {
    if (!more) return;
    const MutexLock lock(lane->mutex);
    more = visit(lane);
  });
}

// Polling shorter than the typical wait is worse than sleeping at once, for the caller and for the engine: as in
// WorthSpinning, an event loop whose answers keep coming later is asked to only now and then.
bool PollsOn(sutra_client* client, bool found, uint64_t now_ns) {
  ClientSignals& signals = client->signals;
  // relaxed: a heuristic; lost updates do not matter
  const uint64_t since_ns = signals.busy_since_ns.load(std::memory_order_relaxed);
  if (found) {
    if (since_ns != 0) signals.busy_misses.store(0, std::memory_order_relaxed);  // it came while the caller polled
    const uint32_t skip = signals.busy_skip.load(std::memory_order_relaxed);
    if (skip != 0) signals.busy_skip.store(skip - 1, std::memory_order_relaxed);
    signals.busy_since_ns.store(skip == 0 ? now_ns : 0, std::memory_order_relaxed);
    return skip == 0 && client->spin_ns > 0;
  }
  if (since_ns == 0) return false;
  if (now_ns - since_ns < client->spin_ns) return true;
  signals.busy_since_ns.store(0, std::memory_order_relaxed);
  const uint32_t misses = signals.busy_misses.load(std::memory_order_relaxed) + 1;
  signals.busy_misses.store(misses, std::memory_order_relaxed);
  if (misses >= kBusyMissesMax) signals.busy_skip.store(kBusySkip, std::memory_order_relaxed);
  return false;
}

// One pass over the lanes.
void PollLanes(sutra_client* client, PollRoom* room, uint64_t now_ns, bool arm) {
  VisitLanes(client, [&](ClientLane* lane) SUTRA_NO_THREAD_SAFETY_ANALYSIS {  // called with the lane's mutex
    PollLocked(lane, room, now_ns, arm);
    return !room->full();
  });
}

// At a deadline every slot is looked at, whose own it may be; and the timer is set for the next one.
void SweepAllLater(sutra_client* client) {
  VisitLanes(client, [&](ClientLane* lane) SUTRA_NO_THREAD_SAFETY_ANALYSIS {  // called with the lane's mutex
    lane->sweep_due = true;
    return true;
  });
}
void NoteEarliestDeadline(sutra_client* client) {
  uint64_t earliest_ns = kNever;
  VisitLanes(client, [&](ClientLane* lane) SUTRA_NO_THREAD_SAFETY_ANALYSIS {  // called with the lane's mutex
    const uint64_t lane_ns = EarliestDeadlineLocked(lane);
    if (lane_ns < earliest_ns) earliest_ns = lane_ns;
    return true;
  });
  if (earliest_ns != kNever) NoteDeadline(&client->signals, earliest_ns);
}

}  // namespace

void PollClient(sutra_client* client, PollRoom* room, uint64_t now_ns) {
  ClientSignals* signals = &client->signals;
  if (!HasEventLoop(*signals)) return PollLanes(client, room, now_ns, false);
  const bool timer = TakeTimer(signals, now_ns);
  if (timer) SweepAllLater(client);
  PollLanes(client, room, now_ns, false);
  if (room->count > 0 && (room->full() || PollsOn(client, room->found > 0, now_ns))) {
    Remind(signals);
  } else if (room->count > 0) {
    // A reminder that was taken may be for what another thread changed behind this one's look.
    do {
      PollLanes(client, room, now_ns, true);
    } while (!room->full() && TakeReminder(signals));
    if (room->full()) Remind(signals);
  }
  if (timer) NoteEarliestDeadline(client);
  LearnRoomWish(signals);
}

int EventFdOf(sutra_client* client) {
  const int fd = OpenSignals(&client->signals);
  if (fd < 0) return -1;
  bool all = true;
  VisitLanes(client, [&](ClientLane* lane) SUTRA_NO_THREAD_SAFETY_ANALYSIS {  // called with the lane's mutex
    const bool watched = lane->pipe_watched;
    WatchPipeLocked(lane);
    all = all && (lane->pipe_watched || IsLost(lane));
    // What was submitted before this call has its deadline too.
    if (!watched) NoteDeadline(&client->signals, EarliestDeadlineLocked(lane));
    return true;
  });
  if (all) return fd;
  Fail(SUTRA_OUT_OF_MEMORY, "a lane's answers for the event loop: %s; raise fs.epoll.max_user_watches",
       strerror(errno));
  return -1;
}

}  // namespace sutra::client
