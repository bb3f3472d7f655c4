#include "producer/lane_poll.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "producer/high_fd.h"
#include "producer/no_cancel.h"
#include "producer/slot_end.h"
#include "producer/thread_state.h"

namespace sutra::client {
namespace {

// Reports a slot once: to sutra_poll, unless sutra_wait already told the caller.
bool TakeReport(ClientLane* lane, uint32_t index, uint64_t now_ns) {
  ClientSlot& slot = lane->slots[index];
  if (slot.phase != SlotPhase::kTicket) return false;
  // relaxed: it only counts
  if (slot.reported.load(std::memory_order_relaxed) != 0) return false;
  if (SettleSlot(lane, index, now_ns) == SUTRA_NOT_READY) return false;
  return slot.reported.exchange(1, std::memory_order_relaxed) == 0;
}

// Polls before it reads: the process that created the pipe shares the read end's flags and could clear O_NONBLOCK.
// Bounded, since the other end may write forever. RETURNS false once the write end, which only the engine has, closed.
bool DrainEvents(ClientLane* lane) {
  const NoCancel no_cancel;
  char bytes[4096];
  for (int i = 0; i < 16; ++i) {
    pollfd item = {lane->connection.event_fd, POLLIN, 0};
    if (poll(&item, 1, 0) != 1) return true;
    const ssize_t count = read(lane->connection.event_fd, bytes, sizeof(bytes));
    if (count == 0) return false;
    if (count > 0 && static_cast<size_t>(count) < sizeof(bytes)) return true;  // it is empty now
  }
  return true;
}

// What the caller's event loop sleeps on: the engine's pipe, which a poll may have read for answers that did not fit
// into its array, and a reminder of our own for those.
bool MakeLoopFd(LaneConnection* connection) {
  const int reminder_fd = HighFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const int loop_fd = HighFd(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN;
  if (reminder_fd >= 0 && loop_fd >= 0 && epoll_ctl(loop_fd, EPOLL_CTL_ADD, connection->event_fd, &event) == 0 &&
      epoll_ctl(loop_fd, EPOLL_CTL_ADD, reminder_fd, &event) == 0) {
    connection->reminder_fd = reminder_fd;
    connection->loop_fd = loop_fd;
    return true;
  }
  Fail(SUTRA_OUT_OF_MEMORY, "a descriptor for an event loop: %s; raise the limit of open files", strerror(errno));
  const NoCancel no_cancel;
  if (reminder_fd >= 0) close(reminder_fd);
  if (loop_fd >= 0) close(loop_fd);
  return false;
}

// The caller may sleep now although there is more to report: then the descriptor stays readable.
void RemindLocked(ClientLane* lane, bool more) SUTRA_REQUIRES(lane->mutex) {
  if (lane->connection.loop_fd < 0 || lane->reminded == more) return;
  const NoCancel no_cancel;
  uint64_t number = 1;
  const ssize_t done = more ? write(lane->connection.reminder_fd, &number, sizeof(number))
                            : read(lane->connection.reminder_fd, &number, sizeof(number));
  if (done == static_cast<ssize_t>(sizeof(number))) lane->reminded = more;
}

bool HasMoreLocked(ClientLane* lane) SUTRA_REQUIRES(lane->mutex) {
  CompletionReader look = lane->completions;
  uint32_t slot = 0;
  return lane->sweep_due || look.Next(&slot) != CompletionReader::Read::kNone;
}

// Every slot: after a gap in the completion ring, after the engine's death, and now and then for deadlines.
size_t SweepLocked(ClientLane* lane, sutra_ticket* tickets, size_t count, uint64_t now_ns) SUTRA_REQUIRES(lane->mutex) {
  size_t found = 0;
  lane->sweep_due = false;
  lane->sweep_at_ns = now_ns + kSweepNs;
  for (uint32_t i = 0; i < lane->slot_count; ++i) {
    if (found == count) {
      lane->sweep_due = true;  // the rest at the next call
      break;
    }
    if (TakeReport(lane, i, now_ns)) tickets[found++] = TicketOf(lane, i);
  }
  return found;
}

}  // namespace

size_t PollLocked(ClientLane* lane, sutra_ticket* tickets, size_t count, uint64_t now_ns) {
  size_t found = 0;
  bool armed = !lane->event_used;
  uint32_t reads_left = 2 * lane->slot_count;  // twice what an engine can have published meanwhile
  while (found < count) {
    if (reads_left-- == 0) {
      lane->sweep_due = true;
      break;
    }
    uint32_t index = 0;
    const CompletionReader::Read read = lane->completions.Next(&index);
    if (read == CompletionReader::Read::kSlot) {
      if (TakeReport(lane, index, 0)) tickets[found++] = TicketOf(lane, index);
      continue;
    }
    if (read == CompletionReader::Read::kGap) {
      lane->sweep_due = true;
      continue;
    }
    if (armed) break;
    // Nothing left: from here on the engine rings again. What it published before it could see that is read now.
    if (!DrainEvents(lane)) CheckAlive(lane, now_ns);
    lane->connection.mapping.request.client().event_armed.store(1,
                                                                std::memory_order_relaxed);  // relaxed: see the fence
    FullFence();  // SYNC L6: the store before the loads of the completion ring
    armed = true;
  }
  if (now_ns - lane->alive_checked_ns.load(std::memory_order_relaxed) > kSleepSliceNs) CheckAlive(lane, now_ns);
  if (IsGone(lane) || now_ns >= lane->sweep_at_ns) lane->sweep_due = true;
  if (lane->sweep_due && found < count) found += SweepLocked(lane, tickets + found, count - found, now_ns);
  assert(found <= count);
  if (lane->event_used) RemindLocked(lane, found == count && HasMoreLocked(lane));
  return found;
}

int EventFdLocked(ClientLane* lane, uint64_t now_ns) {
  // relaxed: under the mutex
  if (lane->phase.load(std::memory_order_relaxed) != LanePhase::kOpen || !CheckAlive(lane, now_ns)) return -1;
  if (!lane->event_used) {
    lane->event_used = true;
    lane->connection.mapping.request.client().event_armed.store(1,
                                                                std::memory_order_relaxed);  // relaxed: see the fence
    FullFence();  // SYNC L6: armed before whatever the caller submits or polls next
  }
  if (lane->connection.loop_fd < 0 && !MakeLoopFd(&lane->connection)) return -1;
  return lane->connection.loop_fd;
}

}  // namespace sutra::client
