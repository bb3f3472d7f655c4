// Texts of more than kLongTextBytes on their way from the loop to the thread that reads them (long_worker.h): to read,
// hash and compare one takes milliseconds, which the loop does not have. The loop only checks the descriptor, charges
// the text to its client (queue_bounds.h) and hands it over.
//
// Thread rule: Add and Unreadable belong to the loop thread; Next, Done and ReportUnreadable to the worker's; Stop and
// size to any.
// Invariants: the loop waits for no lock here; a text counts (size) from Add until its Done, so it is at every moment
// counted here, or in flight, or answered; between clients the worker serves in fair order, by bytes (fair_order.h).
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "engine/lanes/lane_reader.h"
#include "engine/serving/fair_order.h"
#include "engine/serving/wake_gate.h"
#include "engine/serving/work_queue.h"
#include "shm/base/mutex.h"

namespace sutra {

// A request whose text is not read yet. If the text has to be computed, this becomes its computation.
struct LongRequest : Computation {
  Waiter first;
  TailText unread;
};

using LongRequestPtr = std::shared_ptr<LongRequest>;

class LongTexts {
 public:
  LongTexts();

  // The loop: hands the request over, which must be charged. Throws std::bad_alloc and has changed nothing.
  void Add(LongRequestPtr request);
  // The loop: lanes whose texts could not be read since the last call, which is a violation. Usually none.
  std::vector<std::shared_ptr<Lane>> Unreadable();

  // The worker: waits for the next request; null after Stop.
  LongRequestPtr Next();
  // The worker: the request that Next returned is answered or in flight, or it never will be.
  void Done();
  void ReportUnreadable(const std::shared_ptr<Lane>& lane);

  // Makes Next return.
  void Stop();
  // The worker, after Stop, when the loop adds nothing more: what is queued stays unanswered.
  void DropAll();

  // SYNC E6 (acquire): a text that is not counted any more is counted in flight or answered; meets SYNC E6 (release) in
  // Done. So look here first.
  size_t size() const { return count_.load(std::memory_order_acquire); }

 private:
  static constexpr size_t kArrivalsMax = 64;  // moved into the order at a time
  static constexpr int kMemoryRetryMs = 10;

  LongRequestPtr TryNext();

  std::vector<LongRequestPtr> handed_;  // the loop's, empty between calls
  WorkQueue<LongRequestPtr> queue_;
  WakeGate gate_;
  std::atomic<bool> stopped_{false};
  std::atomic<size_t> count_{0};

  // The worker's.
  std::vector<LongRequestPtr> arrivals_;
  size_t admitted_ = 0;  // of arrivals_; the rest could not be, for want of memory
  FairOrder order_;

  std::atomic<bool> any_unreadable_{false};
  Mutex mutex_;
  std::vector<std::shared_ptr<Lane>> unreadable_ SUTRA_GUARDED_BY(mutex_);
};

}  // namespace sutra
