#include "producer/batch_watch.h"

#include <assert.h>

namespace sutra::client {

BatchWatch::BatchWatch(sutra_client* client, const BatchLimits& limits, uint32_t cancel_epoch, size_t count)
    : client_(client), limits_(limits), cancel_epoch_(cancel_epoch), count_(count) {
  const uint64_t now_ns = MonotonicNs();
  if (limits_.timeout_ns != 0) until_ns_ = now_ns + limits_.timeout_ns;
  if (limits_.progress != nullptr) progress_ns_ = now_ns + kProgressNs;
  SetNext();
}

void BatchWatch::End() {
  if (limits_.progress != nullptr && !stopped_) (void)limits_.progress(limits_.context, count_, count_);
}

sutra_status BatchWatch::LookNow(size_t done) {
  const uint64_t now_ns = MonotonicNs();
  if (now_ns >= until_ns_) {
    return Fail(SUTRA_DEADLINE_EXCEEDED,
                "timeout_ms of the batch (%llu) was over: raise it, or embed fewer texts at once",
                static_cast<unsigned long long>(limits_.timeout_ns / kNsPerMs));
  }
  if (now_ns < progress_ns_) return SUTRA_OK;
  assert(!stopped_ && done <= count_);
  stopped_ = limits_.progress(limits_.context, done, count_) != 0;
  if (stopped_) return Fail(SUTRA_CANCELLED, "the progress callback stopped the batch");
  progress_ns_ = MonotonicNs() + kProgressNs;
  SetNext();
  return SUTRA_OK;
}

void BatchWatch::SetNext() { next_ns_ = until_ns_ < progress_ns_ ? until_ns_ : progress_ns_; }

}  // namespace sutra::client
