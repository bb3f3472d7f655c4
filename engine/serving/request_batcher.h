// Orders the texts that wait for the model and hands batches to whichever worker is free: natural batching, whatever is
// queued up to a token budget, without any artificial delay.
//
// Order: class (query, normal, bulk), then fair shares, then arrival. Fair shares are start-time fair queueing by
// client and token: a text's start tag is the later of the batcher's virtual time and its client's last finish tag,
// so a client that queued a thousand texts and one that queued a single text alternate. Aging: a text of a lower
// class that has waited longer than kAgingNs may use up to a quarter of a batch ahead of the higher classes.
//
// What is handed out are candidates: the batcher does not know who still waits for them. The worker prunes outside the
// batcher's lock and fills up what pruning left free (TopUp).
//
// Thread rule: Add, Flush and the bound belong to the loop thread; NextBatch and TopUp may be called by several
// workers; Stop by any thread. The loop never takes the mutex. Nobody else's code runs and no system call is made under
// it.
// Invariants: a computation is handed out at most once; a batch has at most `tokens_max` tokens and `texts_max` texts,
// or one text.
#pragma once

#include <atomic>
#include <functional>
#include <unordered_map>
#include <vector>

#include "engine/lanes/request.h"
#include "engine/serving/wake_gate.h"
#include "engine/serving/work_queue.h"
#include "shm/base/mutex.h"

namespace sutra {

class RequestBatcher {
 public:
  struct Limits {
    uint32_t tokens_max = 0;  // of one batch, as texts_max
    uint32_t texts_max = 0;
    uint32_t queue_texts_max = 0;
    uint32_t spin_us = 0;  // a worker polls so long before it sleeps
  };
  static constexpr uint64_t kAgingNs = 250'000'000;

  // REQUIRES: every bound but spin_us is at least 1.
  explicit RequestBatcher(const Limits& limits);

  bool full() const { return queued_texts() >= limits_.queue_texts_max; }
  uint64_t queued_texts() const { return queued_texts_.load(std::memory_order_relaxed); }    // only counts
  uint64_t queued_tokens() const { return queued_tokens_.load(std::memory_order_relaxed); }  // only counts

  // Stages a computation; `again` when it was queued before and its class rose. Flush makes what is staged visible to
  // the workers, in one step, and wakes one if all sleep.
  void Add(const ComputationPtr& computation, PriorityClass priority, bool again);
  void Flush();

  // Waits for work and puts a batch of it into `batch`, whatever that held before. False, and an empty batch, after
  // Stop.
  bool NextBatch(std::vector<ComputationPtr>* batch);

  // Appends what is queued and still fits into the budget beside the texts that `batch` has; never waits. False when
  // nothing was added.
  bool TopUp(uint64_t now_ns, std::vector<ComputationPtr>* batch);

  // Ends NextBatch. What is queued stays where it is.
  void Stop();

 private:
  struct Staged {
    ComputationPtr computation;
    PriorityClass priority;
    bool again;
  };
  struct Entry {
    uint64_t start_tag;
    uint64_t arrival;
    ComputationPtr computation;
  };
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      return a.start_tag != b.start_tag ? a.start_tag > b.start_tag : a.arrival > b.arrival;
    }
  };

  void AdmitArrivalsLocked() SUTRA_REQUIRES(mutex_);
  void TakeLocked(int priority, uint64_t tokens_max, uint64_t aged_before_ns, std::vector<ComputationPtr>* batch,
                  uint64_t* tokens) SUTRA_REQUIRES(mutex_);

  const Limits limits_;
  std::vector<Staged> staged_;  // the loop thread's
  WorkQueue<Staged> queue_;
  WakeGate gate_;
  std::atomic<uint64_t> queued_texts_{0};
  std::atomic<uint64_t> queued_tokens_{0};
  std::atomic<bool> stopped_{false};

  Mutex mutex_;  // the ordered part, and `taken` of each computation
  std::vector<Staged> arrivals_ SUTRA_GUARDED_BY(mutex_);
  std::vector<Entry> heaps_[kClassCount] SUTRA_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, uint64_t> finish_tags_ SUTRA_GUARDED_BY(mutex_);  // by flow
  uint64_t virtual_time_ SUTRA_GUARDED_BY(mutex_) = 0;
  uint64_t arrival_next_ SUTRA_GUARDED_BY(mutex_) = 0;
};

}  // namespace sutra
