#include "producer/client_signals.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "producer/high_fd.h"
#include "producer/no_cancel.h"
#include "producer/thread_state.h"
#include "shm/base/time.h"

namespace sutra::client {
namespace {

bool AddTo(int epoll_fd, int fd) {
  epoll_event event = {};
  event.events = EPOLLIN;
  return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void CloseAll(int first, int second, int third) {
  const NoCancel no_cancel;
  for (const int fd : {first, second, third}) {
    if (fd >= 0) close(fd);
  }
}

// Makes the reminder readable for `reason`, which is reminded or room_told. Written even where it is readable: that is
// an edge for loops that are triggered by edges, as tokio's are.
void RemindLocked(ClientSignals* signals, std::atomic<uint32_t>* reason) SUTRA_REQUIRES(signals->mutex) {
  if (signals->loop_fd.load(std::memory_order_relaxed) < 0) return;  // relaxed: changes under the mutex
  const NoCancel no_cancel;
  const uint64_t one = 1;
  if (write(signals->reminder_fd, &one, sizeof(one)) == static_cast<ssize_t>(sizeof(one))) {
    reason->store(1, std::memory_order_relaxed);
  }
}

// RETURNS true if the reminder was readable for `reason`: not any more, unless it is for the other one.
bool TakeLocked(ClientSignals* signals, std::atomic<uint32_t>* reason) SUTRA_REQUIRES(signals->mutex) {
  // relaxed: they change under the mutex
  if (reason->exchange(0, std::memory_order_relaxed) == 0) return false;
  if (signals->reminded.load(std::memory_order_relaxed) != 0 ||
      signals->room_told.load(std::memory_order_relaxed) != 0) {
    return true;
  }
  const NoCancel no_cancel;
  uint64_t number = 0;
  (void)!read(signals->reminder_fd, &number, sizeof(number));
  return true;
}

void TellRoomLocked(ClientSignals* signals) SUTRA_REQUIRES(signals->mutex) {
  // relaxed: changes under the mutex
  if (signals->room_wish.load(std::memory_order_relaxed) != 0) RemindLocked(signals, &signals->room_told);
}

void EndWishLocked(ClientSignals* signals) SUTRA_REQUIRES(signals->mutex) {
  signals->room_wish.store(0, std::memory_order_relaxed);  // relaxed: changes under the mutex
  signals->room_wishers = 0;
  TakeLocked(signals, &signals->room_told);
}

// RETURNS true if others are left that wish.
bool LeaveWishLocked(ClientSignals* signals) SUTRA_REQUIRES(signals->mutex) {
  const uint64_t wish = signals->room_wish.load(std::memory_order_relaxed);  // relaxed: changes under the mutex
  uint64_t& joined = CurrentThread().room_wish_joined;
  if (wish == 0 || joined != wish) return wish != 0;  // another thread ended it
  joined = 0;
  assert(signals->room_wishers > 0);
  if (--signals->room_wishers > 0) return true;
  EndWishLocked(signals);
  return false;
}

// One slot came free, which is one call's; but the call that it reaches may need more, where another does not.
void WakeWaitersLocked(ClientSignals* signals) SUTRA_REQUIRES(signals->mutex) {
  if (signals->long_waiters > 0) {
    signals->changed.NotifyAll();
  } else if (signals->waiters > 0) {
    signals->changed.NotifyOne();
  }
}

// Set for `ns`, or off for kNever; either way it is not readable any more, unless `ns` has passed.
void SetTimer(ClientSignals* signals, uint64_t ns) {
  itimerspec setting = {};
  if (ns != kNever) setting.it_value = ToTimespec(ns);
  timerfd_settime(signals->timer_fd, TFD_TIMER_ABSTIME, &setting, nullptr);
}

// Of several threads that set it at once the last word wins: whoever finds another one than its own sets that.
void SetTimerToWord(ClientSignals* signals) {
  uint64_t ns;
  do {
    ns = signals->timer_ns.load(std::memory_order_seq_cst);
    SetTimer(signals, ns);
    // seq_cst: the two threads' stores, system calls and loads have one order, in which one of them is last
  } while (signals->timer_ns.load(std::memory_order_seq_cst) != ns);
}

}  // namespace

int OpenSignals(ClientSignals* signals) {
  const MutexLock lock(signals->mutex);
  const int open = signals->loop_fd.load(std::memory_order_relaxed);  // relaxed: changes under the mutex
  if (open >= 0) return open;
  const int reminder_fd = HighFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const int timer_fd = HighFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  const int loop_fd = HighFd(epoll_create1(EPOLL_CLOEXEC));
  if (reminder_fd < 0 || timer_fd < 0 || loop_fd < 0 || !AddTo(loop_fd, reminder_fd) || !AddTo(loop_fd, timer_fd)) {
    Fail(SUTRA_OUT_OF_MEMORY, "a descriptor for an event loop: %s; raise the limit of open files", strerror(errno));
    CloseAll(reminder_fd, timer_fd, loop_fd);
    return -1;
  }
  signals->reminder_fd = reminder_fd;
  signals->timer_fd = timer_fd;
  signals->loop_fd.store(loop_fd, std::memory_order_release);
  return loop_fd;
}

void CloseSignals(ClientSignals* signals) {
  CloseAll(signals->loop_fd.load(std::memory_order_relaxed), signals->reminder_fd,  // relaxed: one thread is left
           signals->timer_fd);
}

bool WatchPipe(ClientSignals* signals, int event_fd) {
  int loop_fd;
  {
    // Whoever makes the descriptor adds the lanes that it finds, and whoever opens a lane adds it to the descriptor
    // that it finds: the mutex lets no lane slip between the two.
    const MutexLock lock(signals->mutex);
    loop_fd = signals->loop_fd.load(std::memory_order_relaxed);  // relaxed: changes under the mutex
  }
  return loop_fd >= 0 && AddTo(loop_fd, event_fd);
}

void ForgetPipe(ClientSignals* signals, int event_fd) {
  epoll_ctl(signals->loop_fd.load(std::memory_order_relaxed), EPOLL_CTL_DEL, event_fd, nullptr);  // relaxed: is set
}

void Remind(ClientSignals* signals) {
  if (!HasEventLoop(*signals)) return;
  const MutexLock lock(signals->mutex);
  RemindLocked(signals, &signals->reminded);
}

bool TakeReminder(ClientSignals* signals) {
  // relaxed: one that comes after this look leaves the descriptor readable
  if (signals->reminded.load(std::memory_order_relaxed) == 0) return false;
  const MutexLock lock(signals->mutex);
  return TakeLocked(signals, &signals->reminded);  // unless another poll took it
}

void WishForRoom(ClientSignals* signals) {
  if (!HasEventLoop(*signals)) return;
  static std::atomic<uint64_t> last_wish{0};
  const MutexLock lock(signals->mutex);
  uint64_t wish = signals->room_wish.load(std::memory_order_relaxed);  // relaxed: changes under the mutex
  if (wish == 0) {
    wish = last_wish.fetch_add(1, std::memory_order_relaxed) + 1;  // relaxed: only a number
    signals->room_wish.store(wish, std::memory_order_relaxed);
  }
  ++signals->room_wishers;
  CurrentThread().room_wish_joined = wish;
  // This thread found none of the room that was told of. If the next look does, TakeWishBack tells of it again.
  TakeLocked(signals, &signals->room_told);
}

void TakeWishBack(ClientSignals* signals) {
  const MutexLock lock(signals->mutex);
  if (LeaveWishLocked(signals)) TellRoomLocked(signals);
}

void LearnRoomWish(ClientSignals* signals) {
  // relaxed: what is told after this look leaves the descriptor readable, and the next poll learns of it
  if (signals->room_told.load(std::memory_order_relaxed) == 0) return;
  CurrentThread().room_wish_learned = signals->room_wish.load(std::memory_order_relaxed);
}

void EndRoomWish(ClientSignals* signals) {
  // relaxed: a thread sees the wish that it joined or learned of; another is none of its business
  const uint64_t wish = signals->room_wish.load(std::memory_order_relaxed);
  const ThreadState& thread = CurrentThread();
  if (wish == 0 || (thread.room_wish_joined != wish && thread.room_wish_learned != wish)) return;
  const MutexLock lock(signals->mutex);
  if (signals->room_wish.load(std::memory_order_relaxed) != wish) return;  // another thread ended it
  if (thread.room_wish_learned == wish) {
    EndWishLocked(signals);
  } else {
    LeaveWishLocked(signals);
  }
}

void NoteDeadline(ClientSignals* signals, uint64_t deadline_ns) {
  // relaxed: the lane's mutex, under which the request was submitted, orders this behind TakeTimer, or TakeTimer's
  // caller sees the request
  uint64_t set_ns = signals->timer_ns.load(std::memory_order_relaxed);
  do {
    if (deadline_ns >= set_ns) return;
  } while (!signals->timer_ns.compare_exchange_weak(set_ns, deadline_ns, std::memory_order_seq_cst));
  SetTimerToWord(signals);
}

bool TakeTimer(ClientSignals* signals, uint64_t now_ns) {
  uint64_t set_ns = signals->timer_ns.load(std::memory_order_relaxed);  // relaxed: checked by the exchange
  do {
    if (now_ns < set_ns) return false;
  } while (!signals->timer_ns.compare_exchange_weak(set_ns, kNever, std::memory_order_seq_cst));
  SetTimerToWord(signals);
  return true;
}

bool RoomFreed(ClientSignals* signals) {
  const MutexLock lock(signals->mutex);
  ++signals->turns;
  WakeWaitersLocked(signals);
  TellRoomLocked(signals);
  return signals->waiters > 0;
}

void LanesChanged(ClientSignals* signals, bool events) {
  const MutexLock lock(signals->mutex);
  ++signals->turns;
  signals->changed.NotifyAll();
  if (!events) return;
  RemindLocked(signals, &signals->reminded);
  TellRoomLocked(signals);
}

RoomWaiter::RoomWaiter(ClientSignals* signals, bool long_text) : signals_(signals), long_text_(long_text) {
  const MutexLock lock(signals_->mutex);
  ++signals_->waiters;
  if (long_text_) ++signals_->long_waiters;
  turn_ = signals_->turns;
}

RoomWaiter::~RoomWaiter() {
  const MutexLock lock(signals_->mutex);
  assert(signals_->waiters > 0);
  // A wake that reached this thread at its deadline is passed on.
  --signals_->waiters;
  if (long_text_) --signals_->long_waiters;
  WakeWaitersLocked(signals_);
}

void RoomWaiter::Wait(uint64_t until_ns) {
  const NoCancel no_cancel;
  const MutexLock lock(signals_->mutex);
  while (signals_->turns == turn_ && signals_->changed.WaitUntil(signals_->mutex, until_ns)) {
  }
  turn_ = signals_->turns;
}

}  // namespace sutra::client
