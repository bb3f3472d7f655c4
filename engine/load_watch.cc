// One thread, two descriptors.
#include "engine/load_watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "shm/base/thread_start.h"

namespace sutra {

LoadWatch::LoadWatch(Shutdown* shutdown, std::function<void()> leave)
    : shutdown_(shutdown), leave_(std::move(leave)), loaded_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!loaded_) return;
  static_cast<void>(StartThread("the load watch", [this] { thread_ = std::thread([this] { Run(); }); }).ok());
}

LoadWatch::~LoadWatch() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  static_cast<void>(!write(loaded_.get(), &one, sizeof(one)));  // cannot fail: the counter is far from full
  thread_.join();
}

void LoadWatch::Run() {
  pthread_setname_np(pthread_self(), "sutra-start");
  pollfd items[] = {{.fd = loaded_.get(), .events = POLLIN, .revents = 0},
                    {.fd = shutdown_->fd(), .events = POLLIN, .revents = 0}};
  for (;;) {
    if (poll(items, 2, -1) < 0) continue;  // EINTR
    if (items[0].revents != 0) return;     // a signal that came with it is the loop's
    if (shutdown_->OnSignal()) return leave_();
  }
}

}  // namespace sutra
