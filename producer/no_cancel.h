// Keeps pthread_cancel from ending the calling thread within a scope, which may hold a lane's mutex or half a
// handshake. Stands around every call of ours that is a cancellation point, so that no call of embed.h is one. Thread
// rule: the calling thread's own state.
#pragma once

#include <pthread.h>

namespace sutra::client {

class NoCancel {
 public:
  NoCancel() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~NoCancel() { pthread_setcancelstate(before_, nullptr); }
  NoCancel(const NoCancel&) = delete;
  NoCancel& operator=(const NoCancel&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace sutra::client
