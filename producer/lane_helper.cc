#include "producer/lane_helper.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "producer/cancel_all.h"
#include "producer/high_fd.h"
#include "producer/lane_open.h"
#include "producer/no_cancel.h"
#include "producer/resubmission.h"

namespace sutra::client {
namespace {

constexpr uint64_t kWakeTag = UINT64_MAX;              // of the helper's own eventfd; else the index of a lane
constexpr size_t kStackBytes = 256 << 10;              // the C library puts thread-local variables there too
constexpr uint64_t kSuspectWaitNsMin = 1 * kNsPerMs;   // a dying engine may hold its lock for a moment
constexpr uint64_t kSuspectWaitNsMax = kSleepSliceNs;  // one that lives on is asked as often as a sleeping waiter does
static_assert(kLaneTableSize == 64, "suspects_ is a bit per lane");

class Helper {
 public:
  explicit Helper(sutra_client* client) : client_(client), cancels_(client) {}

  void Run() {
    for (;;) {
      Sleep();
      if (client_->helper.stop.load(std::memory_order_acquire) != 0) return;
      cancels_.Step();
      AskSuspects();
      const bool death = TellDeaths();
      const bool asked = client_->helper.asked.exchange(0, std::memory_order_acq_rel) != 0;
      if (death || asked || lost_ || waiting_ || more_) OpenIfNeeded(asked);
    }
  }

 private:
  // Until a socket hangs up, somebody asks, or something is due.
  void Sleep() {
    epoll_event events[16];
    const int count = epoll_wait(client_->signals.watch_fd, events, 16, TimeoutMs());
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kWakeTag) {
        uint64_t number;
        (void)!read(client_->signals.wake_fd, &number, sizeof(number));
      } else {
        assert(events[i].data.u64 < kLaneTableSize);
        suspects_ |= uint64_t{1} << events[i].data.u64;
        suspect_wait_ns_ = kSuspectWaitNsMin;
      }
    }
  }

  int TimeoutMs() const {
    uint64_t wait_ns = kNever;
    if (suspects_ != 0) wait_ns = suspect_wait_ns_;
    if (cancels_.due() && kNsPerMs < wait_ns) wait_ns = kNsPerMs;
    if (lost_ || waiting_ || more_) {
      const uint64_t now_ns = MonotonicNs();
      const uint64_t after_ns = client_->open_after_ns.load(std::memory_order_relaxed);  // relaxed: this thread's
      const uint64_t left_ns = after_ns > now_ns ? after_ns - now_ns : 0;
      if (left_ns < wait_ns) wait_ns = left_ns;
    }
    return wait_ns == kNever ? -1 : static_cast<int>((wait_ns + kNsPerMs - 1) / kNsPerMs);
  }

  // The kernel's lock decides which of the engines that hung up are dead.
  void AskSuspects() {
    for (uint64_t left = suspects_; left != 0; left &= left - 1) {
      const int index = __builtin_ctzll(left);
      ClientLane* lane = client_->lanes[index].load(std::memory_order_relaxed);  // relaxed: set by this thread
      Attachment* attachment = Pin(lane);
      const bool alive = attachment != nullptr && CheckAlive(lane, attachment, MonotonicNs());
      // One that does not hang up was attached since, in the place of the one that did.
      if (!alive || !HungUp(*attachment)) suspects_ &= ~(uint64_t{1} << index);
      if (attachment != nullptr) Unpin(lane, attachment);
    }
    suspect_wait_ns_ = suspect_wait_ns_ * 2 < kSuspectWaitNsMax ? suspect_wait_ns_ * 2 : kSuspectWaitNsMax;
  }

  // Of the engines that this thread, or any call, found gone. RETURNS whether there is one.
  bool TellDeaths() {
    bool death = false;
    ForEachLane(client_, [&](ClientLane* lane) {
      const sutra_status status = TellDeath(lane);
      if (status == SUTRA_OK) return;
      death = true;
      const MutexLock lock(client_->attempt_mutex);
      client_->lost_status = status;
    });
    if (death) LanesChanged(&client_->signals, true);
    return death;
  }

  void OpenIfNeeded(bool asked) {
    do {
      const LaneCount lanes = CountLanes(client_, MonotonicNs());
      lost_ = lanes.usable == 0;
      waiting_ = lanes.waiting > 0;
      more_ = (asked || more_) && !lost_ && lanes.usable < client_->lanes_max && !lanes.stalled;
      if (!lost_ && !waiting_ && !more_) return;
      // relaxed: this thread's
      if (MonotonicNs() < client_->open_after_ns.load(std::memory_order_relaxed)) return;
      more_ = asked = false;  // whoever still finds no room asks again
    } while (OpenLane(client_, LookAround, this) &&
             client_->helper.stop.load(std::memory_order_relaxed) == 0);  // relaxed: a hint
  }

  // During an attach to an engine that does not answer: others are not to wait for that.
  static bool LookAround(void* helper) {
    auto* const self = static_cast<Helper*>(helper);
    self->cancels_.Step();
    return self->client_->helper.stop.load(std::memory_order_acquire) == 0;
  }

  sutra_client* const client_;
  CancelRounds cancels_;
  uint64_t suspects_ = 0;  // lanes whose sockets hung up, and whose engines are not known to be dead
  uint64_t suspect_wait_ns_ = kSuspectWaitNsMin;
  bool lost_ = false;     // there is no usable lane
  bool waiting_ = false;  // requests wait in a lost lane
  bool more_ = false;     // another one was asked for
};

void* RunHelper(void* client) {
  pthread_setname_np(pthread_self(), "sutra-client");
  Helper(static_cast<sutra_client*>(client)).Run();
  return nullptr;
}

void WakeHelper(const sutra_client* client) {
  const NoCancel no_cancel;
  const uint64_t one = 1;
  (void)!write(client->signals.wake_fd, &one, sizeof(one));
}

int Create(pthread_t* thread, size_t stack_bytes, sutra_client* client) {
  pthread_attr_t attributes;
  if (const int error = pthread_attr_init(&attributes); error != 0) return error;
  if (stack_bytes != 0) pthread_attr_setstacksize(&attributes, stack_bytes);
  const int error = pthread_create(thread, &attributes, RunHelper, client);
  pthread_attr_destroy(&attributes);
  return error;
}

}  // namespace

sutra_status OpenHelper(sutra_client* client) {
  client->signals.watch_fd = HighFd(epoll_create1(EPOLL_CLOEXEC));
  client->signals.wake_fd = HighFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = kWakeTag;
  if (client->signals.watch_fd >= 0 && client->signals.wake_fd >= 0 &&
      epoll_ctl(client->signals.watch_fd, EPOLL_CTL_ADD, client->signals.wake_fd, &event) == 0) {
    return SUTRA_OK;
  }
  return Fail(SUTRA_OUT_OF_MEMORY, "descriptors for watching the engine: %s; raise the limit of open files",
              strerror(errno));
}

sutra_status StartHelper(sutra_client* client) {
  assert(!client->helper.running);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread inherits it
  int error = Create(&client->helper.thread, kStackBytes, client);
  // Thread-local variables of the program may need more than that.
  if (error == EINVAL) error = Create(&client->helper.thread, 0, client);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    return Fail(SUTRA_OUT_OF_MEMORY,
                "starting the library's helper thread: %s; raise the limit of threads (ulimit -u, pids.max)",
                strerror(error));
  }
  client->helper.running = true;
  return SUTRA_OK;
}

void StopHelper(sutra_client* client, bool forked) {
  const NoCancel no_cancel;
  if (client->helper.running && !forked) {
    client->helper.stop.store(1, std::memory_order_release);
    WakeHelper(client);
    [[maybe_unused]] const int error = pthread_join(client->helper.thread, nullptr);
    assert(error == 0);
  }
  client->helper.running = false;
  if (client->signals.wake_fd >= 0) close(client->signals.wake_fd);
  if (client->signals.watch_fd >= 0) close(client->signals.watch_fd);
  client->signals.wake_fd = client->signals.watch_fd = -1;
}

void AskForLane(sutra_client* client, bool more) {
  const uint64_t now_ns = MonotonicNs();
  if (now_ns < client->open_after_ns.load(std::memory_order_relaxed)) return;  // relaxed: only paces
  // The lane that is being opened may be enough.
  if (more && client->helper.opening.load(std::memory_order_relaxed) != 0) return;  // relaxed: a hint
  if (client->helper.asked.exchange(1, std::memory_order_acq_rel) == 0) WakeHelper(client);
}

}  // namespace sutra::client
