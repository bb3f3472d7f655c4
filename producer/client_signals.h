// How the caller's threads and event loops learn that something changed in a client: the one descriptor that
// sutra_event_fd returns, and the condition that calls without a slot wait for.
//
// The descriptor is an epoll descriptor with every lane's pipe in it (answers), a reminder of our own (more to report
// than a poll had room for, a death, a new lane, room after SUTRA_FULL) and a timer (the earliest deadline).
//
// Room: a thread that is told SUTRA_FULL, or that there is no engine, wishes for it, and from the moment that there is
// some the descriptor is readable until a submit ends the wish. No poll ends it: an event loop may poll between its
// submit and its sleep, and can do nothing about the room there. Nor does any submit, or another thread's would take
// what a sleeping loop is to be told: each thread's next submit ends its own part of the wish, and all of it if the
// thread polled since the room was told, as an event loop does that submits what others could not.
//
// Thread rule: any thread. `mutex` is a leaf: it may be taken with a lane's mutex held, is held for a few words and at
// most one system call on our own eventfd, which never blocks, and no other lock is taken under it.
// Invariants: the descriptor never changes once it exists; the reminder is readable while `reminded` or `room_told` is
// 1; room_told is 1 only while there is a wish; the timer is set for `timer_ns`, which is not later than the deadline
// of any ticket that an event loop waits for.
#pragma once

#include <stdint.h>

#include <atomic>

#include "shm/base/mutex.h"

namespace sutra::client {

inline constexpr uint64_t kNever = UINT64_MAX;
inline constexpr uint32_t kBusyMissesMax = 3;
inline constexpr uint32_t kBusySkip = 32;

struct ClientSignals {
  Mutex mutex;
  CondVar changed;
  uint64_t turns SUTRA_GUARDED_BY(mutex) = 0;         // releases and new lanes so far, of interest to waiters
  uint32_t waiters SUTRA_GUARDED_BY(mutex) = 0;       // calls that wait for a slot or a lane
  uint32_t long_waiters SUTRA_GUARDED_BY(mutex) = 0;  // those of them that have a long text

  // The descriptor's parts: made at the first call of sutra_event_fd, under the mutex; -1 until then.
  std::atomic<int> loop_fd = -1;
  int reminder_fd = -1;
  int timer_fd = -1;
  std::atomic<uint32_t> reminded = 0;   // these three change under the mutex. Until TakeReminder
  std::atomic<uint32_t> room_told = 0;  // until EndRoomWish
  std::atomic<uint64_t> room_wish = 0;  // a number that no other wish of this process has; 0 = nobody waits for room
  uint32_t room_wishers SUTRA_GUARDED_BY(mutex) = 0;  // threads told of no room that did not submit since
  std::atomic<uint64_t> timer_ns = kNever;

  std::atomic<uint32_t> cancel_epoch = 0;  // how often sutra_cancel_all was called (cancel_all.h)

  // Of sutra_poll alone: how long an event loop polls on before the engine is asked to ring (PollsOn in lane_poll.cc).
  alignas(64) std::atomic<uint64_t> busy_since_ns = 0;  // the last answer was found; 0 = the engine is asked
  std::atomic<uint32_t> busy_misses = 0;                // in a row
  std::atomic<uint32_t> busy_skip = 0;                  // answers left after which the engine is asked at once

  // Of the helper thread (lane_helper.h): its epoll descriptor, with the lanes' sockets in it, and an eventfd to call
  // it.
  alignas(64) int watch_fd = -1;
  int wake_fd = -1;
};

// A descriptor for event loops. RETURNS it, or -1 and an explanation: no descriptors left.
int OpenSignals(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);
void CloseSignals(ClientSignals* signals);
inline bool HasEventLoop(const ClientSignals& signals) {
  // relaxed: a thread that must not miss it takes the mutex in between (WatchPipe)
  return signals.loop_fd.load(std::memory_order_relaxed) >= 0;
}

// Adds a lane's pipe to the descriptor, if there is one. RETURNS whether it is watched.
bool WatchPipe(ClientSignals* signals, int event_fd) SUTRA_EXCLUDES(signals->mutex);
// REQUIRES: watched. Before it is closed: a forked child that has the pipe too would keep it in the descriptor.
void ForgetPipe(ClientSignals* signals, int event_fd);

// Makes the descriptor readable, if there is one, until TakeReminder.
void Remind(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);
// RETURNS true if it was: what is looked at afterwards includes what the reminder was for.
bool TakeReminder(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);

// Before the look for room that decides on the refusal: this thread makes a wish or joins the one that there is.
void WishForRoom(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);
// After that look found room after all, or that the engine that came back is another for good.
void TakeWishBack(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);
// At a poll: this thread learns of the wish if its room has been told.
void LearnRoomWish(ClientSignals* signals);
// Before a submit's first look for room: ends what this thread has to do with the wish.
void EndRoomWish(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);

// After submitting: the descriptor becomes readable at deadline_ns at the latest.
void NoteDeadline(ClientSignals* signals, uint64_t deadline_ns);
// RETURNS true if the timer is due. It is off then: the caller looks at all deadlines and notes the earliest again.
bool TakeTimer(ClientSignals* signals, uint64_t now_ns);

// After a slot became free in a lane that a call found full, or a claim on its pages ended: wakes a waiting call, all
// of them if one needs more than a slot, and tells the event loop that wishes. RETURNS whether calls still wait for the
// next one.
bool RoomFreed(ClientSignals* signals) SUTRA_EXCLUDES(signals->mutex);
// After a lane died, was opened, or could not be: all waiters look again, and an event loop if `events`.
void LanesChanged(ClientSignals* signals, bool events) SUTRA_EXCLUDES(signals->mutex);

// A call that waits. From its construction on no change is missed: the caller looks, and waits only if it found none.
class RoomWaiter {
 public:
  // `long_text`: needs pages of the tail file too, so a slot that becomes free may not be enough.
  RoomWaiter(ClientSignals* signals, bool long_text);
  ~RoomWaiter();
  RoomWaiter(const RoomWaiter&) = delete;
  RoomWaiter& operator=(const RoomWaiter&) = delete;

  // Until something changed since the last call, or until_ns.
  void Wait(uint64_t until_ns);

 private:
  ClientSignals* const signals_;
  const bool long_text_;
  uint64_t turn_ = 0;
};

}  // namespace sutra::client
