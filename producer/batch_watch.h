// What may end a batch before all its texts are done: sutra_cancel_all, the call's own timeout, and its progress
// callback, which is also told how far it is.
//
// Thread rule: one batch on one thread; nothing is locked while the callback runs, which may make any call of the
// client but sutra_detach.
// Invariants: at most one call of the callback per kProgressNs, and one at the end; none after it said stop.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "producer/cancel_all.h"

namespace sutra::client {

inline constexpr uint64_t kProgressNs = 100 * kNsPerMs;

struct BatchLimits {        // sutra_batch_options, checked
  uint64_t timeout_ns = 0;  // of the whole call; 0 = none
  int (*progress)(void* context, size_t done, size_t count) = nullptr;
  void* context = nullptr;
};

class BatchWatch {
 public:
  BatchWatch(sutra_client* client, const BatchLimits& limits, uint32_t cancel_epoch, size_t count);

  // `done` texts have their status. RETURNS SUTRA_OK, or the status, explained, that all others end with.
  sutra_status Look(size_t done) {
    if (IsCancelled(client_->signals, cancel_epoch_)) return FailCancelled();
    // The cheap clock: this is asked in every pass.
    return next_ns_ != kNever && CycleNs() >= next_ns_ ? LookNow(done) : SUTRA_OK;
  }
  // A look is due then at the latest; kNever = only sutra_cancel_all can end the batch.
  uint64_t next_ns() const { return next_ns_; }
  // All texts have their status.
  void End();

 private:
  sutra_status LookNow(size_t done);
  void SetNext();

  sutra_client* const client_;
  const BatchLimits limits_;
  const uint32_t cancel_epoch_;
  const size_t count_;
  uint64_t until_ns_ = kNever;
  uint64_t progress_ns_ = kNever;  // the callback is due
  uint64_t next_ns_ = kNever;
  bool stopped_ = false;
};

}  // namespace sutra::client
